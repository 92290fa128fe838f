"""Coefficients of the quintic steps that mnemosyne/ops/orthogonalize/device.cpp uses.

The greedy composition that Polar Express (Amsel et al., arXiv 2505.16932) shows to be optimal: each
step is the odd quintic nearest to 1 on the interval in which the singular values are, found by
Remez exchange, and maps it to the interval of the next. Two safeguards: a step is fitted on an
interval no wider than .024 : 1, so that small values are not amplified at the cost of large ones
in low precision, and it is used at x / 1.01, so that rounding does not push a singular value out
of the interval.

    python scripts/polar_express.py                # the constants in the library
    python scripts/polar_express.py 1e-4 6         # another interval, another number of steps
"""

import sys

import numpy as np

WIDEST = 0.024
SAFETY = 1.01


def nearest_quintic(lower: float, upper: float) -> np.ndarray:
    """(a, b, c) that minimise the maximum of |1 - (a x + b x^3 + c x^5)| on [lower, upper]."""
    inner = np.array([0.75 * lower + 0.25 * upper, 0.25 * lower + 0.75 * upper])
    for _ in range(100):
        x = np.array([lower, inner[0], inner[1], upper])
        signs = np.array([1, -1, 1, -1])
        a, b, c, _ = np.linalg.solve(np.stack([x, x**3, x**5, signs], 1), np.ones(4))
        root = np.sqrt(9 * b**2 - 20 * a * c)
        moved = np.sqrt(np.array([-3 * b - root, -3 * b + root]) / (10 * c))
        if np.abs(moved - inner).max() < 1e-14:
            break
        inner = moved
    return np.array([a, b, c])


def steps(smallest: float, num_steps: int) -> tuple[list[np.ndarray], float]:
    """Coefficients of every step and the error on [smallest, 1] of their composition."""
    x = np.geomspace(smallest, 1, 100_001)
    lower, upper = smallest, 1.0
    result = []
    for _ in range(num_steps):
        coefficients = nearest_quintic(max(lower, WIDEST * upper), upper)
        coefficients = coefficients / SAFETY ** np.array([1, 3, 5])
        x = coefficients @ np.stack([x, x**3, x**5])
        lower, upper = x.min(), x.max()
        center = (lower + upper) / 2
        coefficients, x = coefficients / center, x / center
        lower, upper = lower / center, upper / center
        result.append(coefficients)
    return result, float(np.abs(x - 1).max())


def main() -> None:
    smallest = float(sys.argv[1]) if len(sys.argv) > 1 else 1e-3
    num_steps = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    coefficients, error = steps(smallest, num_steps)
    for a, b, c in coefficients:
        print(f"{{{a:.7f}, {b:.7f}, {c:.7f}}},")
    print(f"error {error:.4f} on [{smallest:g}, 1]")


if __name__ == "__main__":
    main()
