"""Sparse layers where models live: several threads of Python, and data-parallel training."""

import copy
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import distributed, nn

import core


def model():
    g = torch.Generator().manual_seed(1)
    layers = [core.build_linear(48, 48, core.LayerSpec(0.3, 4), generator=g) for _ in range(2)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


def gradients(module, x):
    module.zero_grad()
    module(x).square().sum().backward()
    return [p.grad.clone() for p in module.parameters()]


def test_threads_of_python_do_not_disturb_each_other():
    g = torch.Generator().manual_seed(2)
    first = model()
    inputs = [torch.randn(n, 48, generator=g) for n in (1, 40, 70, 130, 200, 3, 64, 128)]
    want = [gradients(copy.deepcopy(first), x) for x in inputs]

    def work(x):
        mine = copy.deepcopy(first)
        return [gradients(mine, x) for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        for rounds, expected in zip(pool.map(work, inputs), want, strict=True):
            for got in rounds:
                assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_distributed_data_parallel_gives_the_same_gradients(tmp_path):
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(3))
    want = gradients(model(), x)
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    try:
        got = gradients(nn.parallel.DistributedDataParallel(model()), x)
    finally:
        distributed.destroy_process_group()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
