"""Weights and poles of the sign function that mnemosyne/ops/orthogonalize/poles.h uses.

Zolotarev's best odd rational approximation of type (2r - 1, 2r) to sign(x) on [l, 1] and
[-1, -l], as partial fractions: f(x) = sum_j w_j x / (x^2 + c_j), j = 1..r. With K the complete
elliptic integral of modulus sqrt(1 - l^2), c_i = l^2 sn^2(i K / 2r) / cn^2(i K / 2r) for
i = 1..2r - 1: those of odd i are the poles, those of even i the zeros (Zolotarev 1877; for polar
factors Nakatsukasa and Freund, SIAM Review 58, 2016).

    python scripts/zolotarev.py            # the constants in the library
    python scripts/zolotarev.py 1e-3 4     # another interval, another number of terms
"""

import sys

import numpy as np
from scipy.special import ellipj, ellipk


def sign_terms(smallest: float, num_terms: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights, poles and the largest error on [smallest, 1]."""
    modulus = 1 - smallest**2
    steps = np.arange(1, 2 * num_terms) * ellipk(modulus) / (2 * num_terms)
    sn, cn, _, _ = ellipj(steps, modulus)
    c = (smallest * sn / cn) ** 2
    poles, zeros = c[0::2], c[1::2]

    weights = np.empty(num_terms)
    for j, pole in enumerate(poles):
        weights[j] = np.prod(zeros - pole) / np.prod(np.delete(poles, j) - pole)
    x = np.geomspace(smallest, 1, 100_001)
    f = (weights * x[:, None] / (x[:, None] ** 2 + poles)).sum(1)
    center = (f.min() + f.max()) / 2
    return weights / center, poles, float(np.abs(f / center - 1).max())


def main() -> None:
    smallest = float(sys.argv[1]) if len(sys.argv) > 1 else 5e-4
    num_terms = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    weights, poles, error = sign_terms(smallest, num_terms)
    print("weights  " + ", ".join(f"{w:.8e}" for w in weights))
    print("poles    " + ", ".join(f"{c:.8e}" for c in poles))
    print(f"error    {error:.4f} on [{smallest:g}, 1]; slope at 0: {(weights / poles).sum():.1f}")


if __name__ == "__main__":
    main()
