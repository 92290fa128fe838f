"""The contract of a torch optimizer (every row of it that needs one process and no GPU).

Each test runs for all optimizers; what needs more processes is in test_distributed.py, options and
checkpoints in test_optim_options.py and test_optim_state.py.
"""

import copy
import io
import pickle

import pytest
import torch
from optimizers import assert_identical, base_rule, make_loss, make_model, train, values
from torch import nn

from mnemosyne import _C
from mnemosyne.optim import LSTM, Mnemosyne, RuleOptimizer


def coordinate(params, **options):
    return Mnemosyne(params, variant="coordinate", **options)


def attention(params, **options):
    return Mnemosyne(params, variant="attention", **options)


def tensor(params, **options):
    return Mnemosyne(params, variant="tensor", **options)


def compact(params, **options):
    return Mnemosyne(params, variant="compact", **options)


def both(params, **options):
    return Mnemosyne(params, variant="super", **options)


OPTIMIZERS = [Mnemosyne, base_rule, attention, coordinate, tensor, both, compact, LSTM]
make_optimizer = pytest.mark.parametrize("make", OPTIMIZERS, ids=lambda make: make.__name__)


@make_optimizer
def test_it_trains(make):
    model = make_model()
    optimizer = make(model.parameters())
    before = make_loss(model, 1000).item()
    # The baseline LSTM is slow: it needs about twice as many steps as the others.
    train(model, optimizer, 0, 240 if isinstance(optimizer, LSTM) else 60)
    assert make_loss(model, 1000).item() < 0.8 * before


@make_optimizer
def test_step_runs_a_closure_and_returns_its_loss(make):
    plain, closured = make_model(), make_model()
    train(plain, make(plain.parameters()), 0, 3)
    optimizer = make(closured.parameters())
    for step in range(3):

        def closure(step=step):
            optimizer.zero_grad()
            loss = make_loss(closured, step)
            loss.backward()
            return loss

        expected = make_loss(closured, step).item()
        assert optimizer.step(closure).item() == expected
    assert_identical(values(closured), values(plain))
    assert optimizer.step() is None


@make_optimizer
def test_an_added_group_is_trained_with_its_own_options(make):
    model = make_model()
    head, body = list(model[3].parameters()), list(model[0].parameters())
    optimizer = make(head)
    train(model, optimizer, 0, 2)
    optimizer.add_param_group({"params": body, "lr": 0.0})
    before = values(model)
    train(model, optimizer, 2, 4)
    after = values(model)
    assert_identical(after[:2], before[:2])
    assert not torch.equal(after[-2], before[-2])
    optimizer.param_groups[1]["lr"] = 1.0
    train(model, optimizer, 4, 5)
    assert not torch.equal(next(model.parameters()), before[0])


@make_optimizer
def test_parameters_without_gradient_are_left_alone(make):
    model = make_model()
    model[2].requires_grad_(False)
    unused = nn.Parameter(torch.ones(3, 3))
    optimizer = make([*model.parameters(), unused])
    before = values(model)
    train(model, optimizer, 0, 2)
    assert_identical(values(model)[2:4], before[2:4])
    assert torch.equal(unused, torch.ones(3, 3))
    assert unused not in optimizer.state


@make_optimizer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_all_shapes_and_dtypes(make, dtype):
    torch.manual_seed(1)
    shapes = [(), (1,), (7,), (0, 3), (3, 4), (1, 5), (2, 3, 4), (4, 3, 2, 2), (2, 2, 2, 2, 2)]
    params = [nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]
    params.append(nn.Parameter(torch.randn(5, 4).to(dtype).t()))
    optimizer = make(params)
    before = [p.detach().clone() for p in params]
    for _ in range(3):
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()
    for p, old in zip(params, before, strict=True):
        assert p.dtype == dtype
        assert torch.isfinite(p).all()
        # In 16 bits one small step may round to nothing.
        if dtype in (torch.float32, torch.float64):
            assert p.numel() == 0 or not torch.equal(p, old)
    assert any(not torch.equal(p, old) for p, old in zip(params, before, strict=True))


@make_optimizer
def test_one_bad_entry_poisons_nothing_and_is_counted(make):
    model = make_model()
    optimizer = make(model.parameters())
    train(model, optimizer, 0, 2)
    make_loss(model, 2).backward()
    model[0].weight.grad[0, 0] = torch.nan
    model[0].weight.grad[1, 0] = -torch.inf
    optimizer.step()
    train(model, optimizer, 3, 5)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert optimizer.nonfinite_count == 2


@make_optimizer
def test_sparse_and_complex_gradients_are_refused_before_anything_changes(make):
    first = nn.Parameter(torch.ones(2))
    embedding = nn.Embedding(4, 2, sparse=True)
    optimizer = make([first, embedding.weight])
    first.grad = torch.ones(2)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="expected dense gradients"):
        optimizer.step()
    assert torch.equal(first, torch.ones(2))

    number = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    number.grad = torch.ones_like(number)
    with pytest.raises(RuntimeError, match="expected real parameters"):
        make([number]).step()


