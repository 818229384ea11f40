"""Published networks, as small as their cost allows: convolutions, encoders, graph layers.

Written from the papers for tracing on fake tensors: layer shapes and operations are those of the
paper, initial values and data sets are not here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

#: EfficientNet-B0's stages: channels, blocks, kernel, stride, expands (Tan and Le 2019, table 1);
#: B4 is 1.4 times as wide, 1.8 times as deep (and takes 380 x 380 images).
_EFFICIENT = (
    *((16, 1, 3, 1, False), (24, 2, 3, 2, True), (40, 2, 5, 2, True), (80, 3, 3, 2, True)),
    *((112, 3, 5, 1, True), (192, 4, 5, 2, True), (320, 1, 3, 1, True)),
)
B4_WIDTH, B4_DEPTH = 1.4, 1.8


def _conv_norm(
    n_in: int, n_out: int, kernel: int, stride: int = 1, group: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=group, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out))


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 with a shortcut (He et al. 2016; Xie et al. 2017 with groups)."""

    def __init__(self, n_in: int, width: int, n_out: int, stride: int, group: int) -> None:
        super().__init__()
        self.narrow = _conv_norm(n_in, width, 1)
        self.middle = _conv_norm(width, width, 3, stride, group)
        self.widen = _conv_norm(width, n_out, 1)
        same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if same else _conv_norm(n_in, n_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.middle(self.narrow(x).relu()).relu()
        return (self.widen(y) + self.shortcut(x)).relu()


def resnet(depth: int, group: int) -> nn.Module:
    """Return ResNet-50 or -101 v1.5; with 32 groups ResNeXt 32 x 4d. Images [n, 3, 224, 224]."""
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    layers: list[nn.Module] = [_conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    n_in = 64
    for i, n_block in enumerate(blocks):
        n_out = 256 * 2**i
        width = n_out // 4 if group == 1 else n_out // 2
        for j in range(n_block):
            layers.append(_Bottleneck(n_in, width, n_out, 2 if i and not j else 1, group))
            n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, 1000))


class _Squeeze(nn.Module):
    """Inverted bottleneck with a channel gate: expand, convolve in groups, gate, project."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int, stride: int, expand: int, group: int
    ) -> None:
        super().__init__()
        middle, gate = n_in * expand, max(1, n_in // 4)
        self.expand = _conv_norm(n_in, middle, 1) if expand > 1 else None
        size = min(group, middle)
        self.spatial = _conv_norm(middle, middle, kernel, stride, middle // size)
        self.gate = nn.Sequential(
            *(nn.AdaptiveAvgPool2d(1), nn.Conv2d(middle, gate, 1), nn.SiLU()),
            *(nn.Conv2d(gate, middle, 1), nn.Sigmoid()),
        )
        self.project = _conv_norm(middle, n_out, 1)
        self.is_same = n_in == n_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.silu(self.expand(x))
        y = functional.silu(self.spatial(y))
        y = self.project(y * self.gate(y))
        return x + y if self.is_same else y


def efficientnet(group: int, expand: int) -> nn.Module:
    """Return EfficientNet-B4 whose spatial convolutions mix `group` channels each (1: depthwise).

    Source: Tan and Le 2019 (arXiv 1905.11946); groups of 16 with expansion by 4 as in Masters et
    al. 2021 (arXiv 2106.03640).
    """

    def wide(n: int) -> int:
        step = max(8, group)
        return max(step, int(n * B4_WIDTH + step / 2) // step * step)

    n_in = wide(32)
    layers: list[nn.Module] = [_conv_norm(3, n_in, 3, 2), nn.SiLU()]
    for channel, n_block, kernel, stride, expands in _EFFICIENT:
        for j in range(math.ceil(n_block * B4_DEPTH)):
            n_out = wide(channel)
            factor = expand if expands else 1
            layers.append(_Squeeze(n_in, n_out, kernel, 1 if j else stride, factor, group))
            n_in = n_out
    n_out = wide(1280)
    layers += [_conv_norm(n_in, n_out, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(n_out, 1000))


class _Encoder(nn.Module):
    """Attention and a feed-forward layer, each with dropout, a shortcut and a norm behind it."""

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.head, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        mixed = self.out(mixed.transpose(1, 2).reshape(x.shape))
        x = self.norm[0](x + functional.dropout(mixed, 0.1))
        y = self.narrow(functional.gelu(self.widen(x)))
        return self.norm[1](x + functional.dropout(y, 0.1))


def bert(depth: int, width: int, head: int) -> nn.Module:
    """Return BERT's encoder layers on embedded tokens [n, token, width] (Devlin et al. 2018).

    Attention weights are not dropped, as in the published runs on many chips.
    """
    return nn.Sequential(*(_Encoder(width, head) for _ in range(depth)))


class _Conformer(nn.Module):
    """Half a feed-forward layer, attention with relative positions, convolution, half again.

    Source: Gulati et al. 2020 (arXiv 2005.08100).
    """

    def __init__(self, width: int, head: int, inner: int, kernel: int) -> None:
        super().__init__()
        self.head = head
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.Linear(width, inner), nn.SiLU(), nn.Linear(inner, width))
            for _ in range(2)
        )
        self.qkv, self.position = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.widen = nn.Conv1d(width, 2 * width, 1)
        self.slide = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.middle, self.narrow = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, token, width = x.shape
        x = x + 0.5 * self.feed[0](self.norm[0](x))
        parts = self.qkv(self.norm[1](x)).view(n, token, 3, self.head, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        place = self.position(x[:1]).view(1, token, self.head, -1).permute(0, 2, 3, 1)
        score = (q @ k.transpose(2, 3) + q @ place.expand(n, -1, -1, -1)) / (width // self.head)
        mixed = (score.softmax(3) @ v).transpose(1, 2).reshape(n, token, width)
        x = x + self.out(mixed)
        y = functional.glu(self.widen(self.norm[2](x).transpose(1, 2)), 1)
        y = self.narrow(functional.silu(self.middle(self.slide(y))))
        x = x + y.transpose(1, 2)
        return self.norm[4](x + 0.5 * self.feed[1](self.norm[3](x)))


class _Front(nn.Module):
    """Two strided convolutions over features [n, frame, 80], a quarter of the frames left."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, width, 3, 2), nn.Conv2d(width, width, 3, 2)
        self.join = nn.Linear(width * 19, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x[:, None]).relu()).relu()
        return self.join(y.transpose(1, 2).flatten(2))


