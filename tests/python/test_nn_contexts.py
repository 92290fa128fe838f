"""Defaults, devices, dtypes, seeds and autocast, as modules of torch have them."""

import contextlib
import copy

import pytest
import torch
from nn_examples import FACTORIES, RUNNABLE, inputs_of, normal

from mnemosyne import _C, nn

linear_attention = nn.functional.linear_attention


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def same_state(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


# Seeds.


@pytest.mark.parametrize("name", FACTORIES)
def test_the_seed_of_torch_decides(name):
    make = FACTORIES[name]
    torch.manual_seed(5)
    first, second = make(), make()
    torch.manual_seed(5)
    again = make()
    assert same_state(first.state_dict(), again.state_dict())
    assert not same_state(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("name", FACTORIES)
def test_a_given_seed_draws_nothing_from_torch(name):
    make = FACTORIES[name]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = make(seed=7), make(seed=7)
    copies = [copy.deepcopy(first), copy.deepcopy(make(seed=8))]
    for module in (first, *copies):
        if name in RUNNABLE:
            module(*inputs_of(name))
    assert torch.equal(torch.rand(3), expected)
    assert same_state(first.state_dict(), second.state_dict())
    assert not same_state(first.state_dict(), copies[1].state_dict())


def test_layers_of_a_model_differ():
    model = nn.ViT(width=8, heads=2, layers=3)
    states = [getattr(model, f"block{i}").state_dict() for i in range(3)]
    for name in ("attention.query.weight", "up.weight", "attention.omega"):
        assert not torch.equal(states[0][name], states[1][name])
        assert not torch.equal(states[1][name], states[2][name])
    draws = "attention.position.spectrum.draws"
    assert not torch.equal(states[0][draws], states[1][draws])


def test_seeds_that_are_none_are_named():
    with pytest.raises(ValueError, match=r"^\[seed\] expected .*got -1$"):
        nn.LinearAttention(8, 2, seed=-1)


# Dtypes and devices.


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_is_that_of_torch(name, dtype):
    make = FACTORIES[name]
    expected = make(seed=1).to(dtype)
    with default_dtype(dtype):
        for module in (make(seed=1), make(seed=1, dtype=torch.float32).to(dtype)):
            assert {p.dtype for p in module.parameters()} == {dtype}
            assert [b.dtype for b in module.buffers()] == [b.dtype for b in expected.buffers()]
            assert same_state(module.state_dict(), expected.state_dict())
            if name not in RUNNABLE:
                continue
            output = module(*inputs_of(name, dtype))
            output.sum().backward()
            given = [p.grad for p in module.parameters()]
            torch.set_default_dtype(torch.float32)
            module.zero_grad()
            other = module(*inputs_of(name, dtype))
            other.sum().backward()
            torch.set_default_dtype(dtype)
            assert torch.equal(output, other)
            for one, two in zip(given, module.parameters(), strict=True):
                assert torch.equal(one, two.grad)


@pytest.mark.parametrize("name", FACTORIES)
def test_dtype_and_device_are_arguments(name):
    module = FACTORIES[name](seed=1, device="meta", dtype=torch.float64)
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    assert {t.device.type for t in module.state_dict().values()} == {"meta"}
    module = module.to_empty(device="cpu")
    expected = FACTORIES[name](seed=1, dtype=torch.float64)
    module.load_state_dict(expected.state_dict())
    assert same_state(module.state_dict(), expected.state_dict())
    if name in RUNNABLE:
        inputs = inputs_of(name, torch.float64)
        assert torch.equal(module(*inputs), expected(*inputs))


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("batch", [2, 0])
def test_meta_gives_shapes(name, batch):
    with torch.device("meta"):
        module = FACTORIES[name]()
    assert {t.device.type for t in module.state_dict().values()} == {"meta"}
    inputs = [x.to("meta") for x in inputs_of(name, batch=batch)]
    output = module(*inputs)
    assert output.device.type == "meta"
    assert output.shape == FACTORIES[name]()(*inputs_of(name, batch=batch)).shape
    output.sum().backward()
    assert all(p.grad.shape == p.shape for p in module.parameters())


def test_a_position_of_its_own_goes_along():
    position = nn.FourierPosition(2, coupling="multiplicative")
    module = nn.LinearAttention(8, 2, position=position, dtype=torch.float64)
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    assert module.position is position


def test_a_module_under_inference_and_no_grad_trains_later():
    for context in (torch.inference_mode, torch.no_grad):
        with context():
            q = normal(1, 2, 5, 6)
            linear_attention(q, q, q, seed=77)
        q = normal(1, 2, 5, 6).requires_grad_()
        linear_attention(q, q, q, seed=77).sum().backward()
        assert q.grad is not None


# Autocast.


@pytest.mark.parametrize("feature_map", ["favor+", "relu", "elu+1"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_that_of_scaled_dot_product_attention(feature_map, dtype):
    q, k, v = (normal(2, 2, 9, 4).roll(i).requires_grad_() for i in range(3))
    omega = None if feature_map == "elu+1" else normal(8, 4)
    given = {"feature_map": feature_map, "omega": omega}
    low = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    expected = linear_attention(*low, **given)
    with torch.autocast("cpu", dtype=dtype):
        mixed = linear_attention(q, k.to(dtype), v, **given)
        sdpa = torch.nn.functional.scaled_dot_product_attention(q, k.to(dtype), v)
        assert linear_attention(*(x.double() for x in (q, k, v)), **given).dtype == torch.float64
    assert mixed.dtype == sdpa.dtype == dtype
    assert torch.equal(mixed, expected)
    mixed.float().square().sum().backward()
    expected.float().square().sum().backward()
    for x, y in zip((q, v), (low[0], low[2]), strict=True):
        assert torch.equal(x.grad, y.grad.float())
    with pytest.raises(RuntimeError, match="of one floating-point dtype"):
        linear_attention(q, k.to(dtype), v, **given)


def test_states_stay_wide_under_autocast():
    q, k, v = (normal(1, 2, 9, 4).roll(i) for i in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = linear_attention(q, k, v, causal=True)
        state, rows = None, []
        for t in range(9):
            token = (x[:, :, t : t + 1] for x in (q, k, v))
            row, state = linear_attention(*token, causal=True, state=state, return_state=True)
            rows.append(row)
    assert state.sums.dtype == torch.float32
    torch.testing.assert_close(torch.cat(rows, 2), whole, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", RUNNABLE)
def test_modules_under_autocast_are_those_in_low_precision(name):
    module = FACTORIES[name](seed=1)
    exact = module(*inputs_of(name)).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(*inputs_of(name))
    output.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())
    assert torch.allclose(output.float(), exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", [name for name in FACTORIES if "Position" in name])
def test_positions_are_not_rounded_by_autocast(name):
    position = FACTORIES[name](seed=1)
    far = torch.tensor([[0.0], [1.0], [117.0]])
    plain = [position.mask(far), position.factor(far), *position.features(far)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = [position.mask(far), position.factor(far), *position.features(far)]
    for one, other in zip(plain, under, strict=True):
        assert torch.equal(one, other)


def test_attention_under_autocast_knows_far_positions():
    """bfloat16 cannot tell 300 from 301; attention under autocast has to."""
    module = nn.LinearAttention(8, 2, position="flt", seed=1)
    x, places = normal(1, 3, 8), torch.tensor([[0.0], [100.0], [101.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near, moved = module(x, places), module(x, places + 100.0)
        torch.testing.assert_close(near, moved, rtol=2e-2, atol=2e-2)
        places[2] = 100.0
        assert not torch.equal(module(x, places), near)


# Sizes.


@pytest.mark.parametrize("feature_map", ["favor+", "hyp+", "trig", "relu", "elu+1", "identity"])
@pytest.mark.parametrize(
    ("batch", "queries", "keys", "depth", "values"),
    [(1, 3, 3, 0, 4), (1, 3, 3, 4, 0), (0, 3, 3, 4, 4), (2, 0, 3, 4, 4), (2, 3, 0, 4, 4),
     (2, 0, 0, 4, 4), (2, 1, 1, 1, 1)],
)  # fmt: skip
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_sizes_of_none_and_one_are_answered(
    feature_map, batch, queries, keys, depth, values, device
):
    q = torch.ones(batch, 2, queries, depth, device=device, requires_grad=True)
    k = torch.ones(batch, 2, keys, depth, device=device)
    v = torch.ones(batch, 2, keys, values, device=device)
    if depth == 0 or values == 0:
        with pytest.raises((RuntimeError, ValueError), match=r"^\[\w+\] expected [^\n]*$"):
            linear_attention(q, k, v, feature_map=feature_map)
        return
    output = linear_attention(q, k, v, feature_map=feature_map)
    assert output.shape == (batch, 2, queries, values) and output.device.type == device
    output.sum().backward()
    assert q.grad.shape == q.shape
    if device == "cpu":
        assert torch.isfinite(output).all()


@pytest.mark.parametrize("name", [name for name in RUNNABLE if "Attention" in name])
@pytest.mark.parametrize("length", [0, 1])
def test_attention_over_no_token_is_refused_and_over_one_is_not(name, length):
    module = FACTORIES[name]()
    if length == 0:
        with pytest.raises(RuntimeError, match=r"^\[attention\] expected tokens .*L > 0"):
            module(normal(2, 0, 8))
    else:
        assert torch.isfinite(module(normal(2, 1, 8))).all()
        assert module(normal(0, 3, 8)).shape == (0, 3, 8)


@pytest.mark.parametrize("causal", [False, True])
def test_an_empty_batch_may_have_positions_of_its_own(causal):
    positions = [nn.FourierPosition(2, coupling="multiplicative"), nn.FourierPosition(2)]
    if causal:
        positions.append(nn.DampedPosition(2))
    for position in positions:
        q = torch.ones(0, 2, 5, 4, requires_grad=True)
        places = torch.zeros(0, 5, 1)
        y, state = linear_attention(
            q, q, q, causal=causal, position=position, positions=places, return_state=True
        )
        y.sum().backward()
        assert y.shape == q.grad.shape == (0, 2, 5, 4) and state.sums.shape[:2] == (0, 2)
        module = nn.LinearAttention(8, 2, causal=causal, position=position)
        assert module(normal(0, 5, 8), places).shape == (0, 5, 8)
        mask = torch.ones(0, 5, dtype=torch.bool)
        assert module(normal(0, 5, 8), places, mask).shape == (0, 5, 8)


# The function.


def test_scale_is_that_of_the_product():
    q, k, v = (normal(1, 2, 6, 4).double().roll(i) / 2 for i in range(3))
    for scale in (0.0, 0.3, 4.0**-0.5):
        output = linear_attention(
            q, k, v, feature_map="favor+", num_features=100_000, scale=scale, seed=1
        )
        exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
        torch.testing.assert_close(output, exact, rtol=0.05, atol=0.02)
    default = linear_attention(q, k, v, num_features=8)
    torch.testing.assert_close(linear_attention(q, k, v, num_features=8, scale=0.5), default)
    with pytest.raises(ValueError, match="expected a finite scale of 0 or more, got -1"):
        linear_attention(q, k, v, scale=-1.0)


def test_random_vectors_are_kept(monkeypatch):
    draws = []
    draw = _C.draw_omega
    monkeypatch.setattr(_C, "draw_omega", lambda *a: draws.append(a) or draw(*a))
    q, wide = normal(1, 2, 5, 6), normal(1, 2, 5, 7)
    outputs = [linear_attention(q, q, q, seed=991) for _ in range(3)]
    assert len(draws) == 1 and torch.equal(outputs[0], outputs[2])
    linear_attention(q, q, q, seed=992)
    linear_attention(wide, wide, wide, seed=991)
    linear_attention(q.double(), q.double(), q.double(), seed=991)
    linear_attention(q, q, q, seed=991, num_features=8)
    meta = q.to("meta")
    assert linear_attention(meta, meta, meta, seed=991).device.type == "meta"
    assert len(draws) == 6
