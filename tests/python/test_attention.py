"""Attention over space and time in the optimizer, from Python."""

import copy

import pytest
import torch
from attending import attending
from torch import nn

from mnemosyne import _C
from mnemosyne.optim import RuleOptimizer


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
    )


def target(x):
    return torch.tanh(x[:, :1] - x[:, 1:2])


def train(model, optimizer, first, last):
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(32, 6, generator=generator)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), target(x)).backward()
        optimizer.step()


def assert_equal(model, other):
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("through", ["file", "deepcopy"])
def test_a_run_resumes_bit_for_bit(through, tmp_path):
    model = make_model()
    optimizer = attending(model.parameters(), num_steps=12)
    train(model, optimizer, 0, 6)
    resumed = copy.deepcopy(model)
    other = attending(resumed.parameters(), num_steps=12)
    state = optimizer.state_dict()
    if through == "file":
        torch.save(state, tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt")
    else:
        state = copy.deepcopy(state)
    other.load_state_dict(state)
    train(model, optimizer, 6, 12)
    train(resumed, other, 6, 12)
    assert_equal(model, resumed)


def test_the_memory_of_the_network_is_part_of_the_state():
    model = make_model()
    optimizer = attending(model.parameters(), num_steps=12)
    train(model, optimizer, 0, 6)
    forgetful = copy.deepcopy(model)
    other = attending(forgetful.parameters(), num_steps=12)
    state = copy.deepcopy(optimizer.state_dict())
    for memory in state["param_groups"][0]["shared_state"]:
        assert memory.abs().max() > 0
        memory.zero_()
    other.load_state_dict(state)
    train(model, optimizer, 6, 7)
    train(forgetful, other, 6, 7)
    assert not torch.equal(model[0].weight, forgetful[0].weight)


def test_it_moves_otherwise_than_the_base_rule_and_learns():
    model, base = make_model(), make_model()
    train(model, attending(model.parameters(), num_steps=60), 0, 60)
    train(base, RuleOptimizer(base.parameters(), "orthogonal", num_steps=60), 0, 60)
    assert not torch.allclose(model[0].weight, base[0].weight, atol=1e-3)
    x = torch.randn(256, 6, generator=torch.Generator().manual_seed(1000))
    loss = nn.functional.mse_loss(model(x), target(x))
    assert loss < 0.2 * target(x).square().mean()


def test_a_large_matrix_has_little_more_state_than_without():
    def bytes_per_parameter(options):
        p = nn.Parameter(torch.zeros(768, 192))
        p.grad = torch.ones_like(p)
        optimizer = RuleOptimizer([p], _C.make_rule("mnemosyne", options))
        optimizer.step()
        shared = optimizer.param_groups[0].get("shared_state", [])
        tensors = [*optimizer.state[p].values(), *shared]
        return sum(t.numel() * t.element_size() for t in tensors) / p.numel()

    assert bytes_per_parameter("{}") < 8.01
    assert bytes_per_parameter('{"attention": true}') < 8.1


def test_options_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match="to be one of flt, absolute, none, got .rope"):
        _C.make_rule("mnemosyne", '{"attention": true, "attention_position": "rope"}')
    with pytest.raises(ValueError, match="attention_chunk_size of at least 1"):
        _C.make_rule("mnemosyne", '{"attention": true, "attention_chunk_size": 0}')
