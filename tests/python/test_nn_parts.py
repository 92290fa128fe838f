"""Parts of modules that users hook, wrap and replace, as on any module of torch."""

import copy

import pytest
import torch
from nn_examples import MODULES, SIZE, normal, text
from torch.nn.utils import parametrizations, parametrize, prune

from mnemosyne import _C, nn


def perturb(module):
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module


def pairs(core, module):
    """Every parameter of the C++ module with that of Python."""
    for name, tensor in core.parameters():
        yield tensor, getattr(module, name)
    for name, child in core.children():
        yield from pairs(child, getattr(module, name))


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_those_of_the_library(name):
    make, inputs = MODULES[name]
    module = perturb(make())
    core = _C.make_module(module._kind, *module._arguments)
    with torch.no_grad():
        for theirs, ours in pairs(core, module):
            theirs.copy_(ours)
    expected = _C.reference_forward(core, list(inputs()), [None] * 6)
    output = module(*inputs())
    assert torch.equal(output, expected)
    expected.square().sum().backward()
    output.square().sum().backward()
    for theirs, ours in pairs(core, module):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("name", MODULES)
def test_initial_values_and_names_are_those_of_the_library(name):
    module = MODULES[name][0]()
    core = _C.make_module(module._kind, *module._arguments)
    assert core.arguments == module._arguments
    for theirs, ours in pairs(core, module):
        assert torch.equal(theirs, ours)


def test_hooks_see_every_layer():
    module, calls = MODULES["language, damped"][0](), []
    for path, part in module.named_modules():
        part.register_forward_hook(lambda _, inputs, output, path=path: calls.append(path))
    module(text())
    layers = ["query", "key", "value", "output"]
    of_block = ["norm1", *(f"attention.{name}" for name in layers), "attention"]
    of_block += ["norm2", "up", "down"]
    expected = []
    for index in range(2):
        expected += [f"block{index}.{name}" for name in of_block] + [f"block{index}"]
    assert calls == [*expected, "norm", "head", ""]


def test_hooks_change_what_they_hook():
    module, x = MODULES["attention"][0](), normal(2, 7, 16)
    module.value.register_forward_hook(lambda _, inputs, output: output * 0)
    assert torch.equal(module(x), module.output.bias.expand(2, 7, 16))
    seen = []
    module.query.register_full_backward_hook(lambda _, before, after: seen.append(after[0].shape))
    module(x).sum().backward()
    assert seen == [torch.Size([2, 7, 16])]


def pruned(part, name):
    prune.l1_unstructured(part, name, amount=0.5)
    mask = getattr(part, f"{name}_mask").clone()
    return f"{name}_orig", lambda: getattr(part, f"{name}_orig") * mask


def old_weight_norm(part, name):
    torch.nn.utils.weight_norm(part, name)
    return f"{name}_v", lambda: torch._weight_norm(part.weight_v, part.weight_g)


def old_spectral_norm(part, name):
    torch.nn.utils.spectral_norm(part, name)
    part.eval()
    size = lambda: part.weight_u @ part.weight_orig @ part.weight_v  # noqa: E731
    return f"{name}_orig", lambda: part.weight_orig / size()


def new_weight_norm(part, name):
    parametrizations.weight_norm(part, name)
    return "parametrizations.weight.original1", lambda: part.weight


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (pruned, "query"),
        (pruned, "position"),
        (old_weight_norm, "query"),
        (old_spectral_norm, "query"),
        (new_weight_norm, "query"),
    ],
)
def test_reparametrised_weights_train(method, path):
    """Two steps, and the output follows what the weight is made of."""
    module, x = nn.LinearAttention(16, 2, causal=True, position="damped", seed=1), normal(2, 7, 16)
    expected = copy.deepcopy(module)
    part, name = module.get_submodule(path), "weight" if path == "query" else "log_weight"
    original, weight = method(part, name)
    for _ in range(2):
        module.zero_grad()
        output = module(x)
        output.square().sum().backward()
        with torch.no_grad():
            for key, p in expected.named_parameters():
                p.copy_(weight() if key == f"{path}.{name}" else module.get_parameter(key))
            torch.testing.assert_close(output, expected(x))
            for p in module.parameters():
                assert p.grad is not None
                p.sub_(0.05 * p.grad)
    before = module(x).detach()
    with torch.no_grad():
        source = part.get_parameter(original)
        source.add_(normal(*source.shape))
    assert not torch.equal(module(x), before)


