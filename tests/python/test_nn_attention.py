"""mnemosyne.nn.functional.linear_attention and the attention modules against dense sums."""

import pytest
import torch

from mnemosyne import _C, nn

linear_attention = nn.functional.linear_attention

B, H, L, D, M = 2, 2, 12, 4, 6

MULTIPLICATIVE = {
    "exp": lambda: nn.FourierPosition(
        H, coupling="multiplicative", num_frequencies=8, extent=24, initial_amplitude=0.8
    ),
    "square": lambda: nn.FourierPosition(
        H, coupling="multiplicative", factor="square", initial_amplitude=0.3, num_components=4,
        num_frequencies=4,
    ),
}  # fmt: skip


def draw(*sizes, seed=0, dtype=torch.float64):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tensors(dtype=torch.float64):
    return [draw(B, H, L, D, seed=seed, dtype=dtype) for seed in (1, 2, 3)]


def line(length=L):
    return torch.arange(length, dtype=torch.float64).unsqueeze(-1)


def features(feature_map, x, omega):
    if feature_map == "relu":
        return torch.relu(x @ omega.T) / len(omega) ** 0.5 + 1e-3
    if feature_map == "elu+1":
        return torch.nn.functional.elu(x) + 1
    x = x * x.size(-1) ** -0.25
    return torch.exp(x @ omega.T - x.square().sum(-1, keepdim=True) / 2)


def dense(feature_map, query, key, value, omega, factor=1.0, causal=False, mask=None):
    weights = features(feature_map, query, omega) @ features(feature_map, key, omega).mT * factor
    if causal:
        weights = weights.tril()
    if mask is not None:
        weights = weights * mask[:, None, None, :]
    return weights @ value / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("feature_map", ["favor+", "relu", "elu+1"])
@pytest.mark.parametrize("causal", [False, True])
def test_equals_dense_sums(feature_map, causal):
    query, key, value = tensors()
    omega = None if feature_map == "elu+1" else draw(M, D)
    mask = torch.ones(B, L, dtype=torch.bool)
    mask[1, 7:] = False
    given = {"feature_map": feature_map, "omega": omega, "causal": causal, "key_padding_mask": mask}
    expected = dense(feature_map, query, key, value, omega, causal=causal, mask=mask)
    torch.testing.assert_close(linear_attention(query, key, value, **given), expected)


def test_draws_are_those_of_the_seed():
    query, key, value = tensors()
    outputs = [linear_attention(query, key, value, num_features=M, seed=s) for s in (0, 0, 1)]
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    omega = _C.draw_omega("favor+", M, D, 0, torch.device("cpu"), torch.float64)
    torch.testing.assert_close(outputs[0], dense("favor+", query, key, value, omega))


@pytest.mark.parametrize("name", MULTIPLICATIVE)
@pytest.mark.parametrize("causal", [False, True])
def test_a_multiplicative_position_multiplies_the_weights(name, causal):
    position = MULTIPLICATIVE[name]().double()
    query, key, value = tensors()
    omega = draw(M, D)
    given = {"feature_map": "relu", "omega": omega, "causal": causal}
    phi, psi = position.features(line())
    expected = dense("relu", query, key, value, omega, phi @ psi.mT, causal)
    output = linear_attention(query, key, value, position=position, **given)
    torch.testing.assert_close(output, expected)
    from_features = linear_attention(query, key, value, position=(phi, psi), **given)
    assert torch.equal(output, from_features)


def test_positions_may_differ_between_examples():
    position = MULTIPLICATIVE["square"]().double()
    query, key, value = tensors()
    omega = draw(M, D)
    mask = torch.ones(B, L, dtype=torch.bool)
    mask[0, 5:] = False
    positions = draw(B, L, 1, seed=7) * 4
    phi, psi = position.features(positions)
    expected = dense("favor+", query, key, value, omega, phi @ psi.mT, mask=mask)
    given = {"omega": omega, "position": position, "positions": positions, "key_padding_mask": mask}
    torch.testing.assert_close(linear_attention(query, key, value, **given), expected)


def test_a_concatenated_position_adds_to_the_logits():
    position = nn.FourierPosition(H, initial_amplitude=0.5, num_frequencies=8).double()
    query, key, value = tensors()
    phi, psi = position.features(line())
    wide = D + phi.size(-1)
    omega = draw(M, wide)

    def join(x, feature):
        return torch.cat([x * D**-0.25, feature.expand(B, -1, -1, -1)], -1) * wide**0.25

    expected = dense("favor+", join(query, phi), join(key, psi), value, omega)
    output = linear_attention(query, key, value, omega=omega, position=position)
    torch.testing.assert_close(output, expected)


