"""The four spectra of FourierPosition against each other, each with the same number of waves.

    MNEMOSYNE_DATA=... python benchmarks/position_spectra.py [characters | patches]

`characters`: the causal language model of position_loss.py (width 64, 2 layers, context 128), where
what counts is near. `patches`: a ViT (width 64, 2 layers, 49 patches of Fashion-MNIST), where heads
look to different sides. AdamW with a cosine, factor "exp", the mean of two seeds on what was held
out.
"""

import gzip
import os
import sys
from pathlib import Path

import torch
from position_loss import BATCH, held_out_loss, language_model, load, loss_of
from torch.nn.functional import cross_entropy

from mnemosyne import nn

STEPS, SEEDS = 400, 2
KINDS = ("gaussian_mixture", "shift_invariant", "local", "neural")
FORMS = {"none": {"position": "none"}} | {
    f"{kind}, {waves} waves": {"position": "flt", "spectrum": kind, "num_frequencies": waves}
    for waves in (16, 64)
    for kind in KINDS
}


def characters(folder):
    *parts, vocabulary = load(folder)

    def make(form, seed):
        return language_model(form, vocabulary, seed)

    return make, loss_of, parts, 1e-2


def patches(folder):
    def read(name, header):
        with gzip.open(Path(folder) / "fashion_mnist" / name) as file:
            return torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8)

    def part(name):
        images = read(f"{name}-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28)
        return images, read(f"{name}-labels-idx1-ubyte.gz", 8).long()

    def make(form, seed):
        options = {"image_size": 28, "channels": 1, "patch_size": 4, "num_classes": 10}
        attention = {"num_features": 32, **form}
        return nn.ViT(**options, width=64, heads=4, layers=2, attention=attention, seed=seed)

    def loss(model, part, generator):
        images, labels = part
        which = torch.randint(len(labels), (8 * BATCH,), generator=generator)
        return cross_entropy(model(images[which].float() / 255 - 0.3), labels[which])

    return make, loss, (part("train"), part("t10k")), 2e-3


def main():
    folder = os.environ.get("MNEMOSYNE_DATA")
    if not folder:
        sys.exit("expected the folder of the data sets in MNEMOSYNE_DATA, got nothing")
    for name in sys.argv[1:] or ["characters", "patches"]:
        make, loss, parts, rate = {"characters": characters, "patches": patches}[name](folder)
        print(f"| {name} | validation loss |\n|---|---|", flush=True)
        for form, options in FORMS.items():
            losses = [
                held_out_loss(make(options, seed), loss, parts, rate, STEPS, seed)
                for seed in range(SEEDS)
            ]
            rounded = ", ".join(f"{loss:.3f}" for loss in losses)
            print(f"| {form} | {sum(losses) / SEEDS:.3f} ({rounded}) |", flush=True)


if __name__ == "__main__":
    main()
