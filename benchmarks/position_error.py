"""How far linear attention with a learned position is from the softmax attention that it estimates.

    python benchmarks/position_error.py           (a minute)

Causal attention of 4 heads of 16 over 128 random tokens, queries and keys of unit variance, the
bias f of each head a Gaussian mixture of 8 terms with random centres. Exact is softmax attention
with that bias. `M` positive random features (favor+) estimate the softmax kernel, `R` waves the
position; `position alone` has the exact kernel with the position that the waves realise. Sum over
the keys of the absolute error of the attention weights, which themselves sum to one: mean over
queries, heads and five draws of the features.

    multiplicative   factor exp of R waves, sum |A| = 4
    concatenate      R frequencies beside query and key, sum |A| = 1
"""

import torch

from mnemosyne import nn

HEADS, LENGTH, DEPTH, DRAWS = 4, 128, 16, 5
POSITIONS = torch.arange(LENGTH, dtype=torch.float64).unsqueeze(-1)
OFFSETS = POSITIONS.unsqueeze(1) - POSITIONS.unsqueeze(0)


def position(coupling, total, waves):
    return nn.FourierPosition(
        HEADS,
        coupling=coupling,
        num_frequencies=waves,
        max_width=LENGTH / 4,
        extent=LENGTH,
        initial_amplitude=total,
        seed=1,
    )


def softmax_attention(q, k, v, bias):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, bias)


def row_error(actual, exact):
    return (actual - exact).abs().sum(-1).mean().item()


def errors(coupling, total, waves, features):
    """Of attention by features, and of softmax attention with the realised position."""
    encoding = position(coupling, total, waves)
    q, k = torch.randn(2, 1, HEADS, LENGTH, DEPTH, generator=torch.Generator().manual_seed(0))
    v = torch.eye(LENGTH).expand(1, HEADS, -1, -1)  # so that the output is the weights
    future = OFFSETS.squeeze(-1) < 0
    exact = softmax_attention(q, k, v, encoding.mask(OFFSETS).masked_fill(future, -torch.inf))
    phi, psi = encoding.features(POSITIONS)[:2]
    realised = phi @ psi.mT
    if encoding.multiplicative:
        realised = realised.clamp_min(1e-9).log()
    alone = softmax_attention(q, k, v, realised.masked_fill(future, -torch.inf))
    found = [
        row_error(
            nn.functional.linear_attention(
                q, k, v, num_features=features, causal=True, position=encoding, seed=seed
            ),
            exact,
        )
        for seed in range(DRAWS)
    ]
    return sum(found) / DRAWS, row_error(alone, exact)


@torch.no_grad()
def main():
    counts = (16, 64, 256, 1024)
    print("| coupling | R | position alone |", " | ".join(f"M = {m}" for m in counts), "|")
    print("|---|---|---|" + "---|" * len(counts))
    for coupling, total in (("multiplicative", 4.0), ("concatenate", 1.0)):
        for waves in (8, 16, 32, 64):
            row = [errors(coupling, total, waves, m) for m in counts]
            cells = [f"{row[0][1]:.3f}", *(f"{error:.3f}" for error, _ in row)]
            print(f"| {coupling} | {waves} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
