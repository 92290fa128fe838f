"""Modules of mnemosyne.nn that several tests look at, and what they are called with."""

import torch

from mnemosyne import nn

LOOSE = {"rtol": 1e-3, "atol": 1e-4}
SIZE = {"width": 16, "heads": 2, "seed": 3}
LINE = {"position_dim": 1, "extent": 16.0, "max_width": 4.0, "seed": 2}
PLANE = {"image_size": 8, "patch_size": 4, "channels": 2}


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(4), dtype=torch.float32)


def text():
    return torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(1))


def points():
    padding = torch.ones(2, 5, dtype=torch.bool)
    padding[1, 3:] = False
    return torch.arange(10).view(2, 5), normal(2, 5, 3), padding


def block(attention, causal=True):
    return lambda: nn.PerformerBlock(16, 2, causal=causal, attention=attention, **LINE)


def language(**attention):
    return lambda: nn.CausalLM(vocabulary=11, context=16, attention=attention or None, **SIZE)


# Modules, how they are called, and every kind of attention and position.
MODULES = {
    "language, damped": (language(), lambda: (text(),)),
    "language, absolute": (language(position="absolute"), lambda: (text(),)),
    "language, flt": (language(position="flt", num_frequencies=8), lambda: (text(),)),
    "language, softmax t5": (language(kind="softmax", position="rope"), lambda: (text(),)),
    "image, flt": (lambda: nn.ViT(**PLANE, **SIZE), lambda: (normal(3, 2, 8, 8),)),
    "image, absolute": (
        lambda: nn.ViT(attention={"position": "absolute"}, **PLANE, **SIZE),
        lambda: (normal(3, 2, 8, 8),),
    ),
    "image, fft": (
        lambda: nn.ViT(attention={"position": "fft"}, **PLANE, **SIZE),
        lambda: (normal(3, 2, 8, 8),),
    ),
    "points, flt": (lambda: nn.PointEncoder(**SIZE), points),
    "points, absolute mean": (
        lambda: nn.PointEncoder(attention={"position": "absolute"}, pooling="mean", **SIZE),
        points,
    ),
    "points, mean without padding": (
        lambda: nn.PointEncoder(pooling="mean", **SIZE),
        lambda: points()[:2],
    ),
    "block, alibi": (block({"kind": "softmax", "position": "alibi"}), lambda: (normal(2, 7, 16),)),
    "block, t5": (block({"kind": "softmax", "position": "t5"}, False), lambda: (normal(2, 7, 16),)),
    "block, concatenate": (
        block({"position": "flt", "coupling": "concatenate", "feature_map": "favor+"}, False),
        lambda: (normal(2, 7, 16),),
    ),
    "attention": (
        lambda: nn.LinearAttention(16, 4, num_kv_heads=2, feature_map="hyp+", seed=5),
        lambda: (normal(2, 7, 16),),
    ),
    "attention, rope": (
        lambda: nn.LinearAttention(16, 2, position="rope", causal=True, seed=5),
        lambda: (normal(2, 7, 16),),
    ),
}

# With the options that all modules have: seed, device and dtype.
FACTORIES = {
    "FourierPosition": lambda **o: nn.FourierPosition(2, phase=True, **o),
    "FourierPosition, matern": lambda **o: nn.FourierPosition(
        2, kind="shift_invariant", kernel="matern", **o
    ),
    "FourierPosition, window": lambda **o: nn.FourierPosition(
        2, kind="local", window="tent", num_components=2, max_width=8.0, **o
    ),
    "FourierPosition, neural": lambda **o: nn.FourierPosition(2, kind="neural", **o),
    "FourierPosition, released": lambda **o: nn.FourierPosition(
        2, released_code=True, initial_amplitude=1.0, **o
    ),
    "DampedPosition": lambda **o: nn.DampedPosition(2, **o),
    "LinearAttention": lambda **o: nn.LinearAttention(8, 2, **o),
    "LinearAttention, flt": lambda **o: nn.LinearAttention(8, 2, position="flt", **o),
    "LinearAttention, rope": lambda **o: nn.LinearAttention(
        8, 2, position="rope", feature_map="favor+", **o
    ),
    "LinearAttention, damped": lambda **o: nn.LinearAttention(
        8, 2, position="damped", causal=True, **o
    ),
    "PerformerBlock": lambda **o: nn.PerformerBlock(8, 2, extent=16.0, **o),
    "PerformerBlock, t5": lambda **o: nn.PerformerBlock(
        8, 2, attention={"kind": "softmax", "position": "t5"}, **o
    ),
    "CausalLM": lambda **o: nn.CausalLM(vocabulary=11, context=16, width=8, heads=2, **o),
    "CausalLM, absolute": lambda **o: nn.CausalLM(
        vocabulary=11, context=16, width=8, heads=2, attention={"position": "absolute"}, **o
    ),
    "ViT": lambda **o: nn.ViT(width=8, heads=2, **o),
    "ViT, fft": lambda **o: nn.ViT(width=8, heads=2, attention={"position": "fft"}, **o),
    "PointEncoder": lambda **o: nn.PointEncoder(width=8, heads=2, **o),
}
RUNNABLE = [name for name in FACTORIES if "Position" not in name]


def inputs_of(name, dtype=torch.float32, batch=2):
    if name.startswith("CausalLM"):
        tokens = torch.randint(11, (batch, 9), generator=torch.Generator("cpu").manual_seed(1))
        return (tokens,)
    if name.startswith("ViT"):
        return (normal(batch, 1, 8, 8).to(dtype),)
    if name.startswith("PointEncoder"):
        types = torch.arange(5, dtype=torch.int64).expand(batch, 5)
        return types, normal(batch, 5, 3).to(dtype), torch.ones(batch, 5, dtype=torch.bool)
    return (normal(batch, 7, 8).to(dtype),)
