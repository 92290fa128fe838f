"""Processor time to the final loss of tuned AdamW, on networks of a million parameters.

    MNEMOSYNE_DATA=... python benchmarks/wall_clock.py [--tasks "language model;ViT"] [--steps 200]

A causal Transformer on Tiny Shakespeare, a ViT on Fashion-MNIST and a residual network with batch
norm on CIFAR-10, 1.1 to 1.2 million parameters each, one thread. AdamW is tuned for each over four
learning rates with a cosine, on a seed of its own; its final loss (mean of the last twentieth, mean
of the seeds, + 2 %) is the target. What is shown is the time of a step in units of AdamW's and the
time until the mean loss over as many steps is at the target in units of AdamW's whole run: all of
it, forward, backward and the step. `-`: not reached. Beside it losses of training and validation at
the end.
"""

import argparse
import gzip
import math
import os
import sys
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from mnemosyne import nn
from mnemosyne.optim import Mnemosyne

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
TUNING_SEED, SEEDS = 10, (0, 1)
CONTEXT = 64


class LanguageModel:
    """Letters of Tiny Shakespeare, 16 windows of 64 a batch."""

    def __init__(self, folder):
        text = (folder / "tinyshakespeare" / "input.txt").read_text()
        letters = sorted(set(text))
        codes = torch.tensor([letters.index(c) for c in text])
        self.vocabulary = len(letters)
        self.parts = codes[: -len(codes) // 10], codes[-len(codes) // 10 :]

    def model(self, seed):
        return nn.CausalLM(
            vocabulary=self.vocabulary, context=CONTEXT, width=128, heads=4, layers=6, seed=seed
        )

    def loss(self, model, part, generator):
        codes = self.parts[part]
        first = torch.randint(len(codes) - CONTEXT - 1, (16,), generator=generator)
        rows = codes[first[:, None] + torch.arange(CONTEXT + 1)]
        return cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


class Images:
    """So many images a batch."""

    batch = 32

    def loss(self, model, part, generator):
        images, labels = self.parts[part]
        which = torch.randint(len(labels), (self.batch,), generator=generator)
        return cross_entropy(model(images[which].float() / 128 - 1), labels[which])


class VisionTransformer(Images):
    """Fashion-MNIST, patches of 4 x 4."""

    batch = 16

    def __init__(self, folder):
        def read(name, header):
            with gzip.open(folder / "fashion_mnist" / name) as file:
                return torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8)

        self.parts = [
            (
                read(f"{name}-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28),
                read(f"{name}-labels-idx1-ubyte.gz", 8).long(),
            )
            for name in ("train", "t10k")
        ]

    def model(self, seed):
        sizes = {"width": 128, "heads": 4, "layers": 6}
        return nn.ViT(image_size=28, channels=1, patch_size=4, num_classes=10, **sizes, seed=seed)


class Block(torch.nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()

        def convolution(a, b, size, stride):
            layer = torch.nn.Conv2d(a, b, size, stride, size // 2, bias=False)
            return torch.nn.Sequential(layer, torch.nn.BatchNorm2d(b))

        self.first = convolution(inputs, outputs, 3, stride)
        self.second = convolution(outputs, outputs, 3, 1)
        same = inputs == outputs
        self.skip = torch.nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x):
        return (self.skip(x) + self.second(self.first(x).relu())).relu()


class ResidualNetwork(Images):
    """CIFAR-10; four blocks of 32 to 224 channels, 16 x 16 to 4 x 4 pixels."""

    def __init__(self, folder):
        def read(name):
            with gzip.open(folder / "cifar10" / f"{name}.bin.gz") as file:
                rows = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).view(-1, 3073)
            return rows[:, 1:].view(-1, 3, 32, 32), rows[:, 0].long()

        self.parts = read("data_batch_1"), read("test_batch")

    def model(self, seed):
        torch.manual_seed(seed)
        widths = (32, 64, 128, 224)
        blocks = [Block(a, b, 2) for a, b in zip(widths, widths[1:], strict=False)]
        stem = torch.nn.Conv2d(3, widths[0], 3, 2, 1)
        head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(widths[-1], 10)]
        return torch.nn.Sequential(stem, Block(widths[0], widths[0], 1), *blocks, *head)


