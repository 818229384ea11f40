"""Training in several processes under torchrun: one global batch, shared out, with one result.

Every process holds the whole model and sees its share of each batch. Gradients go through one
all-reduce a step, each share counted by its weight, so that shares of unequal size and loss terms
that are missing give the gradient of the whole batch; torch's own wrapper takes shares as equal and
its buckets forbid patterns that change. These models are small: one message costs less than
several that overlap. Outside torchrun each function is free of effect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from apps.lab.neighbours import Neighbours, neighbours
from core.errors import DataError

S = TypeVar("S")
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
    n = n_rank()
    if n == 1:
        return rows
    if len(rows) < n:  # type: ignore[arg-type]
        raise DataError(
            f"a batch of {len(rows)} rows cannot be shared by {n} processes; "  # type: ignore[arg-type]
            "raise the batch size or start fewer"
        )
    return rows[dist.get_rank() :: n]  # type: ignore[index]


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
    low, high = _reduced(mine, dist.ReduceOp.MIN), _reduced(mine, dist.ReduceOp.MAX)
    if not torch.equal(low, high):
        raise DataError(
            "training in several processes: they do not begin alike "
            f"(step {int(low[1])} to {int(high[1])}); is --out on a disk that all of them see?"
        )


def weighted(loss: Tensor, weight: float) -> Tensor:
    """Give what to call ``backward()`` on: the loss of a share, times its weight."""
    return loss if n_rank() == 1 else loss * weight


@torch.no_grad()
def reduce_gradients(model: nn.Module, loss: Tensor, weight: float) -> Tensor:
    """Turn the gradients of weighted shares into that of the whole batch, on every process.

    Takes the weighted loss of this share, and gives the loss of the whole batch.
    """
    if n_rank() == 1:
        return loss.detach()
    parameters = [p for p in model.parameters() if p.requires_grad]
    for p in parameters:
        if p.grad is None:  # a layer that this share did not reach
            p.grad = torch.zeros_like(p)
    grads = [p.grad for p in parameters if p.grad is not None]
    ends = torch.stack([loss.detach().to(grads[0].dtype), grads[0].new_tensor(weight)])
    flat = _summed(torch.cat([*(g.flatten() for g in grads), ends]))
    flat /= flat[-1].clone()
    for p, g in zip(parameters, flat.split([g.numel() for g in grads] + [2]), strict=False):
        p.grad = g.view_as(p)
    return flat[-2]


def summed(total: Tensor, n_item: int) -> tuple[Tensor, int]:
    """Add up a sum of losses and the items it counts over all processes."""
    if n_rank() == 1:
        return total, n_item
    mine = torch.stack([total.detach().cpu().double(), torch.as_tensor(n_item).double()])
    both = _reduced(mine, dist.ReduceOp.SUM)
    return both[0], int(both[1])


def _reduced(x: Tensor, how: Any) -> Tensor:
    """Reduce a tensor of the CPU over all processes, by way of the GPU where nccl asks for it."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    out = x.to(device, copy=True)
    dist.all_reduce(out, how)
    return out.cpu()


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


def _gathered(x: Tensor) -> Tensor:
    """Give a tensor of every process, stacked in the order of ranks."""
    if _near is not None and x.device.type == "cpu":
        return _near.gather(x)
    out = x.new_empty((n_rank() * x.numel(),))
    dist.all_gather_into_tensor(out, x.contiguous().flatten())
    return out.view(n_rank(), *x.shape)


def _summed(x: Tensor) -> Tensor:
    """Add up a tensor over all processes: the same bits on each of them."""
    if _near is not None and x.device.type == "cpu":
        return _near.gather(x).sum(0)
    dist.all_reduce(x)
    return x


class _Normalised(torch.autograd.Function):
    """Rows [row, feature] by mean and variance of the rows of all processes: one word each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)  # var_mean is slow on a CPU
        every = _gathered(torch.cat([mean, var * len(x), x.new_tensor([float(len(x))])]))
        means, squares = every[:, : len(mean)], every[:, len(mean) : -1]
        counts = every[:, -1:]
        n = counts.sum()
        # Sums of squares about the processes' own means, moved to the common one (Chan et al.
        # 1983): plain sums of squares would cancel where the mean is large.
        mean = (counts * means).sum(0) / n
        var = (squares + counts * (means - mean).square()).sum(0) / n
        scale = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.n = n
        ctx.mark_non_differentiable(mean, var, n)
        return torch.batch_norm(
            x, weight, bias, mean, var, False, 0.0, eps, False
        ), mean, var, n  # fmt: skip

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, mean, scale = ctx.saved_tensors
        grad = grads[0].contiguous()
        _, mine_weight, mine_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, scale, True, 0.0, [False, True, True]
        )
        common_weight, common_bias = (
            _summed(torch.stack([mine_weight, mine_bias])) / ctx.n
        ).unbind()
        slope = scale * weight
        out = torch.addcmul(-slope * common_bias, grad, slope)
        out.addcmul_(x - mean, -slope * scale * common_weight)
        return out, mine_weight, mine_bias, None


class _SharedBatchNorm(nn.BatchNorm1d):
    """Batch norm over the rows of all processes (torch's own needs a GPU)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise rows [row, feature] by the mean and variance of all of them."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(x)
        out, mean, var, n = _Normalised.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            assert self.momentum is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * n / (n - 1), self.momentum)
        return out
