"""Who holds the memory: over a program's ops, and on the tiles at its fullest moment, as SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from hw.svg import legend, svg
from hw.units import si

if TYPE_CHECKING:
    from hw.cost import CostReport

_WIDTH, _CURVE, _MAP = 720, 80, 130
#: Below this share of the limit the curve is drawn to its own peak.
_SMALL = 0.25
#: Places along the curve that answer to the pointer.
_N_PLACE = 240
_COLOUR = ("#2a6f97", "#61a5c2", "#6d597a", "#b56576", "#e07a5f", "#ced4da")


def memory_curve(report: CostReport) -> str:
    """Return memory over the program's ops; hovering names the op and its bytes.

    The machine's limit is a line where it is near.
    """
    if not report.ops:
        return ""
    peak, limit_byte = report.peak_tile_memory_byte, report.memory_byte
    is_small = peak < _SMALL * limit_byte
    top = 1.1 * peak if is_small else max(limit_byte, 1.1 * peak)
    base = 18 + _CURVE
    step = _WIDTH / len(report.ops)
    points, previous = [f"0,{base}"], ""
    for i, op in enumerate(report.ops):
        y = f"{base - _CURVE * op.memory_byte / top:.1f}"
        if y != previous:
            points += [f"{i * step:.1f},{previous or y}", f"{i * step:.1f},{y}"]
            previous = y
    points += [f"{_WIDTH},{previous}", f"{_WIDTH},{base}"]
    title = f"memory by op (hover for the op); peak {_share(peak, limit_byte)} of the limit"
    body = f'<text x="0" y="11">{title}</text><polygon points="{" ".join(points)}" fill="#61a5c2"/>'
    stride = max(1, -(-len(report.ops) // _N_PLACE))
    for start in range(0, len(report.ops), stride):
        op = max(report.ops[start : start + stride], key=lambda op: op.memory_byte)
        text = f"{op.name} [{op.phase}] {op.module}: {op.memory_byte:,.0f} byte"
        body += (
            f'<rect x="{start * step:.1f}" y="18" width="{stride * step:.1f}" height="{_CURVE}" '
            f'fill="transparent"><title>{escape(text)}</title></rect>'
        )
    if not is_small:
        line = base - _CURVE * limit_byte / top
        body += f'<line x1="0" x2="{_WIDTH}" y1="{line:.1f}" y2="{line:.1f}" stroke="#d62828"/>'
    return svg(_WIDTH, base + 2, body, "memory")


def memory_map(report: CostReport) -> str:
    """Return what lies on the tiles at the program's fullest moment, owner by owner.

    Tensors are spread evenly over all tiles; temporaries lie on those at work. An empty text on a
    machine without tiles.
    """
    if not any(op.supersteps for op in report.ops):
        return ""
    op = max(report.ops, key=lambda op: op.memory_byte)
    computing = (s.n_tile for s in op.supersteps if s.kind == "compute")
    at_work = max(computing, default=report.n_unit)
    peak, limit = report.peak_tile_memory_byte, report.memory_byte
    rest = peak - sum(byte for _, byte in report.tenants)
    owners = [*report.tenants, ("all others", rest)] if rest > 0.5 else list(report.tenants)
    # what lies on every tile below what lies on some
    owners.sort(key=lambda owner: (owner[0].startswith("temporaries"), -owner[1]))
    top = max(limit, peak)
    base, y, body = 18 + _MAP, 18.0 + _MAP, ""
    entries: list[tuple[str, str]] = []
    for i, (name, byte) in enumerate(owners):
        on_tiles = at_work if name.startswith("temporaries") else report.n_unit
        height = _MAP * byte / top
        y -= height
        colour = _COLOUR[i % len(_COLOUR)]
        text = f"{name}: {byte:,.0f} byte on each of {on_tiles:,} tiles"
        body += (
            f'<rect x="0" y="{y:.2f}" width="{_WIDTH * on_tiles / report.n_unit:.1f}" '
            f'height="{max(height, 0.3):.2f}" fill="{colour}"><title>{escape(text)}</title></rect>'
        )
        entries.append((colour, f"{name} {si(byte, 'B')}"))
    line = base - _MAP * limit / top
    body += f'<line x1="0" x2="{_WIDTH}" y1="{line:.1f}" y2="{line:.1f}" stroke="#d62828"/>'
    body += f'<line x1="0" x2="{_WIDTH}" y1="{base}" y2="{base}" stroke="#888"/>'
    head = (
        f"memory of tiles 0 to {report.n_unit - 1:,} during {op.name} ({op.phase}), the fullest "
        f"op; red: the limit of {limit:,.0f} byte"
    )
    title = f'<text x="0" y="11">{escape(head)}</text>'
    return svg(_WIDTH, base + 2, title + body, "memory map") + legend(entries)


def _share(byte: float, limit: float) -> str:
    return f"{byte:,.0f} byte, {byte / limit:.1%}"