TASKS = {
    "language model": LanguageModel,
    "ViT": VisionTransformer,
    "residual network": ResidualNetwork,
}


def adamw(rate, steps):
    def make(params):
        optimizer = torch.optim.AdamW(params, rate, fused=True)
        course = lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps)  # noqa: E731
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, course)

    return make


def optimizers(steps):
    return {
        "base rule alone, number of steps given": lambda p: Mnemosyne(
            p, learned=False, num_steps=steps
        ),
        "Mnemosyne": lambda p: Mnemosyne(p),
        "Mnemosyne, number of steps given": lambda p: Mnemosyne(p, num_steps=steps),
        "with attention, number of steps given": lambda p: Mnemosyne(
            p, variant="attention", num_steps=steps
        ),
    }


def run(task, make, seed, steps):
    """Losses and processor seconds of the steps, and the loss on what was held out."""
    model = task.model(seed)
    made = make(model.parameters())
    optimizer, schedule = made if isinstance(made, tuple) else (made, None)
    generator = torch.Generator().manual_seed(1000 + seed)
    losses, seconds = [], []
    for _ in range(steps):
        start = time.process_time()
        optimizer.zero_grad()
        loss = task.loss(model, 0, generator)
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        losses.append(loss.item())
        seconds.append(time.process_time() - start)
    model.eval()
    generator.manual_seed(0)
    with torch.no_grad():
        held_out = sum(task.loss(model, 1, generator).item() for _ in range(40)) / 40
    return losses, seconds, held_out


def mean(values):
    return sum(values) / len(values)


def reached(losses, seconds, target, window):
    """Seconds until the mean of the last losses is at the target, or None."""
    for end in range(window, len(losses) + 1):
        if mean(losses[end - window : end]) <= target:
            return sum(seconds[:end])
    return None


def compare(task, steps):
    window = max(steps // 20, 1)
    final = {
        rate: mean(run(task, adamw(rate, steps), TUNING_SEED, steps)[0][-window:]) for rate in RATES
    }
    rate = min(final, key=final.get)
    runs = {f"AdamW, {rate:g}, cosine": [run(task, adamw(rate, steps), s, steps) for s in SEEDS]}
    for name, make in optimizers(steps).items():
        runs[name] = [run(task, make, s, steps) for s in SEEDS]
    (first, *_) = runs.values()
    target = 1.02 * mean([mean(losses[-window:]) for losses, _, _ in first])
    whole = mean([sum(seconds) for _, seconds, _ in first])
    for name, own in runs.items():
        times = [reached(losses, seconds, target, window) for losses, seconds, _ in own]
        yield (
            name,
            f"{mean([sum(seconds) for _, seconds, _ in own]) / whole:.2f}",
            "-" if None in times else f"{mean(times) / whole:.2f}",
            f"{mean([mean(losses[-window:]) for losses, _, _ in own]):.4f}",
            f"{mean([held_out for _, _, held_out in own]):.4f}",
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--tasks", default=";".join(TASKS), help="divided by ;")
    options = parser.parse_args()
    folder = os.environ.get("MNEMOSYNE_DATA")
    if not folder:
        sys.exit("expected the folder of the data sets in MNEMOSYNE_DATA, got nothing")
    torch.set_num_threads(1)
    for name in options.tasks.split(";"):
        task = TASKS[name](Path(folder))
        size = sum(p.numel() for p in task.model(0).parameters())
        print(
            f"\n| {name}, {size / 1e6:.2f} M parameters, {options.steps} steps "
            "| step | time to the target | training loss | validation loss |\n|---|---|---|---|---|"
        )
        for row in compare(task, options.steps):
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
