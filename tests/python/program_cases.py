"""Modules and functions with every kind of position, and what programs of them are called with."""

import torch
from nn_examples import FACTORIES, RUNNABLE, inputs_of, normal

from mnemosyne import nn

linear_attention = nn.functional.linear_attention

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class Call(torch.nn.Module):
    """A module that is called with more than tensors in a row."""

    def __init__(self, module, call):
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, *inputs):
        return self.call(self.module, *inputs)


def mask():
    result = torch.ones(2, 7, dtype=torch.bool)
    result[1, 5:] = False
    return result


def places(batch=(2,), dim=1):
    return normal(*batch, 7, dim).cumsum(-2).abs().sort(-2).values


def attention(*position, **options):
    position = dict(position=position[0]) if position else {}
    return lambda: nn.LinearAttention(8, 2, **{"seed": 3, **position, **options})


def with_inputs(module, x, *inputs):
    positions, key_padding_mask = inputs
    return module(x, positions, key_padding_mask)


def fourier(**options):
    return nn.FourierPosition(2, seed=4, **{"initial_amplitude": 0.5, "extent": 64.0, **options})


MULTIPLICATIVE = {"coupling": "multiplicative", "num_frequencies": 8}

# Every kind of position, and what attention may be told about its tokens.
CASES = {
    **{name: (lambda name=name: FACTORIES[name](seed=1), inputs_of(name)) for name in RUNNABLE},
    "square": (attention(fourier(factor="square", **MULTIPLICATIVE)), inputs_of("")),
    "linear": (attention(fourier(factor="linear", phase=True, **MULTIPLICATIVE)), inputs_of("")),
    "concatenate": (attention(fourier(num_frequencies=8), feature_map="favor+"), inputs_of("")),
    "concatenate, hyp+ max_bound": (
        attention(fourier(num_frequencies=8, max_bound=0.2), feature_map="hyp+"),
        inputs_of(""),
    ),
    "released": (
        attention(fourier(released_code=True, num_frequencies=8), feature_map="favor+"),
        inputs_of(""),
    ),
    "neural": (attention(fourier(kind="neural", **MULTIPLICATIVE)), inputs_of("")),
    "window": (attention(fourier(kind="local", **MULTIPLICATIVE)), inputs_of("")),
    "matern": (
        attention(fourier(kind="shift_invariant", kernel="matern", **MULTIPLICATIVE)),
        inputs_of(""),
    ),
    "grouped heads, trig": (
        attention(feature_map="trig", num_kv_heads=1, causal=True),
        inputs_of(""),
    ),
    "elu+1, exact": (
        attention(fourier(**MULTIPLICATIVE), feature_map="elu+1", exact_length=16),
        inputs_of(""),
    ),
    **{
        f"{kind}, placed and padded": (
            lambda kind=kind: Call(
                attention(kind, causal=kind == "damped", num_features=16)(), with_inputs
            ),
            (normal(2, 7, 8), places(), mask()),
        )
        for kind in ("flt", "damped", "rope")
    },
    "class token": (
        lambda: Call(
            attention("flt")(), lambda m, x, p, has: m(x, p, has_position=has)
        ),
        (normal(2, 7, 8), places(()), torch.arange(7) > 0),
    ),
    "context": (
        lambda: Call(
            attention("flt")(), lambda m, x, c, p: m(x, context=c, context_positions=p)
        ),
        (normal(2, 7, 8), normal(2, 5, 8).roll(1), torch.arange(5.0).unsqueeze(-1)),
    ),
    "block, softmax alibi": (
        lambda: nn.PerformerBlock(
            8, 2, causal=True, attention={"kind": "softmax", "position": "alibi"}, seed=2
        ),
        inputs_of(""),
    ),
    "points, mean": (
        lambda: nn.PointEncoder(width=8, heads=2, pooling="mean", seed=2),
        inputs_of("PointEncoder"),
    ),
    "points, exact": (
        lambda: nn.PointEncoder(width=8, heads=2, attention={"exact_length": 8}, seed=2),
        inputs_of("PointEncoder"),
    ),
}  # fmt: skip

FUNCTIONS = {
    "favor+": {"seed": 1},
    "relu, causal": {"feature_map": "relu", "causal": True},
    "elu+1": {"feature_map": "elu+1"},
    "identity": {"feature_map": "identity"},
    "flt": {"position": fourier(**MULTIPLICATIVE)},
    "concatenate": {"position": fourier(num_frequencies=8)},
    "damped": {"position": nn.DampedPosition(2, seed=1), "causal": True, "feature_map": "relu"},
    "padded": {"key_padding_mask": mask()[:, :6], "seed": 5},
}


class Function(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options
        self.position = options.get("position")

    def forward(self, q, k, v):
        return linear_attention(q, k, v, **self.options)


CASES |= {
    f"function, {name}": (
        lambda options=options: Function(**options),
        tuple(normal(3, 2, 2, 6, 4).unbind(0)),
    )
    for name, options in FUNCTIONS.items()
}
