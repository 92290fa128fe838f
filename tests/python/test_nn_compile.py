"""torch.compile(fullgraph=True) and torch.export: the numbers of eager."""

import io

import pytest
import torch
from nn_examples import FACTORIES, RUNNABLE, inputs_of, normal
from program_cases import CASES, CLOSE, MULTIPLICATIVE, fourier, linear_attention

from mnemosyne import nn


def floating(inputs):
    return [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]


def loss_and_gradients(function, module, inputs):
    inputs = floating(inputs)
    output = function(*inputs)
    sources = [*module.parameters(), *(x for x in inputs if x.requires_grad)]
    gradients = torch.autograd.grad(output.square().sum(), sources, allow_unused=True)
    return output.detach(), *(g for g in gradients if g is not None)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", CASES)
def test_compiled_whole(name):
    make, inputs = CASES[name]
    module = make()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for _ in range(2):  # the weights change between calls: none may be baked in
        expected = loss_and_gradients(module, module, inputs)
        found = loss_and_gradients(compiled, module, inputs)
        torch.testing.assert_close(found, expected, **CLOSE)
        with torch.no_grad():
            for p in module.parameters():
                p.mul_(0.9).add_(0.01)
            torch.testing.assert_close(compiled(*inputs), module(*inputs), **CLOSE)


@pytest.mark.parametrize(
    ("name", "strict"), [(name, False) for name in CASES] + [(name, True) for name in RUNNABLE]
)
def test_exported(name, strict):
    make, inputs = CASES[name]
    module = make()
    program = torch.export.export(module, inputs, strict=strict)
    if name in ("LinearAttention, flt", "CausalLM", "function, favor+"):
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        program = torch.export.load(file)
    exported = program.module()
    torch.testing.assert_close(exported(*inputs), module(*inputs), **CLOSE)
    with torch.no_grad():
        change = {k: p + 0.1 * torch.randn_like(p) for k, p in module.named_parameters()}
    for m in (exported, module):
        m.load_state_dict(change, strict=False)
    torch.testing.assert_close(exported(*inputs), module(*inputs), **CLOSE)
    other = [x + 0.1 if x.is_floating_point() else x for x in inputs]
    torch.testing.assert_close(exported(*other), module(*other), **CLOSE)


# Decoding.


def graphs():
    """A backend that counts."""
    count = []

    def backend(graph, inputs):
        count.append(graph)
        return torch._dynamo.backends.debugging.aot_eager(graph, inputs)

    return backend, count


@pytest.mark.parametrize("position", ["damped", "rope", "flt", "absolute", "none"])
def test_a_step_of_decoding(position):
    model = nn.CausalLM(
        vocabulary=11, context=32, width=8, heads=2, seed=1, attention={"position": position}
    )
    text = torch.randint(11, (2, 12), generator=torch.Generator().manual_seed(1))
    backend, count = graphs()

    def step(token, state):
        return model.forward_segment(token, state)

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    whole, state, rows = model(text), None, []
    for t in range(12):
        row, state = compiled(text[:, t : t + 1], state)
        rows.append(row)
    torch.testing.assert_close(torch.cat(rows, 1), whole, rtol=1e-3, atol=1e-4)
    # Without a state, with the first one, and for any number of tokens before.
    assert len(count) <= 3
    assert state[0].length == 12


def test_a_segment_of_the_function():
    position = nn.DampedPosition(2, seed=1)
    q, k, v = normal(3, 2, 2, 9, 4).unbind(0)

    def segment(q, k, v, state):
        return linear_attention(
            q, k, v, causal=True, feature_map="relu", position=position, state=state,
            return_state=True,
        )  # fmt: skip

    compiled = torch.compile(segment, fullgraph=True, backend="aot_eager")
    whole, _ = segment(q, k, v, None)
    state, rows = None, []
    for t in range(0, 9, 3):
        row, state = compiled(*(x[:, :, t : t + 3] for x in (q, k, v)), state)
        rows.append(row)
    torch.testing.assert_close(torch.cat(rows, 2), whole, **CLOSE)