def conformer(depth: int, width: int, head: int, *, front: bool) -> nn.Module:
    """Return layers of Conformer-medium, behind its convolutional front end if wished."""
    layers = [_Conformer(width, head, 8 * width, 15) for _ in range(depth)]
    return nn.Sequential(*([_Front(width)] if front else []), *layers)


class _Gps(nn.Module):
    """Messages along edges, attention inside each pack, a feed-forward layer.

    Source: Masters et al. 2023 (arXiv 2302.02947), sections 4.1 and 4.2.
    """

    def __init__(self, node: int, edge: int, whole: int, head: int) -> None:
        super().__init__()
        self.head = head

        def mlp(n_in: int, n_out: int) -> nn.Sequential:
            inner = 4 * n_out
            return nn.Sequential(
                nn.Linear(n_in, inner), nn.GELU(), nn.LayerNorm(inner), nn.Linear(inner, n_out)
            )

        self.of_edge = mlp(2 * node + edge + whole, edge)
        self.of_node = mlp(3 * node + 2 * edge + whole, node)
        self.of_whole = mlp(node + edge + whole, whole)
        self.qkv, self.out = nn.Linear(node, 3 * node), nn.Linear(node, node)
        self.feed = nn.Sequential(nn.Linear(node, 4 * node), nn.GELU(), nn.Linear(4 * node, node))
        self.norm = nn.ModuleList(nn.LayerNorm(n) for n in (node, node, node, edge))

    def forward(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, e, g, bias, source, target, graph, edge_graph = state
        n_pack = bias.shape[0]
        start, end = x[source], x[target]
        e_new = self.of_edge(torch.cat([start, end, e, g[edge_graph]], 1))
        gathered = [
            torch.zeros_like(x[:, : value.shape[1]]).index_add(0, index, value)
            for index, value in ((target, e_new), (source, e_new), (target, start), (source, end))
        ]
        x_new = self.of_node(torch.cat([x, *gathered, g[graph]], 1))
        sums = [
            g.new_zeros(g.shape[0], value.shape[1]).index_add(0, index, value)
            for index, value in ((graph, x_new), (edge_graph, e_new))
        ]
        g = g + self.of_whole(torch.cat([*sums, g], 1))
        q, k, v = (
            self.qkv(x)
            .view(n_pack, -1, 3, self.head, x.shape[1] // self.head)
            .permute(2, 0, 3, 1, 4)
        )
        weight = functional.dropout((q @ k.transpose(2, 3) + bias).softmax(3), 0.3)
        mixed = self.out((weight @ v).transpose(1, 2).reshape(x.shape))
        x = self.norm[0](x + functional.dropout(x_new, 0.3)) + self.norm[1](x + mixed)
        x = self.norm[2](x + self.feed(x))
        return x, self.norm[3](e + e_new), g, bias, source, target, graph, edge_graph


def gps(depth: int) -> nn.Module:
    """Return layers of GPS++ with 44 million parameters in 16 of them."""
    return nn.Sequential(*(_Gps(256, 128, 64, 32) for _ in range(depth)))


def gps_input(n_pack: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return packs of up to 60 atoms, 120 edges and 8 molecules each."""
    n_node, n_edge, n_graph = 60 * n_pack, 120 * n_pack, 8 * n_pack
    values = [(n_node, 256), (n_edge, 128), (n_graph, 64), (n_pack, 32, 60, 60)]
    index = [n_edge, n_edge, n_node, n_edge]
    return (
        *(torch.empty(shape, dtype=dtype, requires_grad=True) for shape in values),
        *(torch.zeros(n, dtype=torch.int64) for n in index),
    )
