"""Models, runs and comparisons for the tests of optimizers."""

import torch
from torch import nn

from mnemosyne.optim import Mnemosyne


def base_rule(params, **options):
    return Mnemosyne(params, learned=False, **options)


def make_model(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Linear(12, 3)).to(dtype)


def make_loss(model, step):
    generator = torch.Generator().manual_seed(step)
    dtype = next(model.parameters()).dtype
    x = torch.randn(32, 6, generator=generator).to(dtype)
    target = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return nn.functional.cross_entropy(model(x).float(), target)


def train(model, optimizer, first, last):
    for step in range(first, last):
        optimizer.zero_grad()
        make_loss(model, step).backward()
        optimizer.step()


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def assert_identical(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        assert torch.equal(x, y)
