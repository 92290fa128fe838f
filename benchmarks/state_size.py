"""Bytes of optimizer state a parameter, over the networks that people train.

    python benchmarks/state_size.py [--rules adamw,orthogonal,mnemosyne,...]

Counted, not measured: what the state layout of each rule asks for, from the shapes of every
parameter of the network on the device "meta". The networks are in their published sizes: ViT-Ti/16,
ViT-B/16, ViT-H/14 (1,000 classes), BERT-base (tied head), T5 v1.1 XXL, and a soft prompt of 100
tokens before it, alone.
"""

import argparse
import math

import torch

from mnemosyne import _C

RULES = ("adamw", "muon", "adafactor", "orthogonal", "mnemosyne")
VARIANTS = ("attention", "tensor", "super", "compact", "coordinate")


def encoder(width, hidden, layers):
    """Shapes of the layers of a Transformer with biases and norms: attention, then two products."""
    layer = [(3 * width, width), (3 * width,), (width, width), (width,)]
    layer += [(hidden, width), (hidden,), (width, hidden), (width,)] + 4 * [(width,)]
    return layers * layer


def vit(width, layers, patch, classes=1000, image=224):
    tokens = (image // patch) ** 2 + 1
    ends = [(width, 3, patch, patch), (width,), (1, 1, width), (1, tokens, width)]
    return (
        ends + encoder(width, 4 * width, layers) + 2 * [(width,)] + [(classes, width), (classes,)]
    )


def bert(width=768, layers=12, vocabulary=30522):
    ends = [(vocabulary, width), (512, width), (2, width), (width,), (width,)]
    head = [(width, width), (width,), (width,), (width,), (vocabulary,)]
    # Queries, keys and values are layers of their own there.
    split = [
        shape
        for s in encoder(width, 4 * width, layers)
        for shape in (3 * [(width, *s[1:])] if s[0] == 3 * width else [s])
    ]
    return ends + split + head


def t5_xxl(width=4096, hidden=10240, layers=24, heads=64, vocabulary=32128):
    attention = 4 * [(width, width)] + [(width,)]
    feed_forward = [(hidden, width), (hidden, width), (width, hidden), (width,)]
    encoders, decoders = attention + feed_forward, 2 * attention + feed_forward
    ends = 2 * [(vocabulary, width)] + 2 * [(32, heads)] + 2 * [(width,)]
    return layers * (encoders + decoders) + ends


NETWORKS = {
    "ViT-Ti": vit(192, 12, 16),
    "ViT-B": vit(768, 12, 16),
    "ViT-H": vit(1280, 32, 14),
    "BERT-base": bert(),
    "T5-XXL": t5_xxl(),
    "its prompt": [(100, 4096)],
}


def state_bytes(rule, shapes):
    known = {}
    for shape in set(shapes):
        param = torch.empty(shape, device="meta")
        known[shape] = sum(
            math.prod(entry[1]) * entry[2].itemsize for entry in rule.state_layout(param)
        )
    return sum(known[shape] for shape in shapes)


def rule_of(name):
    trained = _C.make_rule(name) if name in _C.rule_names() else None
    return _C.default_rule(name) if trained is None or trained.weights() else trained


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rules", default=",".join([*RULES, *(f"mnemosyne-{name}" for name in VARIANTS)])
    )
    options = parser.parse_args()
    sizes = {name: sum(map(math.prod, shapes)) for name, shapes in NETWORKS.items()}
    print("| rule | " + " | ".join(f"{n}, {s / 1e6:,.1f} M" for n, s in sizes.items()) + " |")
    print("|---|" + "---|" * len(sizes))
    for name in options.rules.split(","):
        rule = rule_of(name)
        cells = [f"{state_bytes(rule, NETWORKS[n]) / sizes[n]:.3g}" for n in NETWORKS]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
