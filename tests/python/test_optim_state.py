"""`optimizer.state[p]` and checkpoints: hooks, entries of others, states of another parameter."""

import copy
import math
import random

import pytest
import torch
from optimizers import assert_identical, base_rule, make_model, train, values
from torch import nn

from mnemosyne import _C
from mnemosyne.optim import Mnemosyne, RuleOptimizer

# Rules whose extra_state starts with the sizes.
WITH_SIZES = ["adafactor", "lstm-rnnprop", "mnemosyne-compact", "mnemosyne-super"]
every_rule = pytest.mark.parametrize("name", _C.rule_names())


def stepped(name, *shapes, dtype=torch.float32, steps=1, named=False):
    """Parameters and an optimizer that has taken steps on them."""
    params = [nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes]
    entries = [(f"p{i}", p) for i, p in enumerate(params)] if named else params
    optimizer = RuleOptimizer(entries, name, lr=0.1)
    for step in range(steps):
        for p in params:
            p.grad = torch.sin(torch.arange(float(p.numel())) + step).view(p.shape).to(dtype)
        optimizer.step()
    return params, optimizer


@every_rule
def test_all_but_two_entries_have_the_shape_of_the_parameter(name):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        params, optimizer = stepped(name, (), (5,), (4, 3), (2, 3, 2), (0, 3), dtype=dtype)
        for p in params:
            for key, value in optimizer.state[p].items():
                if key == "extra_state":
                    assert value.dim() == 1
                elif key != "step":
                    assert value.shape == p.shape, key
                    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float)
            assert optimizer.state[p]["step"] == 1


@every_rule
def test_code_that_resizes_every_entry_but_the_two_works(name):
    """Rows of a parameter are dropped and with them those of its state, as in splatting."""
    (p,), optimizer = stepped(name, (6, 3), steps=3)
    keep = torch.tensor([0, 2, 5])
    state = optimizer.state.pop(p)
    smaller = nn.Parameter(p.detach()[keep])
    for key in list(state):
        if key == "extra_state":
            if name == "mnemosyne":
                continue  # the signals are of the tensor as a whole
            del state[key]
        elif key != "step":
            state[key] = state[key][keep]
    optimizer.param_groups[0]["params"] = [smaller]
    optimizer.state[smaller] = state
    smaller.grad = torch.ones(3, 3)
    if name in (
        "adafactor",
        "lstm",
        "lstm-rnnprop",
        "mnemosyne-compact",
        "mnemosyne-coordinate",
        "mnemosyne-super",
        "mnemosyne-tensor",
        "schedule-free",
        "amuse",
        "normuon",
    ):
        with pytest.raises(ValueError, match="expected extra_state of .* got none"):
            optimizer.step()
    else:
        optimizer.step()
        assert optimizer.state[smaller]["step"] == 4


@every_rule
def test_entries_of_others_survive_steps_and_checkpoints(name):
    p = nn.Parameter(torch.ones(4, 3))
    optimizer = RuleOptimizer([p], name)
    slow, entries = torch.ones(4, 3), optimizer.state[p]
    entries["slow"] = slow
    optimizer.register_step_post_hook(
        lambda o, args, kwargs: o.state[p].update(mine=o.state[p].get("mine", 0) + 1)
    )
    for _ in range(3):
        p.grad = torch.ones(4, 3)
        optimizer.step()
    assert optimizer.state[p] is entries, "the dictionary of the user is updated in place"
    assert entries["slow"] is slow
    assert entries["mine"] == 3

    other = RuleOptimizer([p], name)
    saved = optimizer.state_dict()
    other.load_state_dict(saved)
    assert other.state[p]["mine"] == 3
    other.state[p]["slow"].zero_()
    assert torch.equal(slow, torch.ones(4, 3)), "the caller's dictionary has been written to"
    other.step()
    assert other.state[p]["mine"] == 3


