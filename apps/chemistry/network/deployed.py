"""Products of a network at rest: faster, with the normalisation after them folded in.

After training a batch normalisation is one multiplication and one addition per column, which the
product before it takes over at no cost; and oneDNN works the product out (see
`apps.chemistry.network.products`).
"""

from torch import Tensor, nn
from torch.nn import functional

import core
from apps.chemistry.network.products import has_onednn, product


class DeployedLinear(nn.Module):
    """``x W^T + b`` in float32, without gradients.

    Parameters
    ----------
    weight : Tensor, float32 [out, in]
    bias : Tensor, float32 [out]
    relu : bool
        Followed by a relu.

    Notes
    -----
    Checked against: `torch.nn.functional.linear`, which answers where oneDNN does not.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, relu: bool = False):
        super().__init__()
        self.relu = relu
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [row, out] from float32 [row, in]."""
        if has_onednn(x):
            return product(x, self.weight, self.bias, relu=self.relu)
        out = functional.linear(x, self.weight, self.bias)
        return out.relu_() if self.relu else out


def deployed(linear: nn.Module) -> nn.Module:
    """Return a dense float32 layer with a bias made faster, any other as it is."""
    if not _is_dense_float32(linear):
        return linear
    assert isinstance(linear, core.DenseLinear)
    return DeployedLinear(linear.weight.detach(), linear.bias.detach())


def folded(linear: nn.Module, norm: nn.Module, *, relu: bool) -> tuple[nn.Module, nn.Module]:
    """Return a dense float32 layer without bias that also normalises, and nothing to do after it.

    With `relu` it does that as well. Other pairs come back as they are.
    """
    if not _is_dense_float32(linear) or not isinstance(norm, nn.BatchNorm1d):
        return linear, norm
    assert isinstance(linear, core.DenseLinear)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias.detach() - norm.running_mean * scale
    return DeployedLinear(linear.weight.detach() * scale[:, None], shift, relu=relu), nn.Identity()


def _is_dense_float32(linear: nn.Module) -> bool:
    if not isinstance(linear, core.DenseLinear):
        return False
    return {linear.roles.weight.name, linear.roles.activation.name} == {"fp32"}
