"""What a run was asked to do: frozen pydantic models, TOML files, and typed overrides over them."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from core.errors import ConfigError

# How a value of None is spelled in TOML and in an override, neither of which has a null.
NONE = "none"


class Config(BaseModel):
    """Base of every configuration: frozen; unknown keys and infinite numbers are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


C = TypeVar("C", bound=Config)


def load_config(
    model: type[C], *, file: str | Path | None = None, overrides: Sequence[str] = ()
) -> C:
    """Give the configuration: defaults of `model`, then the TOML `file`, then `overrides`.

    Parameters
    ----------
    model : type of Config
        Sections are fields that are themselves a `Config`.
    file : path, optional
        A TOML file; its tables are the sections.
    overrides : sequence of str
        Each ``section.key=value``, typed from the model: ``train.learning_rate=3e-4``; a list as
        TOML writes it: ``train.widths=[64, 64]``. ``none`` is None where the field allows it.

    Raises
    ------
    ConfigError
        For a file that is missing or is not TOML, an unknown key (the near miss is named), a value
        of the wrong type or outside its bounds. The sentence names the file or `--set`.
    """
    values: dict[str, Any] = {}
    origin: dict[tuple[str, ...], str] = {}
    if file is not None:
        _merge(model, _read_toml(Path(file)), str(file), values, origin)
    for text in overrides:
        _merge(model, _parse_override(model, text), "--set", values, origin)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, model, origin)) from error


def config_sha256(config: Config) -> str:
    """Hash of the resolved configuration, independent of the order of its keys."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def config_toml(config: Config) -> str:
    """Spell `config` as TOML that `load_config` reads back to an equal one."""
    return "\n".join(_toml_lines(config.model_dump(mode="json"), ())) + "\n"


def toml_value(value: Any) -> str:
    """Spell a value as TOML does; None as `NONE`.

    Examples
    --------
    >>> toml_value({"train.n_epoch": 3, "rate": [0.1, None]})
    '{"train.n_epoch" = 3, rate = [0.1, "none"]}'
    """
    if value is None:
        return json.dumps(NONE)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON leaves DEL as it is, TOML wants it escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    return repr(value)


def near_miss(name: str, known: Sequence[str]) -> str:
    """Give ``; did you mean 'x'?``, or the list of what there is when nothing is close.

    Examples
    --------
    >>> near_miss("learning_rat", ["learning_rate", "n_epoch"])
    "; did you mean 'learning_rate'?"
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; it knows {', '.join(sorted(known))}"


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"cannot read the configuration {file}: {reason}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error


def _section(annotation: Any) -> type[BaseModel] | None:
    """Give the model behind `Model` or `Model | None`; None for a plain value."""
    if get_origin(annotation) in (Union, types.UnionType):
        sections = [s for part in get_args(annotation) if (s := _section(part)) is not None]
        return sections[0] if len(sections) == 1 else None
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None


def _merge(
    model: type[BaseModel],
    new: dict[str, Any],
    source: str,
    values: dict[str, Any],
    origin: dict[tuple[str, ...], str],
    at: tuple[str, ...] = (),
) -> None:
    """Lay `new` over `values` in place; a section's untouched keys keep the model's default."""
    for key, value in new.items():
        field = model.model_fields.get(key)
        if field is None:
            where = f"{source} [{'.'.join(at)}]" if at else source
            hint = near_miss(key, list(model.model_fields))
            raise ConfigError(f"unknown key {key!r} in {where}{hint}")
        section = _section(field.annotation)
        origin[(*at, key)] = source
        if section is None or not isinstance(value, dict):
            if value == NONE and type(None) in get_args(field.annotation):
                value = None
            values[key] = value
            continue
        inside = values.get(key)
        if inside is None and not field.is_required():
            inside = field.get_default(call_default_factory=True)
        if not isinstance(inside, dict):
            inside = _unfold(section, inside)
        values[key] = inside
        _merge(section, value, source, inside, origin, (*at, key))


def _unfold(section: type[BaseModel], value: Any) -> dict[str, Any]:
    """Give the keys of a section that so far is a model, a short form (a name), or nothing."""
    if value is None:
        return {}
    try:
        return section.model_validate(value).model_dump(exclude_unset=True)
    except ValidationError:
        return {}


def _parse_override(model: type[BaseModel], text: str) -> dict[str, Any]:
    """Turn ``a.b=value`` into ``{"a": {"b": value}}``, the value typed from the model."""
    path, equal, raw = text.partition("=")
    keys = path.strip().split(".")
    if not equal or not all(keys):
        raise ConfigError(f"--set {text}: expected key=value, such as train.learning_rate=3e-4")
    section: type[BaseModel] | None = model
    annotation: Any = Any
    for i_key, key in enumerate(keys):
        if section is None:
            owner = ".".join(keys[:i_key])
            raise ConfigError(f"--set {text}: {owner} is a single value, it has no key {key!r}")
        field = section.model_fields.get(key)
        if field is None:
            break
        annotation = field.annotation
        section = _section(annotation)
    value: Any = _typed(raw.strip(), annotation)
    for key in reversed(keys):
        value = {key: value}
    return value


def _typed(raw: str, annotation: Any) -> Any:
    """Read `raw` as a TOML value where the field takes that, else leave the text."""
    try:
        parsed = tomllib.loads(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return raw
    try:
        TypeAdapter(annotation).validate_python(parsed)
    except ValidationError:
        # a text in quotes is the text: the model may know a short form that the type alone does not
        return parsed if isinstance(parsed, str) else raw
    return parsed


def _sentence(
    error: ValidationError, model: type[BaseModel], origin: dict[tuple[str, ...], str]
) -> str:
    """Say what is wrong with the first bad value, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    loc = tuple(str(part) for part in first["loc"])
    known = next((origin[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in origin), None)
    where = known or model.__name__
    if len(loc) > 1:
        where += f" [{'.'.join(loc[:-1])}]"
    came = "" if first["type"] == "missing" else f", got {first['input']!r}"
    message = first["msg"].removeprefix("Value error, ")
    text = f"{where}: {loc[-1]}: {message}{came}" if loc else f"{where}: {message}"
    more = len(problems) - 1
    return text + (f" (and {more} more)" if more else "")


def _toml_lines(table: dict[str, Any], at: tuple[str, ...]) -> list[str]:
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"{_toml_key(key)} = {toml_value(value)}" for key, value in plain.items()]
    if at and (lines or not table):
        lines.insert(0, f"[{'.'.join(map(_toml_key, at))}]")
    for key, value in table.items():
        if isinstance(value, dict):
            inner = _toml_lines(value, (*at, key))
            lines += [""] * bool(lines) + inner
    return lines


def _toml_key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if bare else json.dumps(key)
