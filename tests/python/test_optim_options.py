"""Options of the optimizers: what is refused, weight decay, number of steps, schedulers, masks."""

import math
import warnings

import numpy as np
import pytest
import torch
from optimizers import base_rule, make_model, train, values
from torch import nn
from torch.optim import lr_scheduler

from mnemosyne import _C
from mnemosyne.optim import LSTM, Mnemosyne, RuleOptimizer

WITH_MOMENTUM = [
    "adam",
    "adamw",
    "mnemosyne",
    "mnemosyne-compact",
    "mnemosyne-super",
    "mnemosyne-tensor",
    "muon",
    "normuon",
    "orthogonal",
    "sgd",
]


def one_param():
    return nn.Parameter(torch.ones(3, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "expected lr >= 0, got -1.0"),
        ({"lr": math.nan}, "expected lr >= 0, got nan"),
        ({"lr": math.inf}, "expected a finite lr, got inf"),
        ({"lr": "0.1"}, "expected lr to be a number, got '0.1'"),
        ({"lr": True}, "expected lr to be a number, got True"),
        ({"lr": torch.ones(2)}, r"expected lr to be a number, got tensor\(\[1., 1.\]\)"),
        ({"weight_decay": -0.1}, "expected weight_decay >= 0, got -0.1"),
        ({"weight_decay": math.nan}, "expected weight_decay >= 0, got nan"),
        ({"weight_decay": math.inf}, "expected a finite weight_decay, got inf"),
        ({"weight_decay": [0.1]}, r"expected weight_decay to be a number, got \[0.1\]"),
        ({"num_steps": 0}, "expected num_steps >= 1, got 0"),
        ({"num_steps": 1000 / 2}, "expected num_steps as a whole number or None, got 500.0"),
        ({"num_steps": 0.5}, "expected num_steps as a whole number or None, got 0.5"),
        ({"num_steps": "10"}, "expected num_steps as a whole number or None, got '10'"),
        ({"num_steps": True}, "expected num_steps as a whole number or None, got True"),
        ({"orthogonal": 0}, "expected orthogonal to be True or False, got 0"),
        ({"learned": "no"}, "expected learned to be True or False, got 'no'"),
        ({"weights": 3}, "expected weights to be a path, got 3"),
        ({"weights": None}, "expected weights to be a path, got None"),
        ({"weights": "no-such-file.safetensors"}, "no-such-file.safetensors"),
        ({"variant": "no-such-variant"}, "no-such-variant"),
        ({"variant": "coordinate", "learned": False}, "learned"),
        ({"variant": 3}, "expected variant to be a name or None, got 3"),
    ],
)
def test_bad_options_are_refused_in_one_line_when_constructed(options, message):
    with pytest.raises(ValueError, match=message) as refusal:
        Mnemosyne([one_param()], **options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_steps", 7.0, "expected num_steps as a whole number or None, got 7.0"),
        ("momentum", 1.0, r"expected momentum in \[0, 1\), got 1.0"),
        ("momentum", "high", "expected momentum to be a number, got 'high'"),
        ("lr", math.nan, "got nan"),
        ("weight_decay", None, "expected weight_decay to be a number, got None"),
        ("orthogonal", None, "expected orthogonal to be True or False, got None"),
    ],
)
def test_bad_options_of_a_group_are_refused_when_added_and_when_written_to(option, value, message):
    optimizer = Mnemosyne([one_param()])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [one_param()], option: value})
    assert len(optimizer.param_groups) == 1
    p = optimizer.param_groups[0]["params"][0]
    p.grad = torch.ones_like(p)
    optimizer.param_groups[0][option] = value
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert torch.equal(p, torch.ones(3, 3))


