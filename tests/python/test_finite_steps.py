"""Finite gradients give finite parameters: heads and embeddings of many words, huge losses."""

import copy
import pickle

import pytest
import torch

import mnemosyne
from mnemosyne.optim import Mnemosyne, RuleOptimizer

F = torch.nn.functional


def few_dominant_rows(rows, columns):
    torch.manual_seed(0)
    frequency = 1 / torch.arange(1.0, rows + 1)
    return (torch.randn(rows) * frequency)[:, None] * torch.randn(1, columns)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])
def test_a_matrix_of_few_dominant_rows_is_orthogonalised(dtype, wide):
    x = few_dominant_rows(5000, 16)
    x = (x / x.abs().max()).to(dtype)
    y = torch.ops.mnemosyne.orthogonalize(x.t() if wide else x).double()
    values = torch.linalg.svdvals(y)
    assert 0.84 < values[0] < 1.16


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-40, 1e300])
def test_matrices_of_float64_beyond_the_range_of_float32(scale):
    torch.manual_seed(1)
    x = torch.randn(3, 6, 9, dtype=torch.float64) * scale
    values = torch.linalg.svdvals(torch.ops.mnemosyne.orthogonalize(x))
    assert (values > 0.84).all() and (values < 1.16).all()


@pytest.mark.parametrize(
    "make",
    [
        Mnemosyne,
        lambda p: Mnemosyne(p, learned=False),
        lambda p: RuleOptimizer(p, "muon"),
    ],
    ids=["mnemosyne", "base", "muon"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_step_on_few_dominant_rows(make, dtype):
    p = torch.nn.Parameter(torch.zeros(5000, 16, dtype=dtype))
    p.grad = few_dominant_rows(5000, 16).to(dtype)
    optimizer = make([p])
    optimizer.step()
    assert p.isfinite().all() and p.abs().max() < 10
    assert p.abs().sum() > 0
    assert optimizer.fallback_count == 0


def test_causal_lm_over_8000_words_trains():
    torch.manual_seed(0)
    model = mnemosyne.nn.CausalLM(vocabulary=8000, context=16, width=64, heads=4, layers=1)
    optimizer = Mnemosyne(model.parameters())
    weights = 1 / torch.arange(1.0, 8001)
    losses = []
    for _ in range(20):
        words = torch.multinomial(weights, 34, replacement=True).view(2, 17)
        loss = F.cross_entropy(
            model(words[:, :-1].contiguous()).flatten(0, 1), words[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert all(p.isfinite().all() for p in model.parameters())
    assert max(losses) < 40 and sum(losses[-5:]) < sum(losses[:5])
    assert optimizer.fallback_count == 0


def test_a_head_of_50257_words():
    torch.manual_seed(0)
    head = torch.nn.Linear(64, 50257, bias=False)
    optimizer = Mnemosyne(head.parameters())
    words = (torch.rand(32) ** 8 * 50257).long()
    features = torch.randn(32, 64) + 2
    for _ in range(3):
        loss = F.cross_entropy(head(features), words)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert head.weight.isfinite().all() and head.weight.abs().max() < 5


def test_two_classes_over_10000_inputs():
    torch.manual_seed(0)
    x = torch.zeros(64, 10_000).scatter_(1, (torch.rand(64, 40) ** 4 * 10_000).long(), 1.0)
    y = torch.arange(64) % 2
    layer = torch.nn.Linear(10_000, 2)
    optimizer = Mnemosyne(layer.parameters())
    for _ in range(40):
        loss = F.cross_entropy(layer(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss < 100 and layer.weight.isfinite().all()
    assert loss < 0.5


@pytest.mark.parametrize("scale", [1e-20, 1e12, 1e30])
def test_the_scale_of_the_loss(scale):
    torch.manual_seed(0)
    x, y = torch.randn(64, 30), torch.randn(64, 10)
    layer = torch.nn.Linear(30, 10)
    optimizer = Mnemosyne(layer.parameters())
    first = F.mse_loss(layer(x), y).item()
    for _ in range(30):
        loss = F.mse_loss(layer(x), y)
        optimizer.zero_grad()
        (loss * scale).backward()
        optimizer.step()
    assert loss.item() < 2 * first
    assert all(p.isfinite().all() for p in layer.parameters())
    assert optimizer.fallback_count == 0


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_not_finite_is_replaced_and_counted(dtype, clone):
    rule = mnemosyne._C.default_rule("mnemosyne")
    rule = rule.with_weights({k: torch.full_like(w, torch.nan) for k, w in rule.weights().items()})
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.zeros(4, 3, dtype=dtype))
    optimizer = RuleOptimizer([p], rule)
    for _ in range(2):
        p.grad = torch.randn(4, 3, dtype=dtype)
        optimizer.step()
    assert p.isfinite().all() and (p != 0).all()
    assert optimizer.fallback_count == 2
    assert clone(optimizer).fallback_count == 2


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_gradients_that_run_away_are_damped_and_counted(clone):
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(8, 8))
    optimizer = mnemosyne.optim.Mnemosyne([p])
    for step in range(16):
        p.grad = torch.randn(8, 8) * 5.0 ** max(step - 7, 0)
        optimizer.step()
        assert (optimizer.damped_count > 0) == (step > 9), step
    assert clone(optimizer).damped_count == optimizer.damped_count
