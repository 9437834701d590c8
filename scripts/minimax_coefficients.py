"""Compute the coefficients of ``minimax``, the table in gcpzoo/functional/minimax.py.

    python scripts/minimax_coefficients.py

Each step applies p(s) = as + bs³ + cs⁵ to the square roots s of the eigenvalues, which a chain of steps is to take to
1. On the interval [l, u] that the steps before leave, p is the one of which the largest distance to 1 is the least;
it takes [l, u] to [1-e, 1+e], the next interval. Amsel, Persson, Musco and Gower ("The Polar Express", arXiv
2505.16932) show that such a greedy chain is the best of its length. As there, every step but the last takes s/1.01 for
s, so that rounding does not carry a value past u, from where it would run away.

The first interval is [:data:`BOUNDS`, 1]; smaller s end between 0 and 1. A lower bound makes the error larger on the
interval and smaller below it; these balance the two for features of networks.
"""

from __future__ import annotations

import numpy as np

BOUNDS = {3: 0.05, 4: 0.014, 5: 0.005, 6: 0.0015}
"""The smallest square root of an eigenvalue that so many steps are made for."""
SAFETY = 1.01


def quintic(low: float, high: float) -> tuple[float, float, float]:
    """Coefficients of the odd polynomial of degree 5 nearest to 1 on [low, high], by Remez' exchange."""
    inner = np.array([3 * low + high, low + 3 * high]) / 4
    for _ in range(100):
        points = np.array([low, *inner, high])  # here the distance to 1 is ±e in turns
        system = np.stack([points, points**3, points**5, [1, -1, 1, -1]], 1)
        a, b, c, _ = np.linalg.solve(system, np.ones(4))
        before, inner = inner, np.sqrt((-3 * b + np.array([-1, 1]) * np.sqrt(9 * b * b - 20 * a * c)) / (10 * c))
        if np.allclose(before, inner, rtol=1e-14, atol=0):
            break
    return float(a), float(b), float(c)


def chain(low: float, steps: int, safety: float = SAFETY) -> tuple[list[tuple[float, float, float]], float]:
    """The coefficients of all steps, and the largest distance to 1 after the last."""
    high, found = 1.0, []
    for step in range(steps):
        factor = safety if step < steps - 1 else 1.0
        a, b, c = quintic(low, high)
        a, b, c = a / factor, b / factor**3, c / factor**5
        found.append((a, b, c))
        low = a * low + b * low**3 + c * low**5
        high = 2 - low
    return found, 1 - low


def main() -> None:
    for steps, bound in BOUNDS.items():
        found, error = chain(bound, steps)
        print(f"    {steps}: (  # square roots from {bound}: relative error at most {error:.1e}")
        for triple in found:
            print(f"        ({', '.join(f'{value:.9f}' for value in triple)}),")
        print("    ),")


if __name__ == "__main__":
    main()
