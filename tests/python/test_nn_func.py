"""torch.func over attention, blocks, models and the function: the numbers of plain calls."""

import pytest
import torch
from nn_examples import FACTORIES, inputs_of, normal
from program_cases import CASES, CLOSE

from mnemosyne import nn


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def functional(module):
    """The module as a function of its parameters."""
    buffers = dict(module.named_buffers())

    def call(parameters, *inputs):
        return torch.func.functional_call(module, (parameters, buffers), inputs)

    return call


def parameters_of(module):
    return {name: p.detach() for name, p in module.named_parameters()}


@pytest.mark.parametrize("name", CASES)
def test_func_grad(name):
    """In float64: what is differentiable again is computed in another order than what is not."""
    make, inputs = CASES[name]
    module, inputs = make().double(), [x.double() if x.is_floating_point() else x for x in inputs]
    call, parameters = functional(module), parameters_of(module)
    places = {i: x for i, x in enumerate(inputs) if x.is_floating_point()}

    def loss(parameters, places):
        return call(parameters, *(places.get(i, x) for i, x in enumerate(inputs))).square().sum()

    found = torch.func.grad(loss, argnums=(0, 1))(parameters, places)
    sources = [{k: x.clone().requires_grad_() for k, x in d.items()} for d in (parameters, places)]
    leaves = [x for source in sources for x in source.values()]
    expected = torch.autograd.grad(loss(*sources), leaves, allow_unused=True)
    for g, x, e in zip((g for d in found for g in d.values()), leaves, expected, strict=True):
        torch.testing.assert_close(g, torch.zeros_like(x) if e is None else e)


@pytest.mark.parametrize("name", CASES)
def test_vmap_over_inputs(name):
    make, inputs = CASES[name]
    module = make()
    several = [
        torch.stack([x, x.flip(-1) if x.dim() > 2 and i == 0 else x]) for i, x in enumerate(inputs)
    ]
    expected = torch.stack([module(*example) for example in zip(*several, strict=True)])
    torch.testing.assert_close(torch.func.vmap(module)(*several), expected, **CLOSE)


@pytest.mark.parametrize(
    "name", [name for name, (make, _) in CASES.items() if parameters_of(make())]
)
def test_vmap_over_parameters(name):
    make, inputs = CASES[name]
    modules = [make() for _ in range(3)]
    with torch.no_grad():
        for scale, module in zip((1.0, 0.9, 1.1), modules, strict=True):
            for p in module.parameters():
                p.mul_(scale)
    expected = torch.stack([module(*inputs) for module in modules])
    parameters, buffers = torch.func.stack_module_state(modules)

    def call(parameters, buffers):
        return torch.func.functional_call(modules[0], (parameters, buffers), inputs)

    torch.testing.assert_close(torch.func.vmap(call)(parameters, buffers), expected, **CLOSE)


@pytest.mark.parametrize(
    "name",
    ["LinearAttention, flt", "LinearAttention, damped", "LinearAttention, rope", "CausalLM", "ViT",
     "PointEncoder", "PerformerBlock", "function, flt"],
)  # fmt: skip
def test_gradients_of_each_example(name):
    make, inputs = CASES[name]
    module = make()
    call, parameters = functional(module), parameters_of(module)

    def loss(parameters, *example):
        return call(parameters, *(x.unsqueeze(0) for x in example)).square().sum()

    rest = (None,) + (0,) * len(inputs)
    found = torch.func.vmap(torch.func.grad(loss), in_dims=rest)(parameters, *inputs)
    for i in range(2):
        one = torch.func.grad(loss)(parameters, *(x[i] for x in inputs))
        for key in one:
            torch.testing.assert_close(found[key][i], one[key], **CLOSE)


def test_second_derivatives_of_positions():
    """A force is a derivative, and a loss of forces needs another."""
    module = FACTORIES["PointEncoder"](seed=1).double()
    types, positions, padding = inputs_of("PointEncoder", torch.float64)

    def energy(positions):
        return module(types, positions, padding).sum()

    forces = torch.func.grad(energy)
    found = torch.func.grad(lambda p: forces(p).square().sum())(positions)
    place = positions.clone().requires_grad_()
    force = torch.autograd.grad(energy(place), place, create_graph=True)[0]
    expected = torch.autograd.grad(force.square().sum(), place)[0]
    torch.testing.assert_close(found, expected)
    assert expected.abs().max() > 0


@pytest.mark.parametrize("position", ["flt", "damped"])
def test_vmap_looks_at_all_examples(position):
    module = nn.LinearAttention(8, 2, position=position, causal=True, seed=1)
    x, line = normal(2, 1, 7, 8), torch.arange(7.0).view(1, 7, 1).expand(2, 1, 7, 1)
    torch.func.vmap(module)(x, line)
    wrong = torch.stack([line[0], 100 * line[1] if position == "flt" else -line[1]])
    with pytest.raises(RuntimeError, match="expected"):
        torch.func.vmap(module)(x, wrong)