def test_bad_rules_and_variants_are_refused_in_one_line():
    for rule in (3, None, ["sgd"]):
        with pytest.raises(ValueError, match="expected a rule or its name, got"):
            RuleOptimizer([one_param()], rule)
    with pytest.raises(ValueError, match="lion"):
        RuleOptimizer([one_param()], "lion")
    with pytest.raises(ValueError, match="expected variant to be a name or None, got 3"):
        LSTM([one_param()], variant=3)
    with pytest.raises(ValueError, match=r"\[lstm\] expected orthogonal = true"):
        LSTM([{"params": [one_param()], "orthogonal": False}])
    with pytest.raises(ValueError, match="expected no momentum, which lstm does not have"):
        LSTM([{"params": [one_param()], "momentum": 0.9}])


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), 1, torch.tensor(0.5)])
def test_numbers_of_every_kind_are_taken(number):
    def moved(lr, weight_decay, num_steps):
        p = one_param()
        optimizer = Mnemosyne([p], lr=lr, weight_decay=weight_decay, num_steps=num_steps)
        p.grad = torch.eye(3)
        optimizer.step()
        return p.detach()

    plain = float(number)
    assert torch.equal(moved(number, number, np.int64(9)), moved(plain, plain, 9))


@pytest.mark.parametrize("name", _C.rule_names())
def test_weight_decay_is_step_size_times_weight_decay(name):
    """The tensors of all rules, with what AdamW's users expect of a first step."""
    p = torch.linspace(-2, 2, 12, dtype=torch.float64).view(3, 4)
    sizes = {"lstm": 0.01, "lstm-rnnprop": 0.1, "orthogonal": 2.5e-3, "mnemosyne": 2.5e-3}
    for variant in ("tensor", "super", "compact"):
        sizes[f"mnemosyne-{variant}"] = sizes["mnemosyne"]
    sizes["mnemosyne-coordinate"] = 0.03 * p.square().mean().sqrt().item()
    sizes["amuse"] = 1 / 50  # warm-up

    def moved(**options):
        param = nn.Parameter(p.clone())
        param.grad = torch.sin(7 * p)
        RuleOptimizer([param], name, lr=0.5, **options).step()
        return param.detach()

    expected = 0.5 * sizes.get(name, 1.0) * 0.2 * p
    torch.testing.assert_close(
        moved(weight_decay=0.0) - moved(weight_decay=0.2), expected, rtol=1e-6, atol=1e-12
    )
    own = {"adamw": 0.01, "amuse": 0.05}.get(name, 0.0)
    assert torch.equal(moved(), moved(weight_decay=own))
    assert torch.equal(moved(weight_decay=torch.tensor(0.25)), moved(weight_decay=0.25))


def test_weight_decay_carries_over_from_adamw():
    """Where gradients are noise, decay decides how large weights become: as with AdamW."""

    def size(make):
        torch.manual_seed(0)
        p = nn.Parameter(torch.ones(20, 20))
        optimizer = make([p])
        for _ in range(600):
            p.grad = torch.randn(20, 20)
            optimizer.step()
        return p.detach().square().mean().sqrt().item()

    adamw = size(lambda params: torch.optim.AdamW(params, lr=1e-2, weight_decay=2.0))
    ours = size(lambda params: base_rule(params, weight_decay=2.0))
    assert 0.5 < ours / adamw < 2.0


@pytest.mark.parametrize("learned", [True, False])
def test_num_steps_ends_with_tiny_steps(learned):
    model = make_model()
    optimizer = Mnemosyne(model.parameters(), num_steps=40, learned=learned)
    sizes = []
    for step in range(40):
        before = values(model)
        train(model, optimizer, step, step + 1)
        sizes.append(sum((a - b).norm() for a, b in zip(values(model), before, strict=True)))
    assert sizes[-1] < 0.05 * max(sizes)


@pytest.mark.parametrize("learned", [True, False])
def test_beyond_num_steps_one_warning_and_steps_of_the_last_ones_size(learned):
    p = one_param()
    optimizer = Mnemosyne([p], num_steps=10, learned=learned)

    def moved(step):
        before = p.detach().clone()
        p.grad = torch.sin(torch.arange(9.0) + step).view(3, 3)
        optimizer.step()
        return (p - before).norm().item()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        last = [moved(step) for step in range(10)][-1]
    with pytest.warns(UserWarning, match="num_steps = 10 steps, got step 11") as caught:
        sizes = [moved(step) for step in range(10, 15)]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for size in sizes:
        assert 0.3 * last < size < 3 * last


