"""Which of its two ways the Newton–Schulz root takes, and the first steps written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from module_tester import noise, relative

from gcpzoo.functional import covariance, newton_schulz, newton_schulz_sqrt
from gcpzoo.functional.small_side import few_positions, gram, side


@pytest.mark.parametrize(
    ("d", "m", "iterations", "eigenvalues"),
    [(64, 64, 5, True), (63, 64, 5, False), (64, 63, 5, False), (128, 64, 3, True), (64, 128, 2, False)],
)
def test_eigenvalues_serve_on_a_cpu_from_64_rows_and_three_steps(
    d: int, m: int, iterations: int, eigenvalues: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    plain = newton_schulz.spectral_function

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(args)
        return plain(*args, **kwargs)

    monkeypatch.setattr(newton_schulz, "spectral_function", counted)
    newton_schulz_sqrt(noise(2, d, m), iterations)
    assert bool(calls) == eigenvalues


@pytest.mark.parametrize(("d", "m"), [(4, 9), (9, 4)])
def test_the_first_two_steps_are_their_polynomials(d: int, m: int) -> None:
    x = noise(2, d, m, dtype=torch.float64)
    sigma = covariance(x)
    trace = sigma.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    a, eye = sigma / trace, torch.eye(d, dtype=torch.float64)
    first = a @ (3 * eye - a) / 2
    t = (3 * eye - a @ (3 * eye - a) @ (3 * eye - a) / 4) / 2
    assert relative(newton_schulz_sqrt(x, 1), first * trace.sqrt()) < 1e-12
    assert relative(newton_schulz_sqrt(x, 2), first @ t * trace.sqrt()) < 1e-12


@pytest.mark.parametrize(("d", "m", "rows"), [(9, 4, 4), (4, 9, 4), (5, 5, 5)])
def test_the_smaller_side_is_chosen_by_shape_and_the_channels_where_both_are_equal(d: int, m: int, rows: int) -> None:
    x = noise(2, d, m, dtype=torch.float64)
    a, positions = gram(x)
    assert positions == few_positions(x) == (m < d)
    assert a.shape[1] == side(x) == rows
    torch.testing.assert_close(a, x.mT @ x / m if positions else x @ x.mT / m)