@make_optimizer
def test_a_scheduler_acts_as_a_plain_multiplier(make):
    def first_change(factor):
        model = make_model()
        optimizer = make(model.parameters())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor)
        before = values(model)
        train(model, optimizer, 0, 1)
        scheduler.step()
        return torch.cat([(a - b).flatten() for a, b in zip(values(model), before, strict=True)])

    torch.testing.assert_close(first_change(0.25), 0.25 * first_change(1.0), rtol=1e-3, atol=1e-7)
    assert first_change(0.0).abs().max() == 0


@make_optimizer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_run_resumes_bit_for_bit(make, dtype):
    straight = make_model(dtype=dtype)
    optimizer = make(straight.parameters())
    train(straight, optimizer, 0, 5)
    checkpoint = io.BytesIO()
    torch.save([straight.state_dict(), optimizer.state_dict()], checkpoint)
    train(straight, optimizer, 5, 10)

    checkpoint.seek(0)
    model_state, optimizer_state = torch.load(checkpoint, weights_only=True)
    resumed = make_model(seed=1, dtype=dtype)
    resumed.load_state_dict(model_state)
    fresh = make(resumed.parameters())
    before = copy.deepcopy(optimizer_state)
    fresh.load_state_dict(optimizer_state)
    train(resumed, fresh, 5, 10)
    assert_identical(values(resumed), values(straight))

    for group, own in zip(optimizer_state["param_groups"], before["param_groups"], strict=True):
        assert_identical(group.pop("shared_state", []), own.pop("shared_state", []))
        assert group == own
    for key, state in before["state"].items():
        assert_identical(optimizer_state["state"][key].values(), state.values())


@make_optimizer
def test_other_weights_are_refused(make):
    model = make_model()
    optimizer = make(model.parameters())
    train(model, optimizer, 0, 1)
    state = optimizer.state_dict()
    assert state["param_groups"][0]["weights_hash"]
    other = RuleOptimizer(model.parameters(), "adamw")
    with pytest.raises(ValueError, match="expected a checkpoint of the optimizer weights"):
        other.load_state_dict(state)


@make_optimizer
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_a_copy_continues_like_the_original(make, clone):
    model = make_model()
    optimizer = make(model.parameters())
    train(model, optimizer, 0, 3)
    # Together, so that the copied optimizer holds the parameters of the copied model.
    other_model, other = clone((model, optimizer))
    assert other.nonfinite_count == 0
    train(model, optimizer, 3, 6)
    train(other_model, other, 3, 6)
    assert_identical(values(other_model), values(model))


@make_optimizer
def test_grad_scaler(make):
    model, scaled = make_model(), make_model()
    optimizer, other = make(model.parameters()), make(scaled.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(4):
        train(model, optimizer, step, step + 1)
        other.zero_grad()
        scaler.scale(make_loss(scaled, step)).backward()
        scaler.step(other)
        scaler.update()
    assert_identical(values(scaled), values(model))
    other.zero_grad()
    scaler.scale(make_loss(scaled, 9)).backward()
    scaled[0].weight.grad[0, 0] = torch.inf
    scaler.step(other)
    assert_identical(values(scaled), values(model))


@make_optimizer
def test_checkpoints_of_torch_distributed(make):
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    for flatten in (False, True):
        options = StateDictOptions(flatten_optimizer_state_dict=flatten)
        model = make_model()
        optimizer = make(model.parameters())
        train(model, optimizer, 0, 3)
        saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
        resumed = make_model(seed=1)
        resumed.load_state_dict(model.state_dict())
        fresh = make(resumed.parameters())
        set_optimizer_state_dict(resumed, fresh, saved, options=options)
        assert_identical(values(resumed), values(model))
        train(model, optimizer, 3, 6)
        train(resumed, fresh, 3, 6)
        assert_identical(values(resumed), values(model))


@make_optimizer
def test_the_model_keeps_its_mode(make):
    model = make_model().eval()
    model[2].train()
    train(model, make(model.parameters()), 0, 1)
    assert not model.training
    assert model[2].training


@make_optimizer
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_what_the_cpu_gives(make):
    model, other = make_model(), make_model().cuda()
    optimizer, other_optimizer = make(model.parameters()), make(other.parameters())
    for step in range(3):
        train(model, optimizer, step, step + 1)
        for p, q in zip(other.parameters(), model.parameters(), strict=True):
            p.grad = q.grad.cuda()
        other_optimizer.step()
    for p, q in zip(other.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p.cpu(), q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", _C.rule_names())
def test_every_rule_runs_and_resumes_from_python(name):
    model = make_model()
    optimizer = RuleOptimizer(model.parameters(), name)
    train(model, optimizer, 0, 3)
    other_model, other = copy.deepcopy((model, optimizer))
    other.load_state_dict(optimizer.state_dict())
    train(model, optimizer, 3, 5)
    train(other_model, other, 3, 5)
    assert_identical(values(other_model), values(model))
