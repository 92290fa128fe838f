"""What holds for every module of torch holds for those of mnemosyne.nn."""

import copy
import io
import pickle

import pytest
import torch

from mnemosyne import nn


def attention(position="damped", **options):
    defaults = {"causal": True, "num_features": 16, "seed": 1}
    return nn.LinearAttention(8, 2, position=position, **{**defaults, **options})


MODULES = {
    "attention, damped": attention,
    "attention, flt": lambda: attention("flt", causal=False),
    "attention, rope": lambda: attention("rope", feature_map="favor+"),
    "block": lambda: nn.PerformerBlock(8, 2, causal=True, attention={"position": "damped"}),
}


@pytest.fixture(params=MODULES)
def module(request):
    return MODULES[request.param]()


def tokens(length=7, seed=0):
    return torch.randn(2, length, 8, generator=torch.Generator().manual_seed(seed))


def perturb(module):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module


def test_attention_is_its_projections_and_the_function():
    position = nn.FourierPosition(
        2, coupling="multiplicative", initial_amplitude=0.8, num_frequencies=8
    )
    module = nn.LinearAttention(8, 2, position=position, num_features=16)
    assert module.position is position
    x = tokens()
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 4:] = False

    def heads(part):
        return (x @ part.weight.T).unflatten(-1, (2, 4)).transpose(1, 2)

    mixed = nn.functional.linear_attention(
        heads(module.query), heads(module.key), heads(module.value),
        feature_map="relu", omega=module.omega, position=position, key_padding_mask=mask,
    )  # fmt: skip
    expected = mixed.transpose(1, 2).flatten(2) @ module.output.weight.T + module.output.bias
    torch.testing.assert_close(module(x, key_padding_mask=mask), expected)


@pytest.mark.parametrize("position", ["flt", "rope", None])
def test_attention_goes_to_a_context_by_its_positions(position):
    module = attention(position, causal=False)
    x, source = tokens(5), tokens(9, seed=2)
    place, source_place = torch.randn(5, 1), torch.randn(9, 1)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    y = module(x, place, mask, context=source, context_positions=source_place)
    assert y.shape == x.shape
    # The order of a context does not matter, nor what is masked.
    order = torch.arange(9).flip(0)
    changed = source.clone()
    changed[1, 6:] = 7.0
    flipped = module(
        x, place, mask[:, order], context=changed[:, order], context_positions=source_place[order]
    )
    torch.testing.assert_close(flipped, y)
    # Tokens and context side by side, with the tokens masked, are the same keys.
    both = module(
        torch.cat([x, source], 1), torch.cat([place, source_place]),
        torch.cat([torch.zeros(2, 5, dtype=torch.bool), mask], 1),
    )  # fmt: skip
    torch.testing.assert_close(both[:, :5], y)


def test_a_block_goes_to_a_context():
    block = nn.PerformerBlock(8, 2, attention={"position": "rope"})
    x, source = tokens(5), tokens(9, seed=2)
    place, source_place = torch.randn(5, 1), torch.randn(9, 1)
    y = block(x, place, context=source, context_positions=source_place)
    order = torch.arange(9).flip(0)
    flipped = block(x, place, context=source[:, order], context_positions=source_place[order])
    torch.testing.assert_close(flipped, y)
    assert not torch.allclose(block(x, place), y)


def test_causal_attention_has_no_context():
    with pytest.raises(RuntimeError, match="context"):
        attention()(tokens(), context=tokens())


@pytest.mark.parametrize("name", ["damped", "rope", "flt", None])
def test_steps_are_the_forward_pass(name):
    module = perturb(attention(name))
    x = tokens(20)
    state, rows = None, []
    for t in range(20):
        row, state = module.step(x[:, t], state)
        rows.append(row)
    torch.testing.assert_close(torch.stack(rows, 1), module(x), rtol=1e-4, atol=1e-5)
    assert state.length == 20
    first, state = module.forward_segment(x[:, :12])
    second, _ = module.forward_segment(x[:, 12:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), module(x), rtol=1e-4, atol=1e-5)


