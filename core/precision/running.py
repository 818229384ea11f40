"""A running range for activations: what training has seen, inference uses as a fixed scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from core.precision.formats import Format
from core.precision.quantize import straight_through

#: Share of the newest batch in the running range (Jacob et al. 2018, arXiv 1712.05877, section
#: 3.1, asks for close to 1 - decay with thousands of steps to smooth over).
NEWEST = 0.01


class RunningRange(nn.Module):
    """Quantise and dequantise activations with one scale that follows their range.

    In training the range is an average over batches, begun at the first one; in evaluation it
    stays. Magnitudes beyond it are clipped and pass no gradient. Before the first batch of
    training the scale comes from the input itself. NaN and Inf come out as NaN and leave the
    range as it was.

    Parameters
    ----------
    format : Format
        Of 8 bits or fewer.
    """

    top: Tensor

    def __init__(self, format: Format) -> None:
        super().__init__()
        self.format = format
        self.register_buffer("top", torch.zeros(()))
        self._is_known = False

    @property
    def is_known(self) -> bool:
        """Whether evaluation uses the range that training has seen."""
        return self._is_known

    @property
    def scale(self) -> Tensor | None:
        """The scale in use, or None before the first batch; costs a host read."""
        return self.top / self.format.max_value if self.top > 0 else None

    def train(self, mode: bool = True) -> RunningRange:
        """Switch mode; the one place where the host reads whether a range is known."""
        super().train(mode)
        self._is_known = not mode and self.top.device.type != "meta" and bool(self.top > 0)
        return self

    def scale_for(self, x: Tensor) -> Tensor:
        """Return the scale that inference uses for `x`, of its dtype."""
        top = self.top if self._is_known or x.numel() == 0 else x.detach().abs().amax()
        return torch.where(top > 0, top / self.format.max_value, 1.0).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` as it reads in the format, same shape and dtype."""
        is_binary = self.format.kind == "binary"
        if self._is_known or x.numel() == 0:
            top = self.top
        else:
            size = x.detach().abs()
            top = (size.mean() if is_binary else size.amax()).to(self.top.dtype)
            if self.training:
                smooth = torch.where(self.top > 0, torch.lerp(self.top, top, NEWEST), top)
                self.top.copy_(torch.where(top.isfinite(), smooth, self.top))
                top = self.top.clone()  # autograd keeps it, the next batch changes it
        scale = torch.where(top > 0, top / self.format.max_value, 1.0).to(x.dtype)
        bound = top.to(x.dtype)
        inside = x if is_binary else torch.minimum(torch.maximum(x, -bound), bound)
        out = straight_through(inside, scale, self.format.name)
        return torch.add(out, x, alpha=0)  # 0 * x: nothing, but NaN where x is not finite

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.train(self.training)
