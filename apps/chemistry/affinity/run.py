"""The affinity benchmark: one split of Davis or KIBA, judged beside published errors."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from apps.chemistry.affinity.document import METRICS, WHOLE, affinity_document
from apps.chemistry.affinity.elsewhere import OTHER, elsewhere_answers
from apps.chemistry.affinity.kernels import drug_kernel
from apps.chemistry.affinity.network import network_answer
from apps.chemistry.affinity.pairs import Kind, PairTable, Split, draw_splits, read_pairs
from apps.chemistry.affinity.stack import (
    ELSEWHERE,
    Stacked,
    Views,
    is_warm,
    pair_features,
    stack,
)
from apps.chemistry.metrics import ci, mse, rm2, roc_auc
from apps.chemistry.summary import aligned
from apps.lab.config import Config, config_sha256
from apps.lab.launch import start_run
from apps.lab.progress import say, track
from apps.lab.record import RECORD_FILE, Record, new_record, read_record, write_record

PUBLISHED = Path(__file__).with_name("published.toml")


class AffinityConfig(Config):
    """What a run of the benchmark can be told.

    Parameters
    ----------
    suite : "davis" or "kiba"
    split : str
        See `draw_splits`.
    network : bool
        Also train the network of pairs (`apps.chemistry.affinity.network`) on every part. It is
        part of the whole answer where it lowers the error on held pairs of the training part; the
        record has both answers beside each other.
    other_set : bool
        Also heed what the other set (KIBA for Davis, Davis for KIBA) says of the pairs, with all
        drugs of this one left out of it (`apps.chemistry.affinity.elsewhere`). The record has the
        answer without it as the member `this_set_alone`.
    """

    suite: str = "davis"
    split: Kind = "warm"
    network: bool = False
    other_set: bool = False


def run_affinity(config: AffinityConfig, *, out: Path, seeds: Sequence[int]) -> list[Record]:
    """Run one split with every seed; a finished one in `out` with the same settings is kept.

    Returns
    -------
    list of Record
        `accuracy["test"]` is that of the whole answer, the mean over the tests of the split;
        `members` holds its parts, `baselines` the mean of the training part, main effects of
        drugs and proteins, and published errors.
    """
    table = read_pairs(config.suite)
    heeded = elsewhere_answers(table, read_pairs(OTHER[table.name])) if config.other_set else None
    views = Views.of(table, drug_kernel(table.smiles), heeded)
    records = []
    for seed in seeds:
        folder = out / f"{config.suite}-{config.split}" / f"seed-{seed}"
        kept = read_record(folder) if (folder / RECORD_FILE).exists() else None
        if kept is not None and kept.config_sha256 == config_sha256(config):
            records.append(kept)
        else:
            records.append(_run_seed(config, views, folder, seed))
    return records


def _run_seed(config: AffinityConfig, views: Views, folder: Path, seed: int) -> Record:
    table = views.table
    splits = draw_splits(table, config.split, seed=seed)
    with start_run(
        folder, config, seed=seed, device="cpu", resume=True, command="chemistry benchmark",
        application="chemistry",
    ) as place:  # fmt: skip
        scores: dict[str, list[dict[str, float]]] = {}
        for number, split in enumerate(splits, start=1):
            label = f"{table.name} {number}/{len(splits)}"
            answer, simple = _answer(views, split, seed, label, network=config.network)
            named = {"": answer.whole} | answer.members | simple
            for name, prediction in named.items():
                scores.setdefault(name, []).append(score_pairs(table, split, prediction))
            for name, weight in answer.weights.items():
                scores[""][-1][f"weight_{name}"] = weight
        record = new_record(
            application="chemistry",
            command="chemistry benchmark",
            config=config,
            seed=seed,
            device=place.device,
            data={
                "name": f"{table.name}, {config.split}",
                "source": table.source,
                "sha256": table.sha256,
                "unit": table.unit,
                "n_train": round(mean(float(s.outer.train.sum()) for s in splits)),
                "n_valid": 0,
                "n_test": round(mean(float(s.outer.held.sum()) for s in splits)),
            },
            accuracy=_entries(scores[""]),
            members={k: _entries(scores[k]) for k in answer.members},
            baselines={k: _entries(scores[k]) for k in simple}
            | {k: {"test": v} for k, v in published(config.suite, config.split).items()},
        )
        write_record(place.dir, record)
    say(f"{record.data.name} seed {seed}: mse {record.accuracy['test']['mse']:.3f}")
    return record


def _answer(
    views: Views, split: Split, seed: int, label: str, *, network: bool
) -> tuple[Stacked, dict[str, np.ndarray]]:
    """Return the stacked answer to one split and the predictions of the simplest models."""
    parts = list(track([*split.inner, split.outer], label))
    near = is_warm(split)
    *inner, outer = [pair_features(views, part.train, near=near) for part in parts]
    answer = stack(split, views, inner, outer, seed=seed)
    if views.elsewhere is not None:
        without = [{k: v for k, v in one.items() if k not in ELSEWHERE} for one in (*inner, outer)]
        alone = stack(split, views, without[:-1], without[-1], seed=seed)
        answer = answer._replace(members=answer.members | {"this_set_alone": alone.whole})
    if network:
        for features, part in zip([*inner, outer], parts, strict=True):
            features["network"] = network_answer(views.table, part.train, seed=seed)
        more = stack(split, views, inner, outer, seed=seed)
        both = {"kernels_alone": answer.whole, "with_network": more.whole}
        best = min(answer, more, key=lambda one: one.held_out_mse)
        say(f"{label}: held pairs without the network {answer.held_out_mse:.4f}, "
            f"with it {more.held_out_mse:.4f}")  # fmt: skip
        answer = best._replace(members=answer.members | more.members | both, weights=more.weights
                               if best is more else answer.weights | {"network": 0.0})  # fmt: skip
    level = views.table.value[split.outer.train].mean()
    simple = {
        "train_mean": np.full(views.table.value.shape, level),
        "main_effects": outer["drug_mean"] + outer["target_mean"] - level,
    }
    return answer, simple


def score_pairs(table: PairTable, split: Split, prediction: np.ndarray) -> dict[str, float]:
    """Return the scores of the held pairs of a split.

    Parameters
    ----------
    table : PairTable
    split : Split
    prediction : ndarray, float [D, T]
        Read at the held pairs.

    Returns
    -------
    dict
        mse, ci, rm2 (as the DeepDTA code has it); `auroc_hit`, hits against the rest; where the
        table has a floor, `mse_above_floor` over the pairs that were seen to bind.
    """
    held = split.outer.held
    true, predicted = table.value[held], prediction[held]
    out = {"mse": mse(true, predicted)}
    if float(np.ptp(predicted)) > 0:
        out |= {"ci": ci(true, predicted), "rm2": rm2(true, predicted)}
        out["auroc_hit"] = roc_auc((true > table.hit).astype(float), predicted)
    if table.floor is not None:
        above = true > table.floor
        out["mse_above_floor"] = mse(true[above], predicted[above])
    return out


def published(suite: str, split: str) -> dict[str, dict[str, float]]:
    """Return published errors by method, none where none are known."""
    known = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))
    return {k: dict(v) for k, v in known.get(suite, {}).get(split, {}).items()}


def _entries(each: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the mean over the tests of a split as "test", and each of several."""
    test = {name: mean(one[name] for one in each) for name in each[0]}
    folds = {f"test-{i}": one for i, one in enumerate(each)} if len(each) > 1 else {}
    return {"test": test} | folds


def affinity_summary(records: Sequence[Record]) -> str:
    """Return one line per model, means over the seeds, the published ones below."""
    document = affinity_document(records)
    columns = [c for c in METRICS if c in document["models"][WHOLE]]
    rows = [[f"test, {document['unit']}", *columns]]
    for name, scores in document["models"].items():
        rows.append([name, *(f"{scores[c]:.3f}" if c in scores else "-" for c in columns)])
    shares = ", ".join(f"{name} {value:.2f}" for name, value in document["weights"].items())
    return (
        f"{records[0].data.name}: {document['n_train']:,} train and {document['n_test']:,} test "
        f"pairs, mean of {len(document['tests'][0])} test part(s), {len(records)} seed(s)\n"
        f"{aligned(rows)}\nweights in the whole answer: {shares}"
    )
