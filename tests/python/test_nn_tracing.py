"""torch.jit.trace and torch.export: right, or refused in one line."""

import pytest
import torch
from nn_examples import FACTORIES, RUNNABLE, inputs_of, normal

from mnemosyne import nn

linear_attention = nn.functional.linear_attention


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
    module, inputs = FACTORIES[name](seed=1), inputs_of(name)
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
    module, inputs = FACTORIES[name](seed=1), inputs_of(name)
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
