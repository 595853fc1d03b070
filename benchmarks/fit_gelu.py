"""The polynomials of the runtime's GELU: erf(x / sqrt 2) as x P(x^2) / Q(x^2).

    python -m benchmarks.fit_gelu

Coefficients are fitted by weighted least squares, linear in P and Q once Q's last value divides the
weights; places of large errors weigh more in the next step, so that the greatest error falls.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from benchmarks.real import machine

LIMIT = 5.3
"""Where x is clamped: erf(x / sqrt 2) is 1 - 1.2e-7 there."""
TOP, BOTTOM = 6, 4
"""Degrees of P and Q in x^2."""
STEPS = 300
Floats = NDArray[np.float64]


def main() -> None:
    """Print the coefficients of P and Q, and the greatest error of GELU in float32."""
    print(machine())
    top, bottom = fit()
    print("P:", [float(np.float32(value)) for value in top])
    print("Q:", [float(np.float32(value)) for value in bottom])
    x = np.linspace(-8, 8, 200_001)
    error = np.abs(gelu(x, top, bottom) - exact(x)).max()
    print(f"greatest error of GELU between -8 and 8: {error:.1e}")


def fit() -> tuple[Floats, Floats]:
    """Return the coefficients of P and Q, that of the lowest power first."""
    x = (np.cos(np.linspace(0, np.pi, 4001)) + 1) / 2 * LIMIT
    x = x[x > 1e-3]
    wanted, share = erf(x / np.sqrt(2)), (x / LIMIT) ** 2
    powers = share[:, None] ** np.arange(TOP + 1)
    columns = np.concatenate(
        [x[:, None] * powers, -wanted[:, None] * powers[:, 1 : BOTTOM + 1]], axis=1
    )
    weights, divisor, best = np.ones_like(x), np.ones_like(x), (np.inf, np.zeros(0), np.zeros(0))
    for _ in range(STEPS):
        scale = weights / divisor
        solved = np.linalg.lstsq(columns * scale[:, None], wanted * scale, rcond=None)[0]
        top, bottom = solved[: TOP + 1], np.concatenate(([1.0], solved[TOP + 1 :]))
        divisor = powers[:, : BOTTOM + 1] @ bottom
        error = np.abs(x * (powers @ top) / divisor - wanted) * np.maximum(x, 1)
        if error.max() < best[0]:
            best = (float(error.max()), top, bottom)
        weights *= 0.5 + 0.5 * error / error.mean()
        weights /= weights.mean()
    return tuple(c / LIMIT ** (2 * np.arange(len(c))) for c in best[1:])  # type: ignore[return-value]


def gelu(x: Floats, top: Floats, bottom: Floats) -> Floats:
    """Return GELU as the runtime computes it, rounded to float32 at each step."""
    t = np.clip(x, -LIMIT, LIMIT).astype(np.float32)
    p, q = (np.polyval(c[::-1].astype(np.float32), t * t) for c in (top, bottom))
    half = np.float32(0.5) * x.astype(np.float32)
    return (half * (t * p / q) + half).astype(np.float64)


def exact(x: Floats) -> Floats:
    """Return GELU in double precision."""
    return np.asarray(x * 0.5 * (1 + erf(x / np.sqrt(2))))


if __name__ == "__main__":
    main()
