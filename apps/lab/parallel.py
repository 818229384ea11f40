"""Training in several processes under torchrun: one global batch, shared out, with one result.

Every process holds the whole model and sees its share of each batch. Gradients go through one
all-reduce a step, each share counted by its weight, so that shares of unequal size and loss terms
that are missing give the gradient of the whole batch; torch's own wrapper takes shares as equal and
its buckets forbid patterns that change. These models are small: one message costs less than
several that overlap with the backward pass, and what is waited for is hidden behind the making of
the next batch. Outside torchrun each function is free of effect.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from apps.lab.neighbours import Neighbours, neighbours
from core.errors import DataError

S = TypeVar("S")
T = TypeVar("T")
# Gradients go in one message up to this; n processes hold 2 n such slots in shared memory.
N_BYTE_MOST = 1 << 24
N_BYTE_PAGE = 4096
N_BYTE_SPARE = 64  # what goes along with them
_alone = False  # within `alone`
_near: Neighbours | None = None  # where all processes are on this machine


def join() -> None:
    """Join the process group that torchrun has described in the environment, if it has."""
    is_asked = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ
    if is_asked and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        if dist.get_backend() == "gloo":
            global _near
            _near = neighbours()


def n_rank() -> int:
    """How many processes train together; 1 outside torchrun."""
    is_one = _alone or not dist.is_available() or not dist.is_initialized()
    return 1 if is_one else dist.get_world_size()


@contextmanager
def alone() -> Iterator[None]:
    """Let this process train by itself in the block, as outside torchrun, to be compared with."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return n_rank() == 1 or dist.get_rank() == 0


def share(rows: S) -> S:
    """Give this process's share of the rows of one global batch: every n-th, from its rank on.

    The shares of all ranks together are the rows, each once; their sizes differ by one at most.
    """
    if n_rank() == 1:
        return rows
    _check_enough(len(rows))  # type: ignore[arg-type]
    return rows[dist.get_rank() :: n_rank()]  # type: ignore[index]