@every_rule
def test_a_step_keeps_the_tensors_of_the_state(name):
    """References that wrappers hold stay good, as with torch's optimizers."""
    (p,), optimizer = stepped(name, (4, 3))
    before = dict(optimizer.state[p])
    p.grad = torch.ones(4, 3)
    optimizer.step()
    for key, value in before.items():
        assert optimizer.state[p][key] is value, key
    assert before["step"] == 2


def by_name(optimizer, state_dict):
    """A pre-hook that gives the parameters of the optimizer what their names have in the file."""
    saved = {
        name: index
        for group in state_dict["param_groups"]
        for name, index in zip(group["param_names"], group["params"], strict=True)
    }
    options = state_dict["param_groups"][0]
    groups, state, index = [], {}, 0
    for group in optimizer.param_groups:
        names = group["param_names"]
        ids = list(range(index, index + len(names)))
        for i, name in zip(ids, names, strict=True):
            if name in saved:
                state[i] = state_dict["state"][saved[name]]
        groups.append({**options, "params": ids, "param_names": names})
        index += len(names)
    return {"state": state, "param_groups": groups}


@every_rule
def test_a_pre_hook_matches_parameters_by_name(name):
    (a, b), optimizer = stepped(name, (4, 3), (4, 3), named=True)
    optimizer.state[b]["step"].fill_(7)
    new = {key: nn.Parameter(torch.ones(4, 3)) for key in ("p1", "added", "p0")}
    other = RuleOptimizer(new.items(), name)
    other.register_load_state_dict_pre_hook(by_name)
    other.load_state_dict(optimizer.state_dict())
    assert not other.state.get(new["added"])
    for mine, old in ((new["p0"], a), (new["p1"], b)):
        assert_identical(other.state[mine].values(), optimizer.state[old].values())
    for p in new.values():
        p.grad = torch.ones(4, 3)
    other.step()
    assert [int(other.state[new[k]]["step"]) for k in ("p0", "p1", "added")] == [2, 8, 1]


@pytest.mark.parametrize("when", ["before", "after"])
@every_rule
def test_hooks_that_reset_the_state_have_the_last_word(name, when):
    (p,), optimizer = stepped(name, (4, 3))
    q = nn.Parameter(torch.ones(4, 3))
    other = RuleOptimizer([q], name)

    def reset(entries):
        return {k: v if k == "step" else torch.zeros_like(v) for k, v in entries.items()}

    if when == "before":
        other.register_load_state_dict_pre_hook(
            lambda o, d: {**d, "state": {k: reset(v) for k, v in d["state"].items()}}
        )
    else:
        other.register_load_state_dict_post_hook(
            lambda o: o.state.update({k: reset(v) for k, v in o.state.items()})
        )
    other.load_state_dict(optimizer.state_dict())
    for key, value in other.state[q].items():
        # Rows and columns come behind the sizes of their parameter.
        numbers = value[2:] if key == "extra_state" and name in WITH_SIZES else value
        assert key == "step" or not numbers.any(), key
    assert other.state[q]["step"] == 1
    assert any(v.any() for k, v in optimizer.state[p].items() if k != "step")


