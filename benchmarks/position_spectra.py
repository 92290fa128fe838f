"""The four spectra of FourierPosition against each other, each with the same number of waves.

    MNEMOSYNE_DATA=... python benchmarks/position_spectra.py [characters | patches]

`characters`: the causal language model of position_loss.py (width 64, 2 layers, context 128), where
what counts is near. `patches`: a ViT (width 64, 2 layers, 49 patches of Fashion-MNIST), where heads
look to different sides. AdamW with a cosine, factor "exp", the mean of two seeds on what was held
out.
"""

import gzip
import math
import os
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from mnemosyne import nn

STEPS, SEEDS, BATCH, CONTEXT = 400, 2, 12, 128
KINDS = ("gaussian_mixture", "shift_invariant", "local", "neural")
FORMS = {"none": {"position": "none"}} | {
    f"{kind}, {waves} waves": {"position": "flt", "spectrum": kind, "num_frequencies": waves}
    for waves in (16, 64)
    for kind in KINDS
}


def characters(folder):
    text = (Path(folder) / "tinyshakespeare" / "input.txt").read_text()
    letters = sorted(set(text))
    codes = torch.tensor([letters.index(c) for c in text])
    parts = codes[: -len(codes) // 10], codes[-len(codes) // 10 :]

    def make(attention, seed):
        return nn.CausalLM(vocabulary=len(letters), context=CONTEXT, attention=attention, seed=seed)

    def loss(model, held_out, generator):
        part = parts[held_out]
        first = torch.randint(len(part) - CONTEXT - 1, (BATCH,), generator=generator)
        rows = part[first[:, None] + torch.arange(CONTEXT + 1)]
        return cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    return make, loss, 1e-2


def patches(folder):
    def read(name, header):
        with gzip.open(Path(folder) / "fashion_mnist" / name) as file:
            return torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8)

    def part(name):
        images = read(f"{name}-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28)
        return images, read(f"{name}-labels-idx1-ubyte.gz", 8).long()

    parts = part("train"), part("t10k")

    def make(attention, seed):
        options = {"image_size": 28, "channels": 1, "patch_size": 4, "num_classes": 10}
        return nn.ViT(**options, width=64, heads=4, layers=2, attention=attention, seed=seed)

    def loss(model, held_out, generator):
        images, labels = parts[held_out]
        which = torch.randint(len(labels), (8 * BATCH,), generator=generator)
        return cross_entropy(model(images[which].float() / 255 - 0.3), labels[which])

    return make, loss, 2e-3


def trained_loss(task, form, seed):
    make, loss, rate = task
    model = make({"num_features": 32, **form}, seed)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / STEPS)
    )
    generator = torch.Generator().manual_seed(1 + seed)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(model, False, generator).backward()
        optimizer.step()
        schedule.step()
    generator.manual_seed(0)
    with torch.no_grad():
        return sum(loss(model, True, generator).item() for _ in range(40)) / 40


def main():
    folder = os.environ.get("MNEMOSYNE_DATA")
    if not folder:
        sys.exit("expected the folder of the data sets in MNEMOSYNE_DATA, got nothing")
    for name in sys.argv[1:] or ["characters", "patches"]:
        task = {"characters": characters, "patches": patches}[name](folder)
        print(f"| {name} | validation loss |\n|---|---|", flush=True)
        for form, options in FORMS.items():
            losses = [trained_loss(task, options, seed) for seed in range(SEEDS)]
            rounded = ", ".join(f"{loss:.3f}" for loss in losses)
            print(f"| {form} | {sum(losses) / SEEDS:.3f} ({rounded}) |", flush=True)


if __name__ == "__main__":
    main()