def test_steps_take_positions():
    module = perturb(attention("damped"))
    x, positions = tokens(3), torch.tensor([[0.0], [4.0], [4.5]])
    state, rows = None, []
    for t in range(3):
        row, state = module.step(x[:, t], state, positions[t])
        rows.append(row)
    torch.testing.assert_close(torch.stack(rows, 1), module(x, positions))
    assert not torch.allclose(module(x, positions), module(x))


def test_a_state_dict_carries_everything(module):
    x = tokens()
    trained = perturb(copy.deepcopy(module))
    for seed_of_draws in module.buffers():
        seed_of_draws.zero_()
    for assign in (False, True):
        module.load_state_dict(copy.deepcopy(trained.state_dict()), assign=assign)
        assert torch.equal(module(x), trained(x))
    module.zero_grad()
    module(x).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_copies_are_equal_and_independent(module):
    perturb(module)
    x = tokens()
    expected = module(x)
    saved = io.BytesIO()
    torch.save(module, saved)
    saved.seek(0)
    copies = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(saved, weights_only=False),
    ]
    for other in copies:
        assert torch.equal(other(x), expected)
        perturb(other)
        assert not torch.equal(other(x), expected) and torch.equal(module(x), expected)
        other(x).sum().backward()
        assert all(p.grad is not None for p in other.parameters())
    assert all(p.grad is None for p in module.parameters())


def test_parameters_given_for_one_call_count(module):
    x = tokens()
    other = perturb(copy.deepcopy(module))
    parameters = {k: p.detach().clone().requires_grad_() for k, p in other.named_parameters()}
    before = module(x)
    output = torch.func.functional_call(module, parameters, (x,))
    assert torch.equal(output, other(x)) and torch.equal(module(x), before)
    output.square().sum().backward()
    other(x).square().sum().backward()
    for name, p in other.named_parameters():
        torch.testing.assert_close(parameters[name].grad, p.grad)
    assert all(p.grad is None for p in module.parameters())


def test_a_graph_keeps_the_parameters_that_it_was_made_with(module):
    x, parameters = tokens(), list(module.parameters())
    expected = torch.autograd.grad(module(x).square().sum(), parameters)
    loss = module(x).square().sum()
    other = {k: p.detach() + 1 for k, p in module.named_parameters()}
    torch.func.functional_call(module, other, (x,))
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), expected)


def test_writing_to_a_parameter_before_backward_is_an_error(module):
    loss = module(tokens()).square().sum()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_frozen_parameters_get_no_gradient(module):
    frozen = next(module.parameters()).requires_grad_(False)
    module(tokens()).sum().backward()
    assert frozen.grad is None
    frozen.requires_grad_(True)
    module(tokens()).sum().backward()
    assert frozen.grad is not None


def test_parametrizations_reach_the_library():
    module, x = attention(), tokens()
    expected = module(x)

    class Twice(torch.nn.Module):
        def forward(self, weight):
            return 2 * weight

    torch.nn.utils.parametrize.register_parametrization(module.value, "weight", Twice())
    bias = module.output.bias
    torch.testing.assert_close(module(x) - bias, 2 * (expected - bias))
    module(x).sum().backward()
    assert module.value.parametrizations.weight.original.grad is not None