def share_evenly(rows: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Give this process's share of `rows` where they are of unequal `size`, so of unequal work.

    As `share`, and the sums of sizes are nearly equal too: rows are dealt out from the largest to
    the smallest, to and fro. A share keeps the order of the rows.
    """
    n = n_rank()
    if n == 1:
        return rows
    _check_enough(len(rows))
    lap, place = np.divmod(np.arange(len(rows)), n)
    owner = np.where(lap % 2 == 0, place, n - 1 - place)
    largest_first = np.argsort(-size, kind="stable")
    return rows[np.sort(largest_first[owner == dist.get_rank()])]


def _check_enough(n_row: int) -> None:
    if n_row < n_rank():
        raise DataError(
            f"a batch of {n_row} rows cannot be shared by {n_rank()} processes; "
            "raise the batch size or start fewer"
        )


@contextmanager
def first_goes_first() -> Iterator[None]:
    """Let the first process through, then the others: for what is made once and then read."""
    if n_rank() > 1 and not is_first():
        dist.barrier()
    yield
    if n_rank() > 1 and is_first():
        dist.barrier()


def leave_unless_first() -> None:
    """End the process group; processes other than the first end here, with exit code 0.

    Called after training: what follows (scores, cost, record) needs no help.
    """
    if n_rank() == 1:
        return
    is_last = not is_first()
    dist.barrier()
    dist.destroy_process_group()
    if is_last:
        raise SystemExit(0)


def check_alike(model: nn.Module, n_step: int) -> None:
    """Make sure that all processes begin with the same weights, patterns and step.

    Raises
    ------
    DataError
        If they do not, as when the run folder to resume is not on a disk that all of them see.
    """
    if n_rank() == 1:
        return
    total = sum(float(t.detach().double().sum()) for t in model.state_dict().values())
    mine = torch.tensor([total, n_step], dtype=torch.float64)
    every = _of_all(mine)
    if not (every == mine).all():
        low, high = every[:, 1].aminmax()
        raise DataError(
            "training in several processes: they do not begin alike "
            f"(step {int(low)} to {int(high)}); is --out on a disk that all of them see?"
        )


class Gradients:
    """The gradients of a model, made those of the whole batch by one message a step.

    Parameters
    ----------
    model : nn.Module
        Its parameters may change their shapes, as patterns do.
    optimizer : torch.optim.Optimizer
        Of the parameters of `model`.

    In several processes they lie end to end in one tensor, in which each step sums them up anew:
    taking some tens of tensors apart and together costs as much as the message.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._parameters: list[nn.Parameter] = []
        self._views: list[Tensor] = []
        self._flat = torch.empty(0)
        _make_room(sum(p.numel() * p.element_size() for p in model.parameters()))

    def clear(self) -> None:
        """Begin a step."""
        if n_rank() == 1:
            self._optimizer.zero_grad(set_to_none=True)
            return
        kept = zip(self._parameters, self._views, strict=True)
        if not self._views or any(p.grad is not view for p, view in kept):
            self._lay_out()
        self._flat.zero_()

    def _lay_out(self) -> None:
        """Make the tensor of all gradients, and theirs parts of it; loss and weight end it."""
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        sizes = [p.numel() for p in self._parameters]
        self._flat = self._parameters[0].new_zeros(sum(sizes) + 2)
        *parts, self._ends = self._flat.split([*sizes, 2])
        self._loss, self._weight = self._ends
        self._summed = self._flat[:-1]
        self._views = [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]
        for p, view in zip(self._parameters, self._views, strict=True):
            p.grad = view

    @torch.no_grad()
    def reduce(self, loss: Tensor, weight: float, meanwhile: Callable[[], T]) -> tuple[Tensor, T]:
        """Turn the gradients of a share's `weighted` loss into those of the whole batch.

        Takes that loss [], and gives the loss of the whole batch, and what `meanwhile` gives: it
        is called when all is said and the others may have to be waited for.
        """
        if n_rank() == 1:
            return loss.detach(), meanwhile()
        torch.stack([loss, torch.full_like(loss, weight)], out=self._ends)
        done = _add_up(self._flat, meanwhile)
        self._summed /= self._weight
        return self._loss.clone(), done


def weighted(loss: Tensor, weight: float) -> Tensor:
    """Give what to call ``backward()`` on: the loss of a share, times its weight."""
    return loss if n_rank() == 1 else loss * weight


def _make_room(n_byte: int) -> None:
    """Let gradients of so many bytes go in one message where processes share memory."""
    global _near
    wanted = -(-(n_byte + N_BYTE_SPARE) // N_BYTE_PAGE) * N_BYTE_PAGE
    wanted = min(wanted, N_BYTE_MOST)
    if n_rank() > 1 and _near is not None and wanted > _near.n_byte_slot:
        _near = neighbours(wanted) or _near


def summed(total: Tensor, n_item: int) -> tuple[Tensor, int]:
    """Add up a sum of losses and the items it counts over all processes."""
    if n_rank() == 1:
        return total, n_item
    mine = torch.stack([total.detach().cpu().double(), torch.as_tensor(n_item).double()])
    both = _of_all(mine).sum(0)
    return both[0], int(both[1])


def _of_all(x: Tensor) -> Tensor:
    """Give a tensor [n] of the CPU of every process, by way of the GPU where nccl asks for it."""
    return _gathered(x.to("cuda" if dist.get_backend() == "nccl" else "cpu")).cpu()


def share_norms(model: nn.Module) -> None:
    """Let batch norms see the whole batch while `model` trains; undone by `unshare_norms`."""
    if n_rank() > 1:
        for module in model.modules():
            if type(module) is nn.BatchNorm1d:
                object.__setattr__(module, "__class__", _SharedBatchNorm)


def unshare_norms(model: nn.Module) -> None:
    """Make batch norms torch's own again; their state is the same."""
    for module in model.modules():
        if type(module) is _SharedBatchNorm:
            object.__setattr__(module, "__class__", nn.BatchNorm1d)


def _gathered(*parts: Tensor) -> Tensor:
    """Give `parts` of every process, end to end: [n_rank, n], in the order of ranks."""
    if _near is not None and parts[0].device.type == "cpu":
        return _near.gather(*parts)
    mine = torch.cat([part.flatten() for part in parts])
    out = mine.new_empty((n_rank() * len(mine),))
    dist.all_gather_into_tensor(out, mine)
    return out.view(n_rank(), -1)


def _add_up(x: Tensor, meanwhile: Callable[[], T]) -> T:
    """Replace `x` [n] by its sum over all processes, the same bits on each of them."""
    if _near is not None and x.device.type == "cpu":
        return _near.add_up(x, meanwhile)
    work = dist.all_reduce(x, async_op=True)
    done = meanwhile()
    work.wait()
    return done


class _Normalised(torch.autograd.Function):
    """Rows [row, feature] by mean and variance of the rows of all processes: one word each way.

    Forward reads the rows for sums and for ``x * scale + shift``, which takes half the time of
    torch's own norm on a processor; backward reads them once for sums and twice for the slope.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d) -> Any:
        wide = x.to(weight.dtype)  # of bf16 rows, means would be bf16
        mean, var = torch.batch_norm_update_stats(wide, None, None, 0.0)  # quicker than var_mean
        every = _gathered(mean, var, torch.full_like(mean[:1], len(x)))
        means, variances, counts = every.split([len(mean), len(mean), 1], dim=1)
        n = counts.sum()
        # Variances about the processes' own means, moved to the common one (Chan et al. 1983):
        # plain sums of squares would cancel where the mean is large.
        part = counts / n
        mean = (part * means).sum(0)
        var = (part * (means - mean).square_().add_(variances)).sum(0)
        scale = torch.rsqrt(var + norm.eps)
        slope = scale * weight
        ctx.save_for_backward(x, weight, mean, scale, slope)
        ctx.n = n
        _remember(norm, mean, var.mul_(n / (n - 1)))
        return torch.addcmul(torch.addcmul(bias, mean, slope, value=-1), wide, slope).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, mean, scale, slope = ctx.saved_tensors
        grad = grad.contiguous()
        _, mine_weight, mine_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, scale, True, 0.0, [False, True, True]
        )
        common_weight, common_bias = (_gathered(mine_weight, mine_bias).sum(0) / ctx.n).view(2, -1)
        # slope * (grad - common_bias - (x - mean) * scale * common_weight)
        of_x = slope * scale * common_weight
        shift = of_x * mean - slope * common_bias
        out = torch.addcmul(shift, grad, slope).addcmul_(x, of_x, value=-1)
        return out, mine_weight, mine_bias, None


def _remember(norm: nn.BatchNorm1d, mean: Tensor, var: Tensor) -> None:
    """Let the running statistics of `norm` follow those of a batch."""
    assert norm.momentum is not None
    assert norm.num_batches_tracked is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var, norm.momentum)


class _SharedBatchNorm(nn.BatchNorm1d):
    """Batch norm over the rows of all processes (torch's own needs a GPU)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise rows [row, feature] by the mean and variance of all of them."""
        if not self.training or self.running_mean is None:
            return super().forward(x)
        out: Tensor = _Normalised.apply(x, self.weight, self.bias, self)
        return out
