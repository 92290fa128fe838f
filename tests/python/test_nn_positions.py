"""Positions as inputs: their gradients, their extent, and what padding hides of them."""

import copy
import json
import pickle

import pytest
import torch

import mnemosyne
from mnemosyne.nn import functional as F

SMALL = {"num_frequencies": 8, "num_components": 2, "max_width": 3.0, "extent": 8.0}
PERIODIC = {"coupling": "multiplicative", "initial_amplitude": 1.0, **SMALL}


def double(module):
    return module.to(torch.float64)


def molecule(count=4, atoms=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    types = torch.randint(4, (count, atoms), generator=generator)
    places = torch.randn(count, atoms, 3, generator=generator, dtype=torch.float64)
    return types, places * 1.5


def springs(places):
    """Forces of springs of length 1 between all atoms."""
    places = places.detach().requires_grad_()
    offsets = places[:, :, None] - places[:, None]
    apart = (offsets.square().sum(-1) + torch.eye(places.size(1))).sqrt() - 1
    energy = apart.square().sum((1, 2)) / 40
    return -torch.autograd.grad(energy.sum(), places)[0]


def forces(model, types, places, **options):
    places = places.detach().requires_grad_()
    energy = model(types, places).squeeze(-1)
    return energy, -torch.autograd.grad(energy.sum(), places, **options)[0]


@pytest.fixture(scope="module")
def trained():
    """An encoder that learned forces, by second derivatives; and its losses, 1 for no forces.

    The rate falls to zero: at a constant one the last losses hang on the last bits of the first.
    """
    steps, rate = 60, 5e-3
    model = mnemosyne.nn.PointEncoder(num_types=4, width=16, heads=2, layers=2, seed=2)
    types, places = molecule()
    places = places.float()
    force = springs(places)
    adam, losses = torch.optim.Adam(model.parameters(), lr=rate), []
    fall = torch.optim.lr_scheduler.LinearLR(adam, 1, 0, total_iters=steps)
    for _ in range(steps):
        pull = forces(model, types, places, create_graph=True)[1]
        loss = (pull - force).square().mean() / force.square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        fall.step()
        losses.append(loss.item())
    return model, losses


def test_training_on_forces_lowers_their_loss(trained):
    losses = trained[1]
    assert sum(losses[-10:]) / 10 < 0.5 * losses[0]


def test_forces_of_a_trained_encoder_are_differences_of_its_energy(trained):
    types, places = molecule(count=2, seed=1)
    model = double(copy.deepcopy(trained[0]))
    energy, force = forces(model, types, places)
    assert force.abs().max() > 1e-2
    step = 1e-5
    for row, atom, axis in [(0, 0, 0), (0, 3, 2), (1, 5, 1), (1, 2, 0)]:
        ends = []
        for sign in (1, -1):
            moved = places.clone()
            moved[row, atom, axis] += sign * step
            ends.append(model(types, moved)[row].item())
        difference = -(ends[0] - ends[1]) / (2 * step)
        assert force[row, atom, axis].item() == pytest.approx(difference, rel=1e-5, abs=1e-7)
    # Moving all atoms changes nothing, and float32 says the same.
    torch.testing.assert_close(
        force.sum(1), torch.zeros(2, 3, dtype=torch.float64), atol=1e-9, rtol=0
    )
    rough = forces(trained[0], types, places.float())[1]
    torch.testing.assert_close(rough.double(), force, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "attention",
    [
        {},
        {"exact_length": 16},
        {"coupling": "concatenate", "feature_map": "favor+"},
        {"factor": "square"},
        {"position": "rope"},
        {"kind": "softmax"},
        {"kind": "softmax", "position": "alibi"},
    ],
)
def test_a_loss_of_forces_has_the_gradients_of_float64(attention):
    types, places = molecule(count=2)

    def gradients(model, dtype):
        force = forces(model.to(dtype), types, places.to(dtype), create_graph=True)[1]
        parameters = dict(model.named_parameters())
        found = torch.autograd.grad(force.square().sum(), parameters.values(), allow_unused=True)
        return dict(zip(parameters, found, strict=True))

    options = {"num_types": 4, "width": 16, "heads": 2, "layers": 1, "attention": attention}
    model = mnemosyne.nn.PointEncoder(**options)
    rough = gradients(model, torch.float32)
    fine = gradients(model, torch.float64)
    size = max(float(g.abs().max()) for g in fine.values() if g is not None)
    assert size > 1e-4
    for name, expected in fine.items():
        if expected is None:
            assert rough[name] is None or not rough[name].any(), name
        else:
            torch.testing.assert_close(
                rough[name].double(), expected, rtol=2e-3, atol=2e-4 * size, msg=name
            )


KINDS = [
    {},
    {"phase": True, "position_dim": 2},
    {"rotation_invariant": True, "position_dim": 3},
    {"kind": "shift_invariant", "kernel": "laplace"},
    {"kind": "shift_invariant", "kernel": "matern", "matern_nu": 2.5},
    {"kind": "local", "window": "tent"},
    {"kind": "local", "position_dim": 2},
    {"kind": "neural"},
]


@pytest.mark.parametrize("options", KINDS)
def test_positions_are_differentiable_twice(options):
    torch.manual_seed(0)
    z = (torch.rand(4, options.get("position_dim", 1), dtype=torch.float64) * 3).requires_grad_()
    for coupling in ("concatenate", "multiplicative"):
        call = {**SMALL, "initial_amplitude": 0.7, "coupling": coupling, **options}
        position = double(mnemosyne.nn.FourierPosition(2, **call))
        for function in (position.mask, position.factor, position.features):
            assert torch.autograd.gradcheck(function, (z,))
            assert torch.autograd.gradgradcheck(function, (z,))


def test_damped_positions_are_differentiable_twice():
    position = double(mnemosyne.nn.DampedPosition(2))
    z = torch.tensor([[0.5], [1.2], [3.0]], dtype=torch.float64, requires_grad=True)
    for function in (position.mask, position.factor, lambda x: position.features(x)[:2]):
        assert torch.autograd.gradcheck(function, (z,))
        assert torch.autograd.gradgradcheck(function, (z,))


@pytest.mark.parametrize("position", ["flt", "damped", "rope"])
def test_attention_and_function_are_differentiable_in_positions(position):
    torch.manual_seed(0)
    attention = double(mnemosyne.nn.LinearAttention(8, 2, causal=True, position=position))
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    z = torch.rand(2, 5, 1, dtype=torch.float64).cumsum(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: attention(x, r), (z,))
    assert torch.autograd.gradgradcheck(lambda r: attention(x, r), (z,))
    if position == "rope":
        return
    q = torch.randn(2, 2, 5, 4, dtype=torch.float64)

    def call(r):
        return F.linear_attention(
            q, q, q, feature_map="elu+1", causal=True, position=attention.position, positions=r
        )

    assert torch.autograd.gradcheck(call, (z,))
    assert torch.autograd.gradgradcheck(call, (z,))


def test_second_derivatives_in_float32_are_those_of_float64():
    def penalty(dtype):
        torch.manual_seed(0)
        attention = mnemosyne.nn.LinearAttention(8, 2).to(dtype)
        x = torch.randn(1, 5, 8, dtype=torch.float64).to(dtype).requires_grad_()
        slope = torch.autograd.grad(attention(x).square().sum(), x, create_graph=True)[0]
        slope.square().sum().backward()
        return x.grad.double(), attention.query.weight.grad.double()

    for rough, fine in zip(penalty(torch.float32), penalty(torch.float64), strict=True):
        assert fine.abs().max() > 0
        torch.testing.assert_close(rough, fine, rtol=1e-3, atol=1e-5)


BEYOND = r"offsets of at most 8, the extent, got 9"


def test_offsets_beyond_the_extent_are_refused():
    position = mnemosyne.nn.FourierPosition(1, **PERIODIC)
    line = torch.arange(10.0)[:, None]
    position.features(line[:9] + 1e4)
    with pytest.raises(RuntimeError, match=BEYOND) as error:
        position.features(line)
    assert "\n" not in str(error.value).splitlines()[0]
    attention = mnemosyne.nn.LinearAttention(8, 1, causal=True, position=position)
    x = torch.randn(2, 10, 8)
    attention(x[:, :9])
    for positions in (None, line, line.expand(2, -1, -1)):
        with pytest.raises(RuntimeError, match=BEYOND):
            attention(x, positions)
    mask = (torch.arange(10) < 9).expand(2, -1)
    for positions in (None, line):
        assert attention(x, positions, mask).isfinite().all()
    q = torch.randn(2, 1, 10, 8)
    call = {"feature_map": "relu", "position": position}
    with pytest.raises(RuntimeError, match=BEYOND):
        F.linear_attention(q, q, q, **call)
    F.linear_attention(q, q, q, key_padding_mask=mask, **call)
    far = {"positions": line[:2] * 9, "key_positions": line[:2] * 0 + 4}
    F.linear_attention(q[:, :, :2], q[:, :, :2], q[:, :, :2], **far, **call)  # 4 and 5 apart
    far["key_positions"] = line[:2]
    with pytest.raises(RuntimeError, match=BEYOND):
        F.linear_attention(q[:, :, :2], q[:, :, :2], q[:, :, :2], **far, **call)


def test_decoding_beyond_the_extent_is_refused():
    position = mnemosyne.nn.FourierPosition(1, **PERIODIC)
    attention = mnemosyne.nn.LinearAttention(8, 1, causal=True, position=position)
    x, state = torch.randn(1, 10, 8), None
    for t in range(9):
        _, state = attention.step(x[:, t], state)
    with pytest.raises(RuntimeError, match=BEYOND):
        attention.step(x[:, 9], state)
    q = torch.randn(1, 1, 10, 8)
    given, state = {"feature_map": "relu", "causal": True, "position": position}, None
    for t in range(9):
        token = (q[:, :, t : t + 1],) * 3
        _, state = F.linear_attention(*token, **given, state=state, return_state=True)
    with pytest.raises(RuntimeError, match=BEYOND):
        F.linear_attention(*(q[:, :, 9:],) * 3, **given, state=state)
    # Positions of one's own, which go on where they like.
    _, state = F.linear_attention(
        *(q[:, :, :1],) * 3, **given, positions=torch.tensor([[100.0]]), return_state=True
    )
    F.linear_attention(*(q[:, :, :1],) * 3, **given, positions=torch.tensor([[92.0]]), state=state)
    with pytest.raises(RuntimeError, match=BEYOND):
        F.linear_attention(
            *(q[:, :, :1],) * 3, **given, positions=torch.tensor([[109.0]]), state=state
        )


def test_an_extent_of_none_grows_with_the_input():
    options = {**PERIODIC, "num_frequencies": 2000, "extent": None}
    position = double(mnemosyne.nn.FourierPosition(2, **options))
    for length in (700, 3, 1):
        z = torch.arange(float(length), dtype=torch.float64)[:, None]
        phi, psi = position.features(z)
        torch.testing.assert_close(phi @ psi.mT, position.factor(z[:, None] - z))
    attention = mnemosyne.nn.LinearAttention(8, 2, causal=True, position=position)
    x = torch.randn(1, 40, 8, dtype=torch.float64)
    double(attention)(x)
    with pytest.raises(ValueError, match="expected an extent for segments"):
        attention.step(x[:, 0])
    q = torch.randn(1, 2, 4, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match="expected an extent for segments"):
        F.linear_attention(q, q, q, causal=True, position=position, return_state=True)
    # Kept by copies, files and options.
    metadata = mnemosyne.nn.position_metadata(attention)
    assert json.loads(metadata["position.position"])["extent"] is None
    for twin in (copy.deepcopy(position), pickle.loads(pickle.dumps(position))):
        assert twin.options["extent"] is None
        torch.testing.assert_close(twin.features(z)[0], position.features(z)[0], rtol=0, atol=0)


def test_flt_works_by_name_in_every_dimension():
    for dim in (1, 2, 3):
        attention = mnemosyne.nn.LinearAttention(16, 2, position="flt", position_dim=dim)
        y = attention(torch.randn(2, 6, 16), torch.rand(2, 6, dim) * 6)
        assert y.isfinite().all()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_local_masks_work_without_further_options(dim):
    position = mnemosyne.nn.FourierPosition(2, dim, kind="local", initial_amplitude=1.0)
    phi, _ = position.features(torch.rand(5, dim))
    assert phi.shape == (2, 5, 64)
    torch.testing.assert_close(
        position.mask(torch.zeros(1, dim)), torch.ones(2, 1), atol=1e-3, rtol=0
    )
    assert position.mask(torch.full((1, dim), 200.0)).abs().max() < 1e-6


def position_ids(mask):
    """As transformers makes them from an attention mask."""
    return (mask.long().cumsum(-1) - 1).masked_fill(~mask, 1)[..., None]


MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()


@pytest.mark.parametrize("mask", [MASK, MASK.flip(1)])
def test_padding_does_not_count_for_damped(mask):
    torch.manual_seed(0)
    attention = double(mnemosyne.nn.LinearAttention(8, 2, causal=True, position="damped"))
    x, ids = torch.randn(2, 5, 8, dtype=torch.float64), position_ids(mask)
    y = attention(x, ids, mask)
    alone = attention(x[:1, mask[0]])
    torch.testing.assert_close(y[:1, mask[0]], alone)
    torch.testing.assert_close(y[1:], attention(x[1:]))
    # The same in segments, and in the function with a state.
    state, parts = None, []
    for first in range(0, 5, 2):
        span = slice(first, first + 2)
        part, state = attention.forward_segment(x[:, span], state, ids[:, span], mask[:, span])
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1)[mask], y[mask])
    q = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    given = {"feature_map": "relu", "causal": True, "position": attention.position, "seed": 1}
    expected = F.linear_attention(*(q[:1, :, mask[0]],) * 3, **given)
    full = F.linear_attention(q, q, q, positions=ids, key_padding_mask=mask, **given)
    torch.testing.assert_close(full[:1, :, mask[0]], expected)
    features = attention.position.features(ids.double())
    given["position"] = features
    same = F.linear_attention(q, q, q, positions=ids, key_padding_mask=mask, **given)
    torch.testing.assert_close(same[:1, :, mask[0]], expected)
    given["position"], state, parts = attention.position, None, []
    for first in range(0, 5, 2):
        span = slice(first, first + 2)
        part, state = F.linear_attention(
            *(q[:, :, span],) * 3, positions=ids[:, span], key_padding_mask=mask[:, span],
            state=state, return_state=True, **given,
        )  # fmt: skip
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 2)[:1, :, mask[0]], expected)


def test_positions_that_go_down_are_refused():
    attention = mnemosyne.nn.LinearAttention(8, 2, causal=True, position="damped")
    for length in (5, 400):
        line = torch.arange(float(length))[:, None]
        line[3] = 0.5
        with pytest.raises(RuntimeError, match="a step back of 1.5"):
            attention(torch.randn(1, length, 8), line)
    q = torch.randn(1, 2, 5, 4)
    given = {"causal": True, "position": attention.position}
    with pytest.raises(RuntimeError, match="a step back of 1.5"):
        F.linear_attention(q, q, q, positions=line[:5], **given)
    with pytest.raises(ValueError, match="no key_positions"):
        F.linear_attention(q, q, q, key_positions=torch.arange(5.0)[:, None], **given)