def test_dtypes(module):
    x = tokens()
    expected = module(x)
    draws = {name: b.clone() for name, b in module.named_buffers()}
    torch.testing.assert_close(module.double()(x.double()).float(), expected, rtol=1e-4, atol=1e-5)
    module.float()
    assert torch.equal(module(x), expected)
    assert all(torch.equal(b, draws[name]) for name, b in module.named_buffers())
    narrow = module.bfloat16()(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    assert torch.allclose(narrow.float(), expected, rtol=0.1, atol=0.1)


def test_inference_mode_leaves_training_possible(module):
    x = tokens()
    with torch.inference_mode():
        inferred = module(x)
    output = module(x)
    assert torch.equal(inferred, output)
    output.sum().backward()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models_give_the_same(backend):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), attention("damped"), torch.nn.Linear(8, 8))
    compiled = torch.compile(model, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for seed in range(3):  # the weights change between calls: none may be baked in
        x = tokens(seed=seed)
        grads = []
        for function in (model, compiled):
            model.zero_grad()
            output = function(x)
            output.square().mean().backward()
            grads.append([output.detach(), *(p.grad.clone() for p in model.parameters())])
        torch.testing.assert_close(*grads)
        optimizer.step()


def test_a_compiled_function_of_features_gives_the_same():
    position = nn.DampedPosition(2)

    def function(offsets, query):
        return (
            position.mask(offsets).exp() * 2
            + nn.functional.linear_attention(
                query, query, query, causal=True, position=position
            ).mean()
        )

    x, query = torch.arange(9.0).unsqueeze(-1), torch.randn(1, 2, 9, 4)
    compiled = torch.compile(function, backend="aot_eager")
    torch.testing.assert_close(compiled(x, query), function(x, query))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LinearAttention(9, 2), "expected.*9"),
        (lambda: nn.LinearAttention(8, 2, feature_map="softmax"), "got .softmax"),
        (lambda: nn.LinearAttention(8, 2, position="alibi"), "flt, damped.*got .alibi"),
        (lambda: nn.LinearAttention(8, 2, position="damped"), "expected causal attention"),
        (lambda: nn.LinearAttention(8, 2, position=nn.FourierPosition(3)), "expected 2 heads"),
        (lambda: nn.FourierPosition(2, kind="wave"), "expected one of gaussian_mixture.*got .wave"),
        (lambda: nn.FourierPosition(2, num_frequencies=9), "multiple of num_components"),
        (lambda: nn.FourierPosition(2, max_width="far"), "max_width.*got 'far'"),
        (lambda: nn.CausalLM(depth=3), "expected one of vocabulary.*got .depth"),
        (lambda: attention().step(tokens()), "expected"),
        (lambda: attention()(tokens()[0]), r"expected.*\[B,L,"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        make()
    with pytest.raises(TypeError, match="widht"):
        nn.FourierPosition(2, max_widht=3)


def test_models_have_the_shapes_of_their_docs():
    size = {"width": 16, "heads": 2}
    language = nn.CausalLM(vocabulary=11, context=16, **size)
    assert "block0.attention.position.log_rate" in dict(language.named_parameters())
    text = torch.randint(11, (2, 9))
    logits = language(text)
    assert logits.shape == (2, 9, 11)
    first, state = language.forward_segment(text[:, :5])
    second, _ = language.forward_segment(text[:, 5:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), logits, rtol=1e-4, atol=1e-5)
    assert nn.ViT(**size)(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    points = nn.PointEncoder(**size)
    types, places = torch.randint(10, (2, 5)), torch.randn(2, 5, 3)
    energy = points(types, places)
    assert energy.shape == (2, 1)
    torch.testing.assert_close(points(types, places + 1.5), energy, rtol=1e-3, atol=1e-4)
    for model in (language, points):
        assert all(type(p) is torch.nn.Parameter for p in model.parameters())


def test_a_relative_offset_is_learned():
    """Every token has to say what stood three tokens before it: content alone cannot tell."""
    torch.manual_seed(0)
    position = nn.DampedPosition(2, num_components=6, max_width=8.0, initial_weight=0.5)
    table = torch.nn.Embedding(8, 16)
    mix = nn.LinearAttention(16, 2, causal=True, position=position, num_features=16)
    model = torch.nn.Sequential(table, mix, torch.nn.Linear(16, 8))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    losses = []
    for _ in range(150):
        text = torch.randint(8, (16, 32))
        loss = torch.nn.functional.cross_entropy(
            model(text)[:, 3:].flatten(0, 1), text[:, :-3].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    factor = position.factor(torch.arange(8.0)[:, None]).detach()
    assert sum(losses[:10]) / 10 > 1.5 and sum(losses[-10:]) / 10 < 0.4
    assert (factor[:, 1:].argmax(1) == 2).all()  # of the earlier tokens the third one counts most


def gradients_by_ddp(module):
    """Leaves no DDP behind: the reducer of the last one would wait for gloo's thread under the GIL,
    for which that thread waits at times (torch 2.13)."""
    parallel = torch.nn.parallel.DistributedDataParallel(module)
    parallel(tokens()).square().sum().backward()
    return [p.grad for p in module.parameters()]


def test_gradients_are_those_of_ddp(module, tmp_path):
    module(tokens()).square().sum().backward()
    expected = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        torch.testing.assert_close(gradients_by_ddp(module), expected)
    finally:
        torch.distributed.destroy_process_group()