def test_a_damped_position_is_exact_at_any_length():
    length = 300
    position = nn.DampedPosition(H, initial_weight=2.0)
    query, key, value = (draw(1, H, length, D, seed=s, dtype=torch.float32) for s in (1, 2, 3))
    omega = draw(M, D, dtype=torch.float32)
    z = (line(length) - line(length).mT).unsqueeze(-1)
    expected = dense("relu", query, key, value, omega, position.factor(z), causal=True)
    given = {"feature_map": "relu", "omega": omega, "causal": True}
    output = linear_attention(query, key, value, position=position, **given)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    features = position.features(line(length))
    assert torch.equal(linear_attention(query, key, value, position=features, **given), output)


@pytest.mark.parametrize("position", [None, "exp", "damped", "concatenate"])
def test_decoding_is_the_forward_pass(position):
    position = {
        None: None,
        "damped": nn.DampedPosition(H, initial_weight=2.0),
        "concatenate": nn.FourierPosition(H, initial_amplitude=0.5, num_frequencies=8),
        **{name: make() for name, make in MULTIPLICATIVE.items()},
    }[position]
    content = tensors(torch.float32)
    given = {"causal": True, "position": position, "feature_map": "relu", "return_state": True}
    whole, last = linear_attention(*content, **given)
    state, rows = None, []
    for first, end in [(0, 1), (1, 2), (2, 7), (7, L)]:
        part = (x[:, :, first:end] for x in content)
        row, state = linear_attention(*part, state=state, **given)
        rows.append(row)
    torch.testing.assert_close(torch.cat(rows, 2), whole, rtol=1e-4, atol=1e-5)
    assert state.length == last.length == L and state.sums.shape == last.sums.shape


@pytest.mark.parametrize("position", ["exp", "damped", "concatenate"])
def test_gradients_reach_content_and_position(position):
    position = {
        "damped": nn.DampedPosition(H, num_components=2),
        "concatenate": nn.FourierPosition(
            H, initial_amplitude=0.5, num_components=2, num_frequencies=4
        ),
        "exp": MULTIPLICATIVE["exp"](),
    }[position].double()
    content = [x[:, :, :5].clone().requires_grad_() for x in tensors()]
    names, start = zip(*position.named_parameters(), strict=True)
    start = [p.detach().clone().requires_grad_() for p in start]

    class Attend(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.position = position

        def forward(self, *content):
            return linear_attention(
                *content, position=self.position, causal=True, feature_map="favor+", num_features=3
            )

    def function(*values):
        given = {f"position.{name}": v for name, v in zip(names, values[3:], strict=True)}
        return torch.func.functional_call(Attend(), given, values[:3])

    assert torch.autograd.gradcheck(function, [*content, *start], fast_mode=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_map": "softmax"}, "expected a feature_map of .*favor.*, got .softmax"),
        ({"feature_map": "elu+1", "num_features": 8}, "expected None for elu.1, got 8"),
        ({"feature_map": "hyp+", "num_features": 7}, "expected an even positive number"),
        ({"position": nn.DampedPosition(H)}, "expected causal attention for factors that fade"),
        ({"position": nn.FourierPosition(H, 2)}, r"expected positions \[L, 2\], got none"),
        ({"position": nn.FourierPosition(H + 1)}, "expand|expected"),
        ({"key_padding_mask": torch.ones(B, L + 1, dtype=torch.bool)}, "key_padding_mask of shape"),
        ({"omega": draw(M, D + 1)}, r"expected omega of shape \[W,4\]"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        linear_attention(*tensors(), **change)


def test_shapes_are_named():
    query, key, value = tensors()
    with pytest.raises(RuntimeError, match=r"expected query \[B,H,L,D\].*got \[2, 12, 4\]"):
        linear_attention(query[:, 0], key, value)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_that_is_not_continued_saves_no_state(causal):
    if causal:
        position = nn.DampedPosition(H)
    else:
        position = MULTIPLICATIVE["exp"]()
    attention = nn.LinearAttention(
        32, H, causal=causal, feature_map="relu", num_features=64, position=position
    )
    saved = []

    def pack(x):
        saved.append(x.numel())
        return x

    # 16 tokens against 64 features times at least 13 of the position times 16 of a value.
    x = torch.randn(1, 16, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = attention(x)
    assert saved and max(saved) < 64 * 13 * 16
    output.sum().backward()
    assert x.grad.isfinite().all()
