"""How well masks and factors of attention are realised by few features.

    python benchmarks/position_rank.py            (a few minutes; NumPy and torch)

First, a Gaussian mixture f of 8 terms, sum |A| = 1: root mean square over 200 sets of draws of the
largest error |f^ - f| over the offsets 0 ... 127, plain draws against shifted lattices.

Second, factors of the attention weight. For masks h on the offsets 0 ... 127 of a sequence, the
error sum |h^ - h| / sum h of a row whose keys all weigh the same, and in brackets the lowest value
of h^ over the largest of h; means and minima over five random mixtures per sharpness:

    waves    the constant and the largest waves of h on the grid (factor "exp")
    square   a constant and waves fitted to sqrt(h), squared (factor "square")
    damped   what nn::DampedPosition has, fitted by gradient: causal only
    svd      the best matrix of that rank without any structure: what no features can beat
"""

import numpy as np
import torch

LENGTH = 128
Z = np.arange(LENGTH)


def mixture(rng, total):
    widths = np.geomspace(1, LENGTH / 4, 8)
    amplitude = rng.normal(size=8)
    amplitude *= total / np.abs(amplitude).sum()
    amplitude[0] = abs(amplitude[0])
    centre = np.where(rng.random(8) < 0.5, 0, rng.normal(size=8) * 0.08)
    envelope = np.exp(-(Z[:, None] ** 2) / (2 * widths**2))
    return np.exp((envelope * np.cos(2 * np.pi * Z[:, None] * centre)) @ amplitude)


def masks():
    """Name -> masks. The seed is not the one with which the form of `damped` was chosen."""
    rng = np.random.default_rng(1)
    result = {f"f, sum A = {total}": [mixture(rng, total) for _ in range(5)] for total in (1, 3, 6)}
    result["exp(6 Gaussian of width 4)"] = [np.exp(6 * np.exp(-(Z**2) / 32))]
    result["ALiBi, slope 1/4"] = [np.exp(-0.25 * Z)]
    wave = np.exp(-(Z**2) / 512) * np.cos(2 * np.pi * Z / 8)
    result["exp(3 damped cosine, period 8)"] = [np.exp(3 * wave)]
    return result


def largest_error(count, lattice, sets=200):
    rng = np.random.default_rng(1)
    sigma = 1 / (2 * np.pi * np.geomspace(1, LENGTH / 4, 8))
    squares = []
    for _ in range(sets):
        amplitude = rng.normal(size=8)
        amplitude /= np.abs(amplitude).sum()
        centre = rng.normal(size=8) * sigma
        uniform = rng.random((8, count // 8))
        if lattice:
            points = np.arange(count // 8) / (count // 8)
            uniform = (points + rng.random((8, 1))) % 1
        draws = torch.erfinv(torch.tensor(2 * uniform - 1)).numpy() * np.sqrt(2)
        xi = centre[:, None] + sigma[:, None] * draws
        estimate = np.cos(2 * np.pi * Z[:, None, None] * xi).mean(-1) @ amplitude
        envelope = np.exp(-2 * np.pi**2 * sigma**2 * Z[:, None] ** 2)
        exact = (envelope * np.cos(2 * np.pi * Z[:, None] * centre)) @ amplitude
        squares.append(np.abs(estimate - exact).max() ** 2)
    return np.sqrt(np.mean(squares))


def waves(h, features):
    mirrored = np.concatenate([h, h[:0:-1]])
    c = np.fft.rfft(mirrored).real / len(mirrored)
    c[1:] *= 2
    keep = 1 + np.argsort(-np.abs(c[1:]))[: (features - 1) // 2]
    angle = 2 * np.pi * keep[:, None] * Z / len(mirrored)
    return c[0] + c[keep] @ np.cos(angle)


def square(h, features):
    count = 0
    while (2 * count + 3) * (2 * count + 4) // 2 <= features:
        count += 1
    return waves(np.sqrt(h), 2 * count + 1) ** 2


def damped(h, features, steps=600):
    terms = (features - 1) // 3
    torch.manual_seed(0)
    z, target = torch.tensor(Z, dtype=torch.float64), torch.tensor(h / h.mean())
    rate = -torch.linspace(0, np.log(LENGTH / 4), terms, dtype=torch.float64)
    parameters = [
        torch.full((1,), -1.0, dtype=torch.float64),
        torch.zeros(terms, dtype=torch.float64),
        rate,
        torch.zeros(terms, dtype=torch.float64),
        torch.exp(rate) / (2 * np.pi) * torch.randn(terms, dtype=torch.float64).abs(),
        torch.randn(terms, dtype=torch.float64),
        torch.full((terms,), -3.0, dtype=torch.float64),
    ]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(parameters, lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        constant, weight, log_rate, modulation, frequency, phase, dip = parameters
        wave = torch.cos(2 * np.pi * z[:, None] * frequency + phase)
        fading = torch.exp(-z[:, None] * log_rate.exp())
        share = torch.softmax(torch.cat([dip, torch.zeros(1, dtype=torch.float64)]), 0)[:-1]
        peaks = (fading * weight.exp() * (1 + modulation.tanh() * wave)).sum(-1)
        fitted = constant.exp() * (1 - fading @ share) + peaks
        loss = (fitted - target).abs().sum() / target.sum() + (fitted - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return fitted.detach().numpy() * h.mean()


def svd_error(h, features):
    matrix = h[np.abs(Z[:, None] - Z)]
    u, s, v = np.linalg.svd(matrix)
    best = (u[:, :features] * s[:features]) @ v[:features]
    return np.abs(best - matrix).sum() / matrix.sum()


def main():
    torch.set_num_threads(1)
    print("| frequencies | independent | quasi-random |\n|---|---|---|")
    for count in (8, 16, 32, 64, 128, 256):
        print(f"| {count} | {largest_error(count, False):.3f} | {largest_error(count, True):.3f} |")
    print("\n| mask | features | waves | square | damped | svd |\n|---|---|---|---|---|---|")
    for name, group in masks().items():
        for features in (7, 16, 33):
            cells = []
            for method in (waves, square, damped):
                fits = [(method(h, features), h) for h in group]
                error = np.mean([np.abs(fit - h).sum() / h.sum() for fit, h in fits])
                lowest = min(fit.min() / h.max() for fit, h in fits)
                cells.append(f"{error:.3f} ({lowest:+.2f})")
            cells.append(f"{np.mean([svd_error(h, features) for h in group]):.3f}")
            print("|", " | ".join([name, str(features), *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
