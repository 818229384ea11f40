"""How patterns change while a model trains: pruning with rewind, SET, and RigL by samples.

RigL grows where the gradient of a dead block would be large (Evci et al. 2020, arXiv 1911.11134).
Here that gradient is never computed as a matrix: some dead blocks are drawn as candidates, and
``core::sddmm`` gives the gradient of just those, in the one step before each change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from core.errors import ConfigError
from core.sparse.linear import BlockSparseLinear
from core.sparse.pattern import BlockPattern


@dataclass(frozen=True)
class TopologyRule:
    """When patterns change, and which blocks go and come.

    Parameters
    ----------
    method : {"prune", "set", "rigl"}
        ``prune`` drops blocks until `density` is left. ``set`` drops a fraction and grows as many
        at random (Mocanu et al. 2018, doi 10.1038/s41467-018-04316-3). ``rigl`` grows those of the
        largest gradient among sampled candidates.
    first, last, every : int
        Patterns change after optimizer steps first, first + every, ... up to `last`.
    fraction : float
        Share of live blocks replaced in one change; ``rigl`` lets it fall as a half cosine that
        reaches zero at `last` (Evci et al. 2020, section 3), ``set`` keeps it.
    density : float
        What ``prune`` ends at, by the cubic law of Zhu & Gupta 2017, arXiv 1710.01878, eq. 1.
    score : {"l1", "l2"}
        Norm that ranks a block, of its weights or of its gradient.
    candidate_ratio : float
        Candidates drawn per block to grow, ``rigl`` only; 4 keeps the best quarter of a sample.
    rewind_step : int, optional
        Keep the weights after this step, for `PatternUpdater.rewind`.

    Raises
    ------
    ConfigError
        If a setting lies outside its bounds.

    Examples
    --------
    >>> from core.sparse import TopologyRule
    >>> rule = TopologyRule(method="set", first=10, last=100, every=10)
    >>> rule.fraction, rule.density
    (0.3, 0.1)
    """

    method: Literal["prune", "set", "rigl"]
    first: int
    last: int
    every: int
    fraction: float = 0.3
    density: float = 0.1
    score: Literal["l1", "l2"] = "l1"
    candidate_ratio: float = 4.0
    rewind_step: int | None = None

    def __post_init__(self) -> None:
        def demand(is_fine: bool, name: str, expected: str) -> None:
            if not is_fine:
                got = getattr(self, name)
                raise ConfigError(f"TopologyRule: {name} must {expected}, got {got!r}")

        demand(self.method in ("prune", "set", "rigl"), "method", "be 'prune', 'set' or 'rigl'")
        demand(self.score in ("l1", "l2"), "score", "be 'l1' or 'l2'")
        demand(self.first >= 1, "first", "be 1 or more steps (there is no gradient before)")
        demand(self.every >= 1, "every", "be 1 or more steps")
        demand(self.last >= self.first, "last", f"not lie before first = {self.first}")
        demand(0 < self.fraction <= 1, "fraction", "lie in (0, 1]")
        demand(0 < self.density <= 1, "density", "lie in (0, 1]")
        demand(self.candidate_ratio >= 1, "candidate_ratio", "be 1 or more")

    def changes_at(self, step: int) -> bool:
        """Whether patterns change after optimizer step number `step` (the first is 1)."""
        return self.first <= step <= self.last and (step - self.first) % self.every == 0

    def fraction_at(self, step: int) -> float:
        """Return the share of live blocks to replace after `step`."""
        if self.method == "set":
            return self.fraction
        return self.fraction / 2 * (1 + math.cos(math.pi * step / self.last))

    def density_at(self, step: int, initial: float, final: float | None = None) -> float:
        """Return the density to prune to after `step`, from `initial` to `final` (`density`)."""
        n_change = (self.last - self.first) // self.every
        progress = (step - self.first) // self.every / n_change if n_change else 1.0
        final = min(self.density if final is None else final, initial)
        return final + (initial - final) * (1 - progress) ** 3


class PatternUpdater:
    """Changes the patterns of all block-sparse layers of a model while it trains.

    Call `step` after each optimizer step. Weights and optimizer state of a kept block move with
    it; a grown block starts from zero weights and zero state, so the function that the model
    computes changes only by what was dropped. ``set`` and ``rigl`` keep the count of live blocks.

    Every draw comes from (seed, step, layer), and candidate gradients are averaged over ranks
    where a process group runs: with the same seed, all ranks choose the same blocks.

    Parameters
    ----------
    model : nn.Module
        With at least one `BlockSparseLinear`.
    optimizer : torch.optim.Optimizer
        Its state tensors of the shape of `values` follow their blocks.
    rule : TopologyRule
    generator : torch.Generator
        Gives one seed; not used again.

    Attributes
    ----------
    followers : list of dict
        Tensors by the names of `model.state_dict()`, such as a running average of the weights: add
        yours, and their ``values`` follow the blocks too, with zero for grown ones.
    final : dict of str to float
        What ``prune`` ends at, by the name of a layer, where that is not `rule.density`; such as
        `erdos_renyi_densities` shares it. Not part of `state_dict`: set it again on a restart.

    Raises
    ------
    ConfigError
        If the model has no block-sparse layer.

    Notes
    -----
    Cost, measured on one core of a Zen 4 with batch 256 and 5 to 10 % live blocks: one RigL change
    with the gradient of its candidates takes 0.2 to 0.5 of a training step, for N = 1024 with
    blocks 1, 4 and 16 and N = 2048 and 4096 with 16; one every 100 steps costs 0.5 % at most
    (tests/core/sparse/test_topology_update.py holds one case below a whole step).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        rule: TopologyRule,
        *,
        generator: torch.Generator,
    ) -> None:
        self.model, self.optimizer, self.rule = model, optimizer, rule
        self._layers = {
            name: m for name, m in model.named_modules() if isinstance(m, BlockSparseLinear)
        }
        if not self._layers:
            raise ConfigError(
                "PatternUpdater: model must hold a BlockSparseLinear, got none; "
                "build its layers with a LayerSpec of density below 1"
            )
        self.n_step = 0
        self.followers: list[dict[str, Tensor]] = []
        self.final: dict[str, float] = {}
        self._seed = int(torch.randint(0, 1 << 31, (), generator=generator))
        self._initial = {name: m.pattern.density for name, m in self._layers.items()}
        self._kept_weights: dict[str, Tensor] | None = None
        self._handles: list[RemovableHandle] = []
        self._candidates: dict[str, tuple[Tensor, Tensor]] = {}
        self._gradients: dict[str, Tensor] = {}
        self._prepare()

    def step(self) -> bool:
        """Count one optimizer step; return whether patterns changed after it."""
        self.n_step += 1
        is_change = self.rule.changes_at(self.n_step)
        if is_change:
            for i, (name, layer) in enumerate(self._layers.items()):
                self._change(i, name, layer)
        self._prepare()
        return is_change

    @torch.no_grad()
    def rewind(self) -> None:
        """Give all live weights the value they had after `rewind_step`; forget optimizer state.

        Patterns stay. Blocks that did not live then become zero. (Frankle et al. 2020,
        arXiv 1912.05671: rewinding to early training rather than to the first weights.)

        Raises
        ------
        ConfigError
            If no weights were kept.
        """
        if self._kept_weights is None:
            raise ConfigError(
                f"PatternUpdater.rewind: rule.rewind_step = {self.rule.rewind_step} has not been "
                f"reached after {self.n_step} steps, so no weights were kept; set it lower"
            )
        kept = self._kept_weights
        values_of = {name + ".values" if name else "values": m for name, m in self._layers.items()}
        for name, parameter in self.model.named_parameters():
            if (layer := values_of.get(name)) is None:
                parameter.copy_(kept[name])
                continue
            prefix = name.removesuffix("values")
            then = _key(kept[prefix + "row_index"], kept[prefix + "col_index"], layer.pattern)
            now = _key(layer.row_index, layer.col_index, layer.pattern)
            place = torch.searchsorted(then, now).clamp(max=len(then) - 1)
            was_live = (then[place] == now).view(-1, 1, 1)
            parameter.copy_(torch.where(was_live, kept[name][place], 0.0))
        self.optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, besides model and optimizer, to go on bit by bit."""
        return {
            "n_step": self.n_step,
            "seed": self._seed,
            "initial": dict(self._initial),
            "kept_weights": self._kept_weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; load model and optimizer first."""
        self.n_step, self._seed = state["n_step"], state["seed"]
        self._initial = dict(state["initial"])
        self._kept_weights = state["kept_weights"]
        self._prepare()

    def _prepare(self) -> None:
        """Ready the next step: hooks if it needs candidate gradients, kept weights if due."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._candidates, self._gradients = [], {}, {}
        if self.n_step == self.rule.rewind_step:
            state = self.model.state_dict()
            self._kept_weights = {name: tensor.clone() for name, tensor in state.items()}
        if self.rule.method != "rigl" or not self.rule.changes_at(self.n_step + 1):
            return
        for i, (name, layer) in enumerate(self._layers.items()):
            n = math.ceil(self.rule.candidate_ratio * self._n_replaced(layer, self.n_step + 1))
            self._candidates[name] = self._draw_dead(i, layer.pattern, n, self.n_step + 1)
            self._handles.append(layer.register_forward_hook(self._watch(name)))

    def _watch(self, name: str) -> Any:
        def after_forward(layer: BlockSparseLinear, args: tuple[Tensor, ...], y: Tensor) -> None:
            if not (layer.training and y.requires_grad):
                return
            x = args[0].detach().reshape(-1, layer.in_features)

            def after_backward(dy: Tensor) -> None:
                rows = dy.detach().reshape(-1, layer.out_features).to(x.dtype)
                part = torch.ops.core.sddmm(rows, x, *self._candidates[name], *layer.block)
                known = self._gradients.get(name)
                self._gradients[name] = part if known is None else known + part

            y.register_hook(after_backward)

        return after_forward

    def _n_replaced(self, layer: BlockSparseLinear, step: int) -> int:
        n_row, n_col = layer.pattern.grid
        n_dead = n_row * n_col - layer.pattern.n_block
        return min(int(self.rule.fraction_at(step) * layer.pattern.n_block), n_dead)

    def _draw_dead(self, i: int, pattern: BlockPattern, n: int, step: int) -> tuple[Tensor, Tensor]:
        """Draw up to `n` dead blocks without repeats: row and column indices in row order."""
        generator = _generator(self._seed, step, i)
        live = _key(pattern.row_index, pattern.col_index, pattern)
        n_row, n_col = pattern.grid
        rank = _distinct(n_row * n_col - len(live), n, generator).to(live.device)
        # Before the live block of order j lie key - j dead ones, so dead block r is at key r + j.
        before = live - torch.arange(len(live), device=live.device)
        key = rank + torch.searchsorted(before, rank, right=True)
        return (key // n_col).int(), (key % n_col).int()

    @torch.no_grad()
    def _change(self, i: int, name: str, layer: BlockSparseLinear) -> None:
        pattern, rule = layer.pattern, self.rule
        none = pattern.row_index[:0]
        grown = none, none
        if rule.method == "prune":
            n_all = pattern.grid[0] * pattern.grid[1]
            left = rule.density_at(self.n_step, self._initial[name], self.final.get(name))
            n_drop = max(0, pattern.n_block - max(1, round(left * n_all)))
        elif rule.method == "set":
            n_drop = self._n_replaced(layer, self.n_step)
            grown = self._draw_dead(i, pattern, n_drop, self.n_step)
        else:
            n_drop = self._n_replaced(layer, self.n_step)
            gradient = self._gradients.get(name)
            if gradient is None:  # the layer took no part in this step
                return
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(gradient)
            best = self._norm(gradient).topk(n_drop).indices
            rows, cols = self._candidates[name]
            grown = rows[best], cols[best]
        if n_drop == 0:
            return
        weight = self._norm(layer.values)
        # A stable sort: which of two equal blocks goes does not depend on the machine.
        keep = weight.sort(stable=True).indices[n_drop:].sort().values
        follow = _rebuild(layer, self.optimizer, keep, *grown)
        prefix = name + "." if name else ""
        for tensors in self.followers:
            tensors[prefix + "values"] = follow(tensors[prefix + "values"])
            for index in ("row_index", "col_index"):
                tensors[prefix + index] = getattr(layer, index).clone()

    def _norm(self, blocks: Tensor) -> Tensor:
        flat = blocks.detach().flatten(1)
        return flat.abs().sum(1) if self.rule.score == "l1" else flat.square().sum(1)


def _rebuild(
    layer: BlockSparseLinear,
    optimizer: torch.optim.Optimizer,
    keep: Tensor,
    grown_row: Tensor,
    grown_col: Tensor,
) -> Callable[[Tensor], Tensor]:
    """Give `layer` the pattern of its blocks `keep` and of the grown ones.

    Returns the map that takes a tensor with one entry per old block to the new blocks.
    """
    row = torch.cat([layer.row_index[keep], grown_row])
    col = torch.cat([layer.col_index[keep], grown_col])
    order = _key(row, col, layer.pattern).argsort()
    pattern = BlockPattern.from_index(layer.pattern.shape, layer.block, row, col)

    def follow(x: Tensor) -> Tensor:
        bits = x.view(torch.uint8) if x.element_size() == 1 else x  # fp8 cannot be gathered
        new = bits.new_zeros(len(grown_row), *bits.shape[1:])
        return torch.cat([bits.index_select(0, keep), new]).index_select(0, order).view(x.dtype)

    values = layer.values
    shape = values.shape
    state = optimizer.state.get(values, {})
    for name, entry in state.items():
        if isinstance(entry, Tensor) and entry.shape == shape:
            state[name] = follow(entry)
    moved = follow(values.detach())
    if moved.shape == shape:
        values.copy_(moved)  # in place: whoever holds the parameter's memory keeps it
    else:
        values.data = moved
    values.grad = None
    for name, tensor in vars(pattern).items():
        if isinstance(tensor, Tensor):
            setattr(layer, name, tensor)
    return follow


def _key(row_index: Tensor, col_index: Tensor, pattern: BlockPattern) -> Tensor:
    return row_index.long() * pattern.grid[1] + col_index.long()


def _distinct(n_all: int, n: int, generator: torch.Generator) -> Tensor:
    """Draw min(n, n_all) different numbers out of 0..n_all-1, ascending, in O(n log n)."""
    if 4 * n >= n_all:
        return torch.randperm(n_all, generator=generator)[:n].sort().values
    drawn = torch.empty(0, dtype=torch.int64)
    while len(drawn) < n:
        drawn = torch.cat([drawn, torch.randint(0, n_all, (2 * n,), generator=generator)]).unique()
    return drawn[torch.randperm(len(drawn), generator=generator)[:n]].sort().values


def _generator(seed: int, step: int, i: int) -> torch.Generator:
    return torch.Generator().manual_seed(((seed * 1_000_003 + step) * 1_000_003 + i) % (1 << 63))
