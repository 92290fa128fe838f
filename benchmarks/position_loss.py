"""Loss against rank against time: one character language model, many learned positions.

    MNEMOSYNE_DATA=... python benchmarks/position_loss.py
    python benchmarks/position_loss.py time          the times alone

A causal Transformer (width 64, 2 layers, context 128) on Tiny Shakespeare, 500 steps of AdamW at
1e-2 with a cosine, the mean of three seeds; ReLU features, 32 a head. `features` is the rank R of
the position; the last columns are the time of forward and backward of one attention over so many
tokens (8 heads of 64, 64 features) relative to no position.
"""

import math
import os
import sys
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from mnemosyne import nn

STEPS, SEEDS, BATCH, CONTEXT = 500, 3, 12, 128
LENGTHS = (1024, 4096, 16384)
EXP = {"position": "flt", "factor": "exp"}
PHASES = {**EXP, "phase": True, "initial_amplitude": 2.0}
SQUARE = {"position": "flt", "factor": "square"}
FORMS = {
    "none": {"position": "none"},
    **{f"exp, {r} waves": {**EXP, "num_frequencies": r} for r in (4, 8, 16, 32, 64)},
    **{f"exp, {r} waves, phases, A = 2": {**PHASES, "num_frequencies": r} for r in (64, 128)},
    **{f"square, {r} waves": {**SQUARE, "num_frequencies": r} for r in (4, 8)},
    **{f"damped, {t}": {"position": "damped", "num_components": t} for t in (1, 2, 4, 8)},
}


def load(folder):
    text = (Path(folder) / "tinyshakespeare" / "input.txt").read_text()
    letters = sorted(set(text))
    codes = torch.tensor([letters.index(c) for c in text])
    return codes[: -len(codes) // 10], codes[-len(codes) // 10 :], len(letters)


def batch(codes, generator):
    first = torch.randint(len(codes) - CONTEXT - 1, (BATCH,), generator=generator)
    rows = codes[first[:, None] + torch.arange(CONTEXT + 1)]
    return rows[:, :-1], rows[:, 1:]


def loss_of(model, codes, generator):
    tokens, targets = batch(codes, generator)
    return cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


def language_model(form, vocabulary, seed):
    attention = {"num_features": 32, **form}
    return nn.CausalLM(vocabulary=vocabulary, context=CONTEXT, attention=attention, seed=seed)


def held_out_loss(model, loss_of, parts, rate, steps, seed):
    """After training with `loss_of(model, part, generator)` on the first of two parts."""
    train, held_out = parts
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps)
    )
    generator = torch.Generator().manual_seed(1 + seed)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, train, generator).backward()
        optimizer.step()
        schedule.step()
    generator.manual_seed(0)
    with torch.no_grad():
        return sum(loss_of(model, held_out, generator).item() for _ in range(40)) / 40


def position(form):
    if form["position"] == "none":
        return None
    if form["position"] == "damped":
        return nn.DampedPosition(8, num_components=form["num_components"])
    components = math.gcd(8, form["num_frequencies"])
    options = {k: v for k, v in form.items() if k != "position"}
    return nn.FourierPosition(
        8, coupling="multiplicative", num_components=components, extent=4096, **options
    )


def milliseconds(encoding, length):
    """Forward and backward of one attention over so many tokens."""
    attention = nn.LinearAttention(512, 8, causal=True, position=encoding)
    x = torch.randn(1, length, 512, requires_grad=True)
    times = []
    for _ in range(max(3, 16384 // length)):
        start = time.perf_counter()
        attention(x).sum().backward()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def times():
    """Name, features of the position, and times relative to no position."""
    base = None
    for name, form in FORMS.items():
        encoding = position(form)
        features = 1
        if encoding is not None:
            features = encoding.features(torch.zeros(1, 1))[0].shape[-1]
        own = [milliseconds(encoding, length) for length in LENGTHS]
        base = base or own
        yield name, features, " | ".join(f"{a / b:.1f}" for a, b in zip(own, base, strict=True))


def main():
    lengths = " | ".join(f"{length:,}" for length in LENGTHS)
    print(
        f"| position | features | validation loss | {lengths} |\n|---|---|---|---|---|---|",
        flush=True,
    )
    if sys.argv[1:] == ["time"]:
        for name, features, ratios in times():
            print(f"| {name} | {features} | - | {ratios} |", flush=True)
        return
    folder = os.environ.get("MNEMOSYNE_DATA")
    if not folder:
        sys.exit("expected the folder of the data sets in MNEMOSYNE_DATA, got nothing")
    torch.manual_seed(0)
    *parts, vocabulary = load(folder)
    for name, features, ratios in list(times()):
        losses = [
            held_out_loss(
                language_model(FORMS[name], vocabulary, seed), loss_of, parts, 1e-2, STEPS, seed
            )
            for seed in range(SEEDS)
        ]
        print(f"| {name} | {features} | {sum(losses) / SEEDS:.3f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