# Sizes that change.


@pytest.mark.parametrize(
    "name",
    ["LinearAttention, flt", "LinearAttention, damped", "CausalLM", "ViT", "PointEncoder"],
)
def test_batches_of_other_sizes(name):
    module = FACTORIES[name](seed=1)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for batch in (2, 3, 5):
        inputs = inputs_of(name, batch=batch)
        torch.testing.assert_close(compiled(*inputs), module(*inputs), **CLOSE)


@pytest.mark.parametrize("name", ["LinearAttention, flt", "LinearAttention, damped", "CausalLM"])
def test_exported_for_other_sizes(name):
    module, inputs = FACTORIES[name](seed=1), inputs_of(name)
    sizes = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("length", max=15)}
    program = torch.export.export(module, inputs, dynamic_shapes=(sizes,)).module()
    for batch, length in ((2, 7), (5, 4)):
        x = inputs_of(name, batch=batch)[0][:, :length]
        torch.testing.assert_close(program(x), module(x), **CLOSE)


# What cannot be looked at.


def test_a_program_refuses_steps_back_when_it_runs():
    make, inputs = CASES["damped, placed and padded"]
    module = make()
    x, positions, key_padding_mask = inputs
    back = positions.flip(1)
    with pytest.raises(RuntimeError, match=r"^\[log_decay\] expected positions that do not go do"):
        module(x, back, key_padding_mask)
    exported = torch.export.export(module, inputs).module()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for program in (exported, compiled):
        program(*inputs)
        with pytest.raises(RuntimeError, match="expected positions that do not go down"):
            program(x, back, key_padding_mask)


def test_a_program_refuses_what_is_beyond_the_extent_when_it_runs():
    module = nn.LinearAttention(8, 2, position=fourier(**MULTIPLICATIVE), seed=1)
    x, near = normal(1, 3, 8), torch.tensor([[0.0], [1.0], [63.0]])
    exported = torch.export.export(module, (x, near)).module()
    torch.testing.assert_close(exported(x, near), module(x, near))
    for program in (module, exported):
        with pytest.raises(RuntimeError, match="expected offsets of at most 64, the extent"):
            program(x, 2 * near)


def test_a_grid_follows_the_input_of_a_program():
    module = nn.LinearAttention(
        8, 2, position=nn.FourierPosition(2, extent=None, **MULTIPLICATIVE), seed=1
    )
    x, near = normal(1, 3, 8), torch.tensor([[0.0], [1.0], [6.0]])
    exported = torch.export.export(module, (x, near)).module()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for places in (near, 10 * near):
        expected = loss_and_gradients(module, module, (x, places))
        torch.testing.assert_close(exported(x, places), expected[0])
        torch.testing.assert_close(loss_and_gradients(compiled, module, (x, places)), expected)


# Operators.


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", "expected a JSON object of a type and its arguments, got"),
        ('{"type": "Wave", "arguments": [{}]}', 'expected one of DampedPosition.*got "Wave"'),
        ('{"type": "DampedPosition", "arguments": [{"heads": 2}]}', 'got "heads"'),
        ('{"type": "DampedPosition", "arguments": [{"num_heads": "2"}]}', "expected"),
        ('{"type": "DampedPosition", "arguments": [{"seed": 1}]}', "expected a FourierPosition"),
    ],
)
def test_descriptions_of_no_module_are_named(description, message):
    module = nn.DampedPosition(1)
    with pytest.raises(ValueError, match=message):
        torch.ops.mnemosyne.position_bound(description, list(module.parameters()))


def test_tensors_of_another_shape_are_named():
    module, other = nn.DampedPosition(2), nn.DampedPosition(3)
    offsets = torch.zeros(1, 1)
    mask = torch.ops.mnemosyne.position_mask
    with pytest.raises(RuntimeError, match=r"^\[functional_call\] expected log_constant of shape"):
        mask(module._description, other._tensors(), offsets)
    with pytest.raises(RuntimeError, match=r"^\[functional_call\] expected 7 tensors for Damped"):
        mask(module._description, module._tensors()[:2], offsets)