def test_pruning_of_everything_reaches_everything():
    module, tokens = MODULES["language, damped"][0](), text()
    parameters = [
        (part, name)
        for part in module.modules()
        for name, p in part.named_parameters(recurse=False)
        if p.dim() > 1
    ]
    prune.global_unstructured(parameters, pruning_method=prune.L1Unstructured, amount=0.3)
    masked = module(tokens)
    with torch.no_grad():  # what is pruned does not count
        for part, name in parameters:
            original, mask = getattr(part, f"{name}_orig"), getattr(part, f"{name}_mask")
            original[mask == 0] = 7.0
    assert torch.equal(module(tokens), masked)
    for part, name in parameters:
        prune.remove(part, name)
    torch.testing.assert_close(module(tokens), masked)


def test_a_parametrised_position_is_what_it_gives():
    class Frozen(torch.nn.Module):
        def forward(self, value):
            return torch.zeros_like(value)

    module, x = nn.LinearAttention(16, 2, position="flt", seed=1), normal(2, 7, 16)
    other = copy.deepcopy(module)
    spectrum = module.position.spectrum
    parametrize.register_parametrization(spectrum, "amplitude", Frozen())
    with torch.no_grad():
        other.position.spectrum.amplitude.zero_()
    assert torch.equal(module(x), other(x))


def test_another_position_of_the_same_options_is_taken():
    module, x = nn.LinearAttention(16, 2, position="flt", seed=1), normal(2, 7, 16)
    other = nn.LinearAttention(16, 2, position="flt", seed=8)
    expected = copy.deepcopy(module)
    expected.position.load_state_dict(other.position.state_dict())
    module.position = other.position
    assert torch.equal(module(x), expected(x))
    module(x).sum().backward()
    assert other.position.spectrum.amplitude.grad is not None


@pytest.mark.parametrize(
    "replace",
    [
        lambda m: setattr(m, "position", nn.FourierPosition(2)),
        lambda m: setattr(m, "position", nn.DampedPosition(2)),
        lambda m: setattr(m, "position", torch.nn.Identity()),
        lambda m: setattr(m, "position", None),
        lambda m: setattr(m.position, "spectrum", torch.nn.Identity()),
    ],
)
def test_what_cannot_replace_a_position_is_refused(replace):
    module = nn.LinearAttention(16, 2, position="flt")
    with pytest.raises(ValueError, match=r"^\[\w+\] expected .*, got \w+$"):
        replace(module)


def test_a_position_for_attention_without_one_is_refused():
    module = nn.LinearAttention(16, 2)
    with pytest.raises(ValueError, match=r"^\[position\] expected .* without, got FourierPosition"):
        module.position = nn.FourierPosition(2)


def test_layers_of_other_sizes_are_named():
    module = nn.LinearAttention(16, 2)
    module.query = torch.nn.Linear(16, 8)
    with pytest.raises(RuntimeError, match=r"expected projections \[B,L,16\].*got \[2, 7, 8\]"):
        module(normal(2, 7, 16))


def test_quantised_layers_run():
    module, x = nn.LinearAttention(16, 2, position="flt", seed=1), normal(2, 7, 16)
    expected = module(x)
    quantised = torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear})
    assert type(quantised.query).__module__.startswith("torch.ao.nn.quantized")
    assert torch.allclose(quantised(x), expected, rtol=0.1, atol=0.1)
    assert not torch.equal(quantised(x), expected)


def test_blocks_are_checkpointed():
    module, tokens = MODULES["language, damped"][0](), text()
    expected = torch.autograd.grad(module(tokens).square().sum(), list(module.parameters()))
    for index in range(2):
        block = getattr(module, f"block{index}")
        block.forward = lambda x, run=block.forward: torch.utils.checkpoint.checkpoint(
            run, x, use_reentrant=False
        )
    grads = torch.autograd.grad(module(tokens).square().sum(), list(module.parameters()))
    for grad, other in zip(grads, expected, strict=True):
        assert torch.equal(grad, other)


def test_a_module_prints_its_parts():
    shown = repr(nn.CausalLM(vocabulary=11, context=16, **SIZE))
    for part in ("vocabulary=11", "(block1): PerformerBlock(", "(attention): LinearAttention("):
        assert part in shown
    for layer in ("query", "key", "value", "output", "up", "down", "head", "norm", "norm1"):
        assert f"({layer}): L" in shown
    assert "(position): DampedPosition(num_heads=2" in shown