def test_a_hook_may_change_options_and_add_to_what_is_saved():
    (p,), optimizer = stepped("orthogonal", (4, 3))
    optimizer.register_state_dict_post_hook(lambda o, d: {**d, "extra": 1})
    saved = optimizer.state_dict()
    assert saved["extra"] == 1

    def lower(o, d):
        return {**d, "param_groups": [{**g, "lr": 0.125} for g in d["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(lower)
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.125
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 1, "ours is not left behind"


@every_rule
def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing(name):
    for old, new in (((8, 4), (4000, 64)), ((4000, 64), (8, 4)), ((6, 4), (4, 6)), ((6,), (6, 1))):
        if name in ("lstm", "mnemosyne-coordinate") and math.prod(old) == math.prod(new):
            continue  # they know a parameter by the number of its entries
        (_,), optimizer = stepped(name, old)
        (p,), other = stepped(name, new, named=True)
        before = copy.deepcopy(other.state_dict())
        message = r'^\[RuleOptimizer\] expected \w+ of .*\[.*\] for "p0", got .+$'
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(optimizer.state_dict())
        assert_identical(other.state[p].values(), before["state"][0].values())


@every_rule
def test_a_parameter_that_has_grown_is_refused_before_anything_is_written(name):
    (p, q), optimizer = stepped(name, (3, 3), (8, 4))
    q.data = torch.ones(800, 40)
    p.grad, q.grad = torch.ones(3, 3), torch.ones(800, 40)
    before = p.detach().clone()
    with pytest.raises(ValueError, match="for parameter 1 of group 0, got float32") as refusal:
        optimizer.step()
    assert "\n" not in str(refusal.value)
    assert torch.equal(p, before)


def test_a_gradient_of_another_shape_is_refused():
    p = nn.Parameter(torch.ones(8, 4))
    optimizer = Mnemosyne([p])
    p.grad = torch.ones(8, 4)
    p.data = torch.ones(800, 40)
    with pytest.raises(ValueError, match=r"gradient of shape \[800, 40\]"):
        optimizer.step()


def spoiled(state, chance):
    """A state with one fault; which one is random."""
    key = chance.choice([k for k in state if k != "step"] or ["step"])
    value = state[key]
    kind = chance.randrange(7)
    if kind == 0:
        del state[key]
    elif kind == 1:
        state[key] = torch.zeros(77)
    elif kind == 2:
        state[key] = value.to(torch.int32)
    elif kind == 3:
        state[key] = value.unsqueeze(0)
    elif kind == 4:
        state[key] = "text"
    elif kind == 5:
        state["step"] = torch.zeros(3, dtype=torch.int64)
    else:
        state["step"] = torch.tensor(-5)


@every_rule
def test_spoiled_states_are_refused_at_the_step_and_at_the_load(name):
    chance = random.Random(7)
    for _ in range(40):
        shape = tuple(chance.randrange(1, 6) for _ in range(chance.randrange(1, 4)))
        (p,), optimizer = stepped(name, shape)
        spoiled(optimizer.state[p], chance)
        before = p.detach().clone()
        for call in (optimizer.step, lambda o=optimizer: o.load_state_dict(o.state_dict())):
            with pytest.raises(ValueError, match="expected .* for parameter 0") as refusal:
                call()
            assert "\n" not in str(refusal.value)
        assert torch.equal(p, before)


def test_moved_and_strided_entries_are_brought_back():
    (p,), optimizer = stepped("mnemosyne", (6, 5))
    (q,), other = stepped("mnemosyne", (6, 5))
    state = other.state[q]
    state["momentum"] = state["momentum"].t().contiguous().t()
    state["second_moment"] = state["second_moment"].t().contiguous().t()
    for x, o in ((p, optimizer), (q, other)):
        x.grad = torch.sin(torch.arange(30.0)).view(6, 5)
        o.step()
    assert torch.equal(p, q)

    saved = other.state_dict()
    saved["state"][0]["momentum"] = saved["state"][0]["momentum"].t().contiguous().t()
    other.load_state_dict(saved)
    optimizer.step()
    other.step()
    assert torch.equal(p, q)


@every_rule
def test_entries_go_to_the_device_that_they_belong_to(name):
    """A parameter elsewhere, and a checkpoint of which all is elsewhere, as with map_location."""
    (p,), optimizer = stepped(name, (4, 3))
    far = nn.Parameter(torch.empty(4, 3, device="meta"))
    other = RuleOptimizer([far], name)
    other.load_state_dict(optimizer.state_dict())
    for key, value in other.state[far].items():
        assert value.device.type == ("cpu" if key == "step" else "meta"), key

    # Tensors of the meta device have no numbers that could be brought to the CPU: asking shows.
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["step"] = saved["state"][0]["step"].to("meta")
    with pytest.raises(NotImplementedError, match="meta"):
        optimizer.load_state_dict(saved)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["mnemosyne", "schedule-free", "adamw", "lstm"])
def test_a_run_goes_on_on_a_gpu_with_map_location(name, tmp_path):
    (p,), optimizer = stepped(name, (4, 3), steps=3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    q = nn.Parameter(p.detach().cuda())
    other = RuleOptimizer([q], name, lr=0.1)
    other.load_state_dict(torch.load(tmp_path / "state.pt", map_location="cuda"))
    assert other.state[q]["step"].device.type == "cpu"
    p.grad = torch.ones(4, 3)
    q.grad = p.grad.cuda()
    optimizer.step()
    other.step()
    torch.testing.assert_close(q.cpu(), p, rtol=1e-4, atol=1e-5)


def in_the_old_form(name, saved):
    """A checkpoint as versions before "extra_state" wrote it: an entry for each tensor."""
    rule = _C.make_rule(name)
    saved = copy.deepcopy(saved)
    for group in saved["param_groups"]:
        del group["orthogonal"]
        group.pop("momentum", None)
    for state in saved["state"].values():
        shape = state.pop("shape")
        extra = state.pop("extra_state", torch.empty(0))
        layout = rule.state_layout(torch.empty(shape))
        packed = [(e, s, t) for e, s, t, _, like in layout if not like and e != "step"]
        offset = len(extra) - sum(torch.Size(size).numel() for _, size, _ in packed)
        for entry, size, dtype in packed:
            numbers = torch.Size(size).numel()
            state[entry] = extra[offset : offset + numbers].view(size).to(dtype)
            offset += numbers
    return saved


@every_rule
def test_checkpoints_of_earlier_versions_load(name):
    shapes = [(4, 3), (5,), ()]
    params, optimizer = stepped(name, *shapes, steps=3)
    saved = optimizer.state_dict()
    old = copy.deepcopy(saved)
    for index, shape in enumerate(shapes):
        old["state"][index]["shape"] = shape
    old = in_the_old_form(name, old)
    old["param_groups"][0]["weight_decay"] = 0.0
    others, other = stepped(name, *shapes)
    other.load_state_dict(old)
    own = {"adamw": 0.01, "amuse": 0.05}.get(name, 0.0)
    assert other.param_groups[0]["weight_decay"] == own
    assert other.param_groups[0]["orthogonal"] is True
    for p, q in zip(params, others, strict=True):
        mine, expected = other.state[q], optimizer.state[p]
        assert mine.keys() == expected.keys()
        assert_identical([mine[k] for k in expected], expected.values())


@pytest.mark.parametrize("value", [3, 3.0, torch.tensor(3.0), torch.tensor(3, dtype=torch.int32)])
def test_a_step_counter_of_another_kind_is_taken(value):
    (p,), optimizer = stepped("adamw", (3, 3))
    saved = optimizer.state_dict()
    saved["state"][0]["step"] = value
    optimizer.load_state_dict(saved)
    assert optimizer.state[p]["step"].dtype == torch.int64
    assert optimizer.state[p]["step"] == 3


def test_a_float32_checkpoint_goes_into_a_float64_model():
    (p,), optimizer = stepped("mnemosyne", (4, 3))
    q = nn.Parameter(p.detach().double())
    other = RuleOptimizer([q], "mnemosyne")
    other.load_state_dict(optimizer.state_dict())
    assert other.state[q]["momentum"].dtype == torch.float64
    assert other.state[q]["extra_state"].dtype == torch.float32
    q.grad = torch.ones(4, 3, dtype=torch.float64)
    other.step()


@pytest.mark.parametrize("make", [Mnemosyne, base_rule])
def test_a_parameter_may_become_narrower_while_it_is_trained(make):
    model = make_model()
    optimizer = make(model.parameters())
    train(model, optimizer, 0, 2)
    model.bfloat16()
    train(model, optimizer, 2, 4)
    assert all(v.isfinite().all() for v in values(model))
    model.double()
    with pytest.raises(ValueError, match="expected momentum of float64"):
        train(model, optimizer, 4, 5)
