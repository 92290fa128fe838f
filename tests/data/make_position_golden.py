"""Write position_golden.h: position masks and spectra by means other than the library's.

    python tests/data/make_position_golden.py          (NumPy and SciPy)

Smoothed balls are distribution functions of the non-central chi-squared law, the smoothed L1 ball
is a quadrature, Matern kernels use Bessel functions of the second kind, the quantiles of the sinc^2
density a root finder. Inputs are formulas, so that the C++ tests can repeat them without a file.
"""

import pathlib

import numpy as np
import scipy
from scipy import integrate, optimize, special, stats

WIDTHS = np.array([0.8, 1.7])
SMOOTHING = 0.25
SIGMA = np.array([0.05, 0.11, 0.3])
AMPLITUDE = np.array([0.7, -0.4, 0.2])


def offsets(dim):
    k = np.arange(5.0)
    return np.stack([0.3 * k - 0.7, 0.1 * k * k - 0.5, 0.4 * np.sin(k)], -1)[:, :dim]


def centres(dim):
    t = np.arange(3.0)
    return np.stack([0.1 * t, 0.2 - 0.15 * t, 0.05 * t * t], -1)[:, :dim]


def mixture(dim, phase):
    z = offsets(dim)
    envelope = np.exp(-2 * np.pi**2 * SIGMA**2 * (z**2).sum(-1, keepdims=True))
    angle = 2 * np.pi * z @ centres(dim).T + phase * np.array([0.3, -0.5, 1.1])
    return (AMPLITUDE * envelope * np.cos(angle)).sum(-1)


def shell_mixture():
    """Centres of radius |mu_t| in all directions, by quadrature over the polar angle."""
    radius = np.linalg.norm(offsets(3), axis=-1)
    shells = np.array([0.1, 0.25, 0.4])
    result = np.zeros(len(radius))
    for amplitude, sigma, shell in zip(AMPLITUDE, SIGMA, shells, strict=True):
        for i, r in enumerate(radius):
            scale = 2 * np.pi * shell * r
            mean = integrate.quad(lambda c, scale=scale: np.cos(scale * c), -1, 1)[0] / 2
            result[i] += amplitude * np.exp(-2 * np.pi**2 * sigma**2 * r * r) * mean
    return result


def matern(nu):
    radius = np.linalg.norm(offsets(2), axis=-1)[:, None]
    x = np.sqrt(2 * nu) * 2 * np.pi * SIGMA * radius
    return (AMPLITUDE * 2 ** (1 - nu) / special.gamma(nu) * x**nu * special.kv(nu, x)).sum(-1)


def laplace():
    distance = np.abs(offsets(2)).sum(-1, keepdims=True)
    return (AMPLITUDE * np.exp(-2 * np.pi * SIGMA * distance)).sum(-1)


def smooth_ball(dim):
    square = (offsets(dim) ** 2).sum(-1, keepdims=True)
    tau = SMOOTHING * WIDTHS
    return stats.ncx2.cdf((WIDTHS / tau) ** 2, dim, square / tau**2)


def smooth_l1_ball():
    result = np.zeros((5, 2))
    for i, z in enumerate(offsets(2)):
        for j, v in enumerate(WIDTHS):
            tau = SMOOTHING * v

            def strip(x, v=v, tau=tau, z=z):
                half = v - abs(x)
                inside = stats.norm.cdf((z[1] + half) / tau) - stats.norm.cdf((z[1] - half) / tau)
                return stats.norm.pdf(x, z[0], tau) * inside

            result[i, j] = integrate.quad(strip, -v, v, points=[0.0, z[0]], epsabs=1e-13)[0]
    return result


def ball_spectrum(dim):
    radius = np.linalg.norm(offsets(dim), axis=-1)[:, None]
    order = dim / 2
    return (WIDTHS / radius) ** order * special.jv(order, 2 * np.pi * WIDTHS * radius)


def l1_ball_spectrum():
    xi = offsets(2)
    total, difference = xi.sum(-1)[:, None], (xi[:, 0] - xi[:, 1])[:, None]
    return 2 * WIDTHS**2 * np.sinc(WIDTHS * total) * np.sinc(WIDTHS * difference)


def fejer_quantiles():
    def mass(x):
        s = np.sin(np.pi * x)
        return 0.5 + (special.sici(2 * np.pi * x)[0] - s * s / (np.pi * x)) / np.pi

    levels = [0.55, 0.75, 0.9, 0.97, 0.995, 0.9999]
    return np.array([optimize.brentq(lambda x, u=u: mass(x) - u, 1e-9, 1e4) for u in levels])


def table(name, values):
    numbers = [repr(float(v)) for v in np.ravel(values)]
    lines = ["    " + ", ".join(numbers[i : i + 4]) + "," for i in range(0, len(numbers), 4)]
    return "\n".join([f"inline constexpr double {name}[] = {{", *lines, "};", ""])


def main():
    tables = {
        "kMixture2": mixture(2, 0.0),
        "kMixturePhase3": mixture(3, 1.0),
        "kShellMixture": shell_mixture(),
        "kMatern05": matern(0.5),
        "kMatern15": matern(1.5),
        "kMatern25": matern(2.5),
        "kLaplace": laplace(),
        "kSmoothDisc": smooth_ball(2),
        "kSmoothBall": smooth_ball(3),
        "kSmoothInterval": smooth_ball(1),
        "kSmoothL1Ball": smooth_l1_ball(),
        "kDiscSpectrum": ball_spectrum(2),
        "kBallSpectrum": ball_spectrum(3),
        "kL1BallSpectrum": l1_ball_spectrum(),
        "kFejerQuantiles": fejer_quantiles(),
    }
    parts = [
        f"// Written by make_position_golden.py with SciPy {scipy.__version__}.",
        "#pragma once\n\n// clang-format off\nnamespace mnemosyne::golden {\n",
        *[table(name, values) for name, values in tables.items()],
        "}  // namespace mnemosyne::golden",
    ]
    pathlib.Path(__file__).with_name("position_golden.h").write_text("\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
