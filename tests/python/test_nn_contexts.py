"""Defaults, devices, dtypes, seeds, autocast, tracing and export, as modules of torch have them."""

import contextlib
import copy

import pytest
import torch

from mnemosyne import _C, nn

linear_attention = nn.functional.linear_attention

MODULES = {
    "FourierPosition": lambda **o: nn.FourierPosition(2, phase=True, **o),
    "FourierPosition, matern": lambda **o: nn.FourierPosition(
        2, kind="shift_invariant", kernel="matern", **o
    ),
    "FourierPosition, window": lambda **o: nn.FourierPosition(
        2, kind="local", window="tent", num_components=2, max_width=8.0, **o
    ),
    "FourierPosition, neural": lambda **o: nn.FourierPosition(2, kind="neural", **o),
    "FourierPosition, released": lambda **o: nn.FourierPosition(
        2, released_code=True, initial_amplitude=1.0, **o
    ),
    "DampedPosition": lambda **o: nn.DampedPosition(2, **o),
    "LinearAttention": lambda **o: nn.LinearAttention(8, 2, **o),
    "LinearAttention, flt": lambda **o: nn.LinearAttention(8, 2, position="flt", **o),
    "LinearAttention, rope": lambda **o: nn.LinearAttention(
        8, 2, position="rope", feature_map="favor+", **o
    ),
    "LinearAttention, damped": lambda **o: nn.LinearAttention(
        8, 2, position="damped", causal=True, **o
    ),
    "PerformerBlock": lambda **o: nn.PerformerBlock(8, 2, extent=16.0, **o),
    "PerformerBlock, t5": lambda **o: nn.PerformerBlock(
        8, 2, attention={"kind": "softmax", "position": "t5"}, **o
    ),
    "CausalLM": lambda **o: nn.CausalLM(vocabulary=11, context=16, width=8, heads=2, **o),
    "CausalLM, absolute": lambda **o: nn.CausalLM(
        vocabulary=11, context=16, width=8, heads=2, attention={"position": "absolute"}, **o
    ),
    "ViT": lambda **o: nn.ViT(width=8, heads=2, **o),
    "ViT, fft": lambda **o: nn.ViT(width=8, heads=2, attention={"position": "fft"}, **o),
    "PointEncoder": lambda **o: nn.PointEncoder(width=8, heads=2, **o),
}
RUNNABLE = [name for name in MODULES if "Position" not in name]


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(4), dtype=torch.float32)


def inputs_of(name, dtype=torch.float32, batch=2):
    if name.startswith("CausalLM"):
        tokens = torch.randint(11, (batch, 9), generator=torch.Generator("cpu").manual_seed(1))
        return (tokens,)
    if name.startswith("ViT"):
        return (normal(batch, 1, 8, 8).to(dtype),)
    if name.startswith("PointEncoder"):
        types = torch.arange(5, dtype=torch.int64).expand(batch, 5)
        return types, normal(batch, 5, 3).to(dtype), torch.ones(batch, 5, dtype=torch.bool)
    return (normal(batch, 7, 8).to(dtype),)


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


