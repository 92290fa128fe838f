"""The update of the step before in the state of the optimizer, from Python."""

import copy

import pytest
import torch
from attending import ALIGNED, aligned
from optimizers import assert_identical, make_model, train, values
from torch import nn

from mnemosyne import _C
from mnemosyne.optim import RuleOptimizer

COMPACT = '{"alignment": true, "second_moment": "bfloat16"}'


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_it_has_the_shape_of_the_parameter_and_is_what_was_taken_off(dtype):
    p = nn.Parameter(torch.zeros(4, 3, dtype=dtype))
    optimizer = aligned([p])
    p.grad = torch.sin(torch.arange(12.0)).view(4, 3).to(dtype)
    optimizer.step()
    state = optimizer.state[p]
    assert list(state) == ["step", "momentum", "second_moment", "previous_update", "extra_state"]
    taken = state["previous_update"]
    assert taken.dtype == torch.bfloat16
    assert taken.shape == p.shape
    assert torch.equal(taken, -p.detach().to(torch.bfloat16))
    assert state["extra_state"].shape == (10,)


@pytest.mark.parametrize("through", ["file", "deepcopy"])
@pytest.mark.parametrize("options", [ALIGNED, COMPACT])
def test_a_run_resumes_bit_for_bit(options, through, tmp_path):
    model = make_model()
    optimizer = aligned(model.parameters(), options, num_steps=12)
    train(model, optimizer, 0, 6)
    resumed = copy.deepcopy(model)
    other = aligned(resumed.parameters(), options, num_steps=12)
    state = optimizer.state_dict()
    if through == "file":
        torch.save(state, tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt")
    else:
        state = copy.deepcopy(state)
    other.load_state_dict(state)
    train(model, optimizer, 6, 12)
    train(resumed, other, 6, 12)
    assert_identical(values(model), values(resumed))


def test_a_checkpoint_without_it_is_refused():
    p = nn.Parameter(torch.ones(4, 3))
    p.grad = torch.ones_like(p)
    optimizer = aligned([p])
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    del saved["state"][0]["previous_update"]
    message = r"expected previous_update of bfloat16 \[4, 3\] for parameter 0 of group 0, got none"
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    plain = RuleOptimizer([p], "mnemosyne")
    with pytest.raises(ValueError, match="checkpoint of the optimizer weights"):
        plain.load_state_dict(optimizer.state_dict())


def test_it_costs_two_bytes_a_parameter():
    def bytes_per_parameter(options):
        p = nn.Parameter(torch.zeros(768, 192))
        p.grad = torch.ones_like(p)
        optimizer = RuleOptimizer([p], _C.make_rule("mnemosyne", options))
        optimizer.step()
        return sum(t.nbytes for t in optimizer.state[p].values()) / p.numel()

    assert bytes_per_parameter("{}") < 8.01
    assert 10 <= bytes_per_parameter('{"alignment": true}') < 10.01
    assert bytes_per_parameter('{"alignment": true, "second_moment": "bfloat16"}') < 8.01