def test_num_steps_of_a_resumed_run_is_the_users():
    p = one_param()
    first = Mnemosyne([p], num_steps=10)
    for _ in range(10):
        p.grad = torch.ones(3, 3)
        first.step()
    state = first.state_dict()
    q = nn.Parameter(p.detach().clone())
    longer, shorter, unsaid = (Mnemosyne([q], num_steps=n) for n in (1000, 5, None))
    for optimizer, expected in ((longer, 1000), (shorter, 5), (unsaid, 10)):
        optimizer.load_state_dict(state)
        assert optimizer.param_groups[0]["num_steps"] == expected
    assert state["param_groups"][0]["num_steps"] == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(50):
            q.grad = torch.ones(3, 3)
            longer.step()
    assert (q - p).abs().max() > 1e-2


@pytest.mark.parametrize("name", WITH_MOMENTUM)
@pytest.mark.parametrize("kind", ["one_cycle", "cyclic"])
def test_schedulers_that_cycle_the_momentum_work_at_their_defaults(name, kind):
    assert {n for n in _C.rule_names() if _C.make_rule(n).default_momentum is not None} == set(
        WITH_MOMENTUM
    )
    p, q = one_param(), one_param()
    optimizer, twin = (RuleOptimizer([x], name, lr=0.1) for x in (p, q))
    if kind == "one_cycle":
        scheduler = lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=12)
    else:
        scheduler = lr_scheduler.CyclicLR(optimizer, 0.05, 0.2, step_size_up=4)
    seen = []
    for step in range(10):
        group = optimizer.param_groups[0]
        seen.append(group["momentum"])
        twin.param_groups[0].update(lr=group["lr"], momentum=group["momentum"])
        p.grad = q.grad = torch.sin(torch.arange(9.0) + step).view(3, 3)
        optimizer.step()
        twin.step()
        scheduler.step()
    assert torch.equal(p, q)
    assert max(seen) > min(seen) + 0.05

    fixed = one_param()
    other = RuleOptimizer([fixed], name, lr=0.1)
    for step in range(10):
        other.param_groups[0]["lr"] = twin.param_groups[0]["lr"]
        fixed.grad = torch.sin(torch.arange(9.0) + step).view(3, 3)
        other.step()
    assert not torch.equal(fixed, p), "the momentum has no effect"


def test_a_scheduler_is_told_where_there_is_no_momentum():
    optimizer = LSTM([one_param()])
    with pytest.raises(ValueError, match="momentum"):
        lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=9)
    lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=9, cycle_momentum=False)


@pytest.mark.parametrize("learned", [True, False])
def test_masked_entries_stay_where_they_are_in_a_group_without_orthogonal(learned):
    torch.manual_seed(0)
    pruned, dense = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(6, 6))
    mask = torch.rand(8, 6) < 0.5
    start = pruned.detach().clone()
    groups = [{"params": [pruned], "orthogonal": False}, {"params": [dense]}]
    optimizer = Mnemosyne(groups, learned=learned)
    twin = nn.Parameter(dense.detach().clone())
    alone = Mnemosyne([twin], learned=learned)
    for _ in range(5):
        pruned.grad = torch.randn(8, 6) * mask
        dense.grad = torch.randn(6, 6)
        twin.grad = dense.grad
        optimizer.step()
        alone.step()
    moved = (pruned - start).detach()
    assert not moved[~mask].any()
    assert moved[mask].abs().min() > 1e-5
    assert torch.equal(dense, twin), "the other group has to stay as it is"

    fresh = Mnemosyne([{"params": [pruned]}, {"params": [dense]}], learned=learned)
    fresh.load_state_dict(optimizer.state_dict())
    assert fresh.param_groups[0]["orthogonal"] is False
    pruned.grad = torch.randn(8, 6) * mask
    dense.grad = None
    fresh.step()
    assert not (pruned - start).detach()[~mask].any()


def test_without_orthogonal_the_direction_is_adams():
    p, q = one_param(), one_param()
    optimizer = Mnemosyne([p], orthogonal=False)
    adam = torch.optim.Adam([q], betas=(0.9, 0.99))
    for step in range(5):
        p.grad = q.grad = torch.sin(torch.arange(9.0) + step).view(3, 3)
        # A warm-up over ten steps, and 1 / sqrt(1 / 2.5^2 + t / 100).
        adam.param_groups[0]["lr"] = 1e-2 * (step + 1) / 10 / math.sqrt(0.16 + step / 100)
        optimizer.step()
        adam.step()
    torch.testing.assert_close(p, q)