@pytest.mark.parametrize("name", MODULES)
def test_the_seed_of_torch_decides(name):
    make = MODULES[name]
    torch.manual_seed(5)
    first, second = make(), make()
    torch.manual_seed(5)
    again = make()
    assert same_state(first.state_dict(), again.state_dict())
    assert not same_state(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("name", MODULES)
def test_a_given_seed_draws_nothing_from_torch(name):
    make = MODULES[name]
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


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_is_that_of_torch(name, dtype):
    make = MODULES[name]
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


@pytest.mark.parametrize("name", MODULES)
def test_dtype_and_device_are_arguments(name):
    module = MODULES[name](seed=1, device="meta", dtype=torch.float64)
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    assert {t.device.type for t in module.state_dict().values()} == {"meta"}
    module = module.to_empty(device="cpu")
    expected = MODULES[name](seed=1, dtype=torch.float64)
    module.load_state_dict(expected.state_dict())
    assert same_state(module.state_dict(), expected.state_dict())
    if name in RUNNABLE:
        inputs = inputs_of(name, torch.float64)
        assert torch.equal(module(*inputs), expected(*inputs))


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("batch", [2, 0])
def test_meta_gives_shapes(name, batch):
    with torch.device("meta"):
        module = MODULES[name]()
    assert {t.device.type for t in module.state_dict().values()} == {"meta"}
    inputs = [x.to("meta") for x in inputs_of(name, batch=batch)]
    output = module(*inputs)
    assert output.device.type == "meta"
    assert output.shape == MODULES[name]()(*inputs_of(name, batch=batch)).shape
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
    module = MODULES[name](seed=1)
    exact = module(*inputs_of(name)).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(*inputs_of(name))
    output.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())
    assert torch.allclose(output.float(), exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", [name for name in MODULES if "Position" in name])
def test_positions_are_not_rounded_by_autocast(name):
    position = MODULES[name](seed=1)
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
    module = MODULES[name]()
    if length == 0:
        with pytest.raises(RuntimeError, match=r"^\[attention\] expected tokens .*L > 0"):
            module(normal(2, 0, 8))
    else:
        assert torch.isfinite(module(normal(2, 1, 8))).all()
        assert module(normal(0, 3, 8)).shape == (0, 3, 8)


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


# Tracing and export.


class Function(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, q):
        return linear_attention(q, q, q, **self.options)


FUNCTIONS = [
    {"feature_map": "favor+", "seed": 501},
    {"feature_map": "relu", "causal": True, "seed": 502},
    {"feature_map": "elu+1"},
]


@pytest.mark.parametrize("options", FUNCTIONS)
def test_a_traced_function_draws_nothing(options):
    q, other = normal(1, 2, 6, 4), normal(1, 2, 6, 4) + 1
    traced = torch.jit.trace(Function(**options), (q,), check_trace=False)
    for x in (q, other, q):
        assert torch.equal(traced(x), Function(**options)(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNNABLE)
def test_a_traced_module_follows_its_weights(name):
    module, inputs = MODULES[name](seed=1), inputs_of(name)
    traced = torch.jit.trace(module, inputs, check_trace=False)
    for _ in range(2):
        torch.testing.assert_close(traced(*inputs), module(*inputs))
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
        torch.testing.assert_close(traced(*inputs), module(*inputs))
        for p in module.parameters():
            p.zero_()
        assert torch.equal(traced(*inputs), module(*inputs))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", RUNNABLE)
def test_export_of_a_module_is_right_or_refused(name, strict):
    """Until it is right: one line that says so, never other numbers."""
    module, inputs = MODULES[name](seed=1), inputs_of(name)
    try:
        exported = torch.export.export(module, inputs, strict=strict).module()
    except Exception as error:
        # Strictly, the compiler of torch refuses by itself, in its own words.
        expected = "should not be traced" if strict else "torch.export does not reach into C++"
        assert expected in str(error)
        return
    check_exported(exported, module, inputs)


@pytest.mark.parametrize("options", FUNCTIONS)
def test_an_exported_function_draws_nothing(options):
    q = normal(1, 2, 6, 4)
    exported = torch.export.export(Function(**options), (q,)).module()
    for x in (q, q + 1, q):
        torch.testing.assert_close(exported(x), Function(**options)(x))


def check_exported(exported, module, inputs):
    for _ in range(2):
        torch.testing.assert_close(exported(*inputs), module(*inputs))
    with torch.no_grad():
        state = {k: p + 0.1 * torch.randn_like(p) for k, p in module.named_parameters()}
        for change in (state, {k: torch.zeros_like(p) for k, p in state.items()}):
            for m in (exported, module):
                m.load_state_dict(change, strict=False)
            torch.testing.assert_close(exported(*inputs), module(*inputs))
