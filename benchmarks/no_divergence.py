"""Whether a run survives what runs meet: the learned optimizer at its one setting beside AdamW.

    python benchmarks/no_divergence.py [--conditions "plain;batch of 1"] [--steps 300]

Two networks: a classifier of 20 numbers by a teacher's label, and for the vocabulary a model of
pairs of tokens with 50,000 of them, its embedding tied. What is shown is the mean loss of the last
tenth of the run in units of the first ten steps', before any scaling, and what the optimizers had
to replace: entries of gradients that were not finite, updates that were not, and steps of tensors
that the guard damped.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F

from mnemosyne.optim import Mnemosyne

WIDTH, CLASSES, INPUTS, VOCABULARY = 64, 10, 20, 50_000
CONDITIONS = {
    "plain": {},
    "batch of 1": {"batch": 1},
    "loss times 1e-6": {"scale": 1e-6},
    "loss times 1e6": {"scale": 1e6},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16, GradScaler": {"scaler": True},
    "a layer frozen, then thawed": {"frozen": (0.3, 0.6)},
    "vocabulary of 50,000": {"words": True},
    "10,000 steps": {"length": 10_000},
}


class Words(nn.Module):
    """The next token from the one before it; most tokens never occur."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 32)
        self.body = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, tokens):
        x = self.embedding(tokens)
        return F.linear(x + self.body(x), self.embedding.weight)


def classifier():
    return nn.Sequential(
        nn.Linear(INPUTS, WIDTH),
        nn.GELU(),
        nn.LayerNorm(WIDTH),
        nn.Linear(WIDTH, WIDTH),
        nn.GELU(),
        nn.Linear(WIDTH, CLASSES),
    )


def batch_of(words, size, generator, teacher):
    if words:
        # Zipf's law over the first thousands; the next token is a fixed function of this one.
        rank = torch.rand(size, generator=generator).pow(-1.0).clamp_max(4000.0).long() - 1
        return rank, (rank * 7919 + 13) % 4000
    x = torch.randn(size, INPUTS, generator=generator)
    return x, (x @ teacher).argmax(1)


def optimizers(length):
    return {
        "AdamW, 1e-3": lambda p: torch.optim.AdamW(p, lr=1e-3),
        "Mnemosyne": lambda p: Mnemosyne(p),
        "Mnemosyne, number of steps given": lambda p: Mnemosyne(p, num_steps=length),
        "base rule alone": lambda p: Mnemosyne(p, learned=False),
    }


def run(make, length, batch=64, scale=1.0, dtype=None, scaler=False, frozen=None, words=False):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    teacher = torch.randn(INPUTS, CLASSES, generator=torch.Generator().manual_seed(2))
    model = Words() if words else classifier()
    if dtype is not None:
        model.to(dtype)
    optimizer = make(model.parameters())
    grad_scaler = torch.amp.GradScaler("cpu", enabled=scaler)
    losses = []
    for step in range(length):
        if frozen is not None:
            held = frozen[0] <= step / length < frozen[1]
            next(model.children()).requires_grad_(not held)
        x, y = batch_of(words, batch, generator, teacher)
        x = x if words or dtype is None else x.to(dtype)
        with torch.autocast("cpu", torch.float16, enabled=scaler):
            loss = F.cross_entropy(model(x).float(), y)
        optimizer.zero_grad()
        grad_scaler.scale(loss * scale).backward()
        grad_scaler.step(optimizer)
        grad_scaler.update()
        losses.append(loss.item())
    last = losses[-max(length // 10, 1) :]
    counts = ("nonfinite", "fallback", "damped")
    replaced = [getattr(optimizer, f"{name}_count", 0) for name in counts]
    return sum(last) / len(last) / (sum(losses[:10]) / 10), replaced


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--conditions", default=";".join(CONDITIONS), help="divided by ;")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = list(optimizers(1))
    print("| | " + " | ".join(names) + " | replaced |\n|---|" + "---|" * (len(names) + 1))
    for condition in options.conditions.split(";"):
        settings = dict(CONDITIONS[condition])
        length = settings.pop("length", options.steps)
        results = [run(make, length, **settings) for make in optimizers(length).values()]
        replaced = [sum(counts) for counts in zip(*(r[1] for r in results), strict=True)]
        cells = " | ".join(f"{value:.3g}" for value, _ in results)
        print(f"| {condition} | {cells} | {' + '.join(map(str, replaced))} |", flush=True)


if __name__ == "__main__":
    main()
