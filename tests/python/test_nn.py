"""mnemosyne.nn: modules of C++ with the parameters of Python."""

import inspect

import pytest
import torch

from mnemosyne import _C, nn

POSITIONS = {
    "mixture": lambda: nn.FourierPosition(2, initial_amplitude=0.8, phase=True, seed=3),
    "matern": lambda: nn.FourierPosition(
        2, kind="shift_invariant", kernel="matern", initial_amplitude=0.8
    ),
    "window": lambda: nn.FourierPosition(
        2, kind="local", num_components=2, max_width=8, extent=16, initial_amplitude=0.5
    ),
    "neural": lambda: nn.FourierPosition(2, kind="neural", initial_amplitude=0.5),
    "factor": lambda: nn.FourierPosition(
        2, coupling="multiplicative", num_frequencies=8, extent=32, initial_amplitude=0.8
    ),
    "square": lambda: nn.FourierPosition(
        2, coupling="multiplicative", factor="square", initial_amplitude=0.3, num_components=4,
        num_frequencies=4,
    ),
    "damped": lambda: nn.DampedPosition(2, initial_weight=0.5),
}  # fmt: skip


def line(length, dtype=torch.float32):
    return torch.arange(length, dtype=dtype).unsqueeze(-1)


def attention(position="damped", **options):
    defaults = {"causal": True, "num_features": 16, "seed": 1}
    return nn.LinearAttention(8, 2, position=position, **{**defaults, **options})


@pytest.fixture(params=POSITIONS)
def position(request):
    return POSITIONS[request.param]()


def test_defaults_are_those_of_the_library():
    for module in (nn.FourierPosition(3, seed=5), nn.DampedPosition(3, seed=5)):
        library = _C.make_module(type(module).__name__, {"num_heads": 3, "seed": 5}).arguments[0]
        assert module.options == library
        given = set(inspect.signature(type(module)).parameters) - {"device", "dtype"}
        assert given == set(library)


def test_mixture_equals_its_formula():
    position = POSITIONS["mixture"]()
    z = torch.linspace(-9, 9, 19, dtype=torch.float64)
    state = position.state_dict()
    amplitude, log_sigma, centre, phase = (
        state[f"spectrum.{name}"].double().unsqueeze(-1)
        for name in ("amplitude", "log_sigma", "centre", "phase")
    )
    envelope = torch.exp(-2 * torch.pi**2 * log_sigma.exp() ** 2 * z**2)
    f = (amplitude * envelope * torch.cos(2 * torch.pi * centre[:, :, 0] * z + phase)).sum(1)
    torch.testing.assert_close(position.mask(z.unsqueeze(-1)).double(), f, rtol=1e-4, atol=1e-5)


def test_damped_equals_its_formula():
    position = POSITIONS["damped"]()
    z = torch.arange(20.0)
    p = {name: tensor.unsqueeze(-1) for name, tensor in position.state_dict().items()}
    fading = torch.exp(-p["log_rate"].exp() * z)
    dips = p["dip"].exp() / (1 + p["dip"].exp().sum(1, keepdim=True))
    wave = torch.cos(2 * torch.pi * p["frequency"] * z + p["phase"])
    peaks = p["log_weight"].exp() * fading * (1 + p["modulation"].tanh() * wave)
    h = p["log_constant"].exp() * (1 - (dips * fading).sum(1)) + peaks.sum(1)
    torch.testing.assert_close(position.factor(z.unsqueeze(-1)), h)
    torch.testing.assert_close(position.mask(z.unsqueeze(-1)), h.log())


def test_features_multiply_to_the_sum_of_waves():
    position = nn.FourierPosition(2, position_dim=2, initial_amplitude=0.8, num_frequencies=16)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)) * 3
    phi, psi = position.features(x)
    xi, weight = position.waves()
    angle = torch.einsum("hrd,lmd->hrlm", xi.double(), (x[:, None] - x[None]).double())
    f = (weight[:, :, None, None] * torch.cos(2 * torch.pi * angle)).sum(1)
    torch.testing.assert_close(phi @ psi.mT, f.float(), rtol=1e-4, atol=1e-5)


def test_a_damped_factor_is_the_product_of_faded_features():
    position = POSITIONS["damped"]()
    x = line(12)
    phi, psi, decay = position.features(x)
    offsets = x - x.mT
    fading = torch.exp(-decay[:, None, None] * offsets.clamp_min(0)[None, :, :, None])
    h = torch.einsum("hln,hsn,hlsn->hls", phi, psi, fading).tril()
    torch.testing.assert_close(h, position.factor(offsets.unsqueeze(-1)).tril())


def test_parameters_are_parameters(position):
    names = [name for name, _ in position.named_parameters()]
    assert names and all(type(p) is torch.nn.Parameter for p in position.parameters())
    assert [*names, *dict(position.named_buffers())] == position._names


def test_gradients_are_right_in_every_parameter(position):
    position.double()
    names, start = zip(*position.named_parameters(), strict=True)
    generator = torch.Generator().manual_seed(0)
    start = [
        (p + 0.05 * torch.randn(p.shape, generator=generator)).detach().requires_grad_()
        for p in start
    ]
    x = line(4, torch.float64)

    def results(*values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(
            Both(position, x), {f"m.{k}": v for k, v in given.items()}
        )

    assert torch.autograd.gradcheck(
        lambda *v: results(
            *v,
        ),
        start,
        fast_mode=True,
    )


class Both(torch.nn.Module):
    """Mask at some offsets and features at the same positions."""

    def __init__(self, module, x):
        super().__init__()
        self.m, self.x = module, x

    def forward(self, _=None):
        phi, psi, *_ = self.m.features(self.x)
        return self.m.mask(self.x), phi @ psi.mT


def test_second_derivatives_go_through():
    position = nn.FourierPosition(1, initial_amplitude=0.5, num_components=2).double()
    z = line(5, torch.float64)
    (first,) = torch.autograd.grad(
        position.mask(z).sum(), position.spectrum.log_sigma, create_graph=True
    )
    first.sum().backward()
    scale = position.spectrum.log_sigma.detach().clone().requires_grad_()

    def value(log_sigma):
        given = {"spectrum.log_sigma": log_sigma}
        call = MaskOf(position)
        return torch.func.functional_call(call, {f"m.{k}": v for k, v in given.items()}, (z,)).sum()

    hessian = torch.autograd.functional.hessian(value, scale)
    torch.testing.assert_close(
        position.spectrum.log_sigma.grad.flatten(), hessian.sum((0, 1)).flatten()
    )


class MaskOf(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.m = module

    def forward(self, z):
        return self.m.mask(z)
