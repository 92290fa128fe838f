"""torch.jit.trace of modules and of the function."""

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
