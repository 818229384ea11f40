"""From which density on a dense product beats the sparse kernels of this host.

Measured once for each block and dtype, on a training step of one middling layer, and kept in the
user's cache folder. ``TESSERA_BREAK_EVEN`` sets it: a density, above 1 for never.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from pathlib import Path

import torch

from core.errors import ConfigError
from core.kernels import call
from core.kernels.load import cache_folder, library
from core.sparse import routes
from core.sparse.pattern import BlockPattern

#: Below this density no dense product has won on any machine tried, so nothing is measured.
ALWAYS_SPARSE = 0.3
_BATCH, _EDGE, _N_TURN = 256, 512, 5


@functools.cache
def dense_from(block: tuple[int, int], dtype: torch.dtype = torch.float32) -> float:
    """Return the density from which on the products of `block` in float32 or bfloat16 run dense.

    Raises
    ------
    ConfigError
        If ``TESSERA_BREAK_EVEN`` is not a number of 0 or more.
    """
    wanted = os.environ.get("TESSERA_BREAK_EVEN")
    if wanted is not None:
        try:
            density = float(wanted)
        except ValueError:
            density = -1.0
        if not density >= 0:
            raise ConfigError(
                f"TESSERA_BREAK_EVEN must be a density of 0 or more, got {wanted!r}; "
                "2 never takes the dense product, without it the host is measured once"
            )
        return density
    loaded = library()
    host = f"{getattr(loaded, '_name', 'none').rpartition('/')[2]} torch {torch.__version__}"
    file = cache_folder().parent / "break_even.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    mine = known.setdefault(host, {}) if isinstance(known, dict) else {}
    name = f"{block[0]}x{block[1]}" + (" bfloat16" if dtype == torch.bfloat16 else "")
    if not isinstance(mine.get(name), float):
        mine[name] = _measured(block, dtype)
        _keep(file, known)
    return float(mine[name])


def _measured(block: tuple[int, int], dtype: torch.dtype) -> float:
    """Return where time, taken as linear in density, meets that of the dense route."""
    generator = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(_BATCH, _EDGE, generator=generator).to(dtype) for _ in range(2))
    thin, full = (_seconds(block, d, x, dy, generator) for d in (ALWAYS_SPARSE, 1.0))
    per_density = (full[0] - thin[0]) / (1 - ALWAYS_SPARSE)
    if per_density <= 0:
        return 2.0
    return max(0.0, ALWAYS_SPARSE + (full[1] - thin[0]) / per_density)


def _seconds(
    block: tuple[int, int], density: float, x: torch.Tensor, dy: torch.Tensor,
    generator: torch.Generator,
) -> tuple[float, float]:  # fmt: skip
    """Return the least seconds of a step on the kernels and on the dense route, in turns."""
    p = BlockPattern.random((_EDGE, _EDGE), block, density, generator)
    values = torch.randn(p.n_block, *block, generator=generator).to(x.dtype)
    index = p.row_index, p.col_index
    kernels = call.kernels()
    assert kernels is not None

    def sparse() -> None:
        call.spmm(kernels, x, values, p.row_ptr, p.col_index, _EDGE)
        if x.dtype == torch.float32:
            call.spmm_backward(kernels, dy, x, values, *index, p.col_ptr, p.row_index_t, p.order_t)
        else:
            turned = call.transpose_blocks(kernels, values, p.order_t)
            call.spmm(kernels, dy, turned, p.col_ptr, p.row_index_t, _EDGE)
            call.sddmm(kernels, dy, x, *index, *block)

    def dense() -> None:
        routes.spmm(x, values, *index, p.grid[0])
        dy @ routes.expand(values, *index, p.grid)[:_EDGE, :_EDGE]
        routes.sddmm(dy, x, *index, block)

    best = [float("inf"), float("inf")]
    for _ in range(_N_TURN):
        for i, step in enumerate((sparse, dense)):
            start = time.perf_counter()
            step()
            best[i] = min(best[i], time.perf_counter() - start)
    return best[0], best[1]


def _keep(file: Path, known: object) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, delete=False, encoding="utf-8"
        ) as out:
            json.dump(known, out)
        os.replace(out.name, file)
    except OSError:
        return  # measured again next time
