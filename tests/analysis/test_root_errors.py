"""The reference that roots are measured against, and what is said where a precision fails."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from torch import Tensor

from gcpzoo.analysis.drawing import figures
from gcpzoo.analysis.measurements.root_errors import (
    METHODS,
    ROOTS,
    apply_root,
    exact_root,
    relative_errors,
    root_errors,
)
from gcpzoo.functional import ROOTS as NAMES
from gcpzoo.functional import matrix_power


def features(d: int, m: int, seed: int = 0) -> Tensor:
    return torch.randn(3, d, m, generator=torch.Generator().manual_seed(seed)).relu()


def test_the_reference_solves_the_sylvester_equation_of_the_root() -> None:
    x, g = features(5, 30), torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1))
    root, gradient = exact_root(x, g)
    for i in range(3):
        y = (x[i] - x[i].mean(1, keepdim=True)).double().numpy()
        expected = scipy.linalg.sqrtm(y @ y.T / 30).real
        symmetric = (g[i] + g[i].T).double().numpy() / 2
        solution = scipy.linalg.solve_sylvester(expected, expected, symmetric)
        assert root[i].numpy() == pytest.approx(expected, rel=1e-6, abs=1e-7)
        assert gradient[i].numpy() == pytest.approx(2 / 30 * solution @ y, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("d", "m"), [(5, 30), (12, 6)])
def test_the_reference_is_the_exact_head_in_float64_also_where_the_covariance_is_singular(d: int, m: int) -> None:
    x, g = features(d, m), torch.randn(3, d, d, generator=torch.Generator().manual_seed(1))
    x[:, 1] = 0  # a channel that is dead
    root, gradient = exact_root(x, g)
    own = x.double().requires_grad_()
    value = matrix_power(own)
    (slope,) = torch.autograd.grad(value, own, g.double())
    torch.testing.assert_close(root, value.detach(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-7)


def test_every_root_of_the_zoo_is_measured() -> None:
    assert {name.split()[0] for name in METHODS} == {*NAMES, "autograd"}


def test_methods_differ_by_their_own_error_and_precisions_by_rounding() -> None:
    methods = {name: METHODS[name] for name in ("isqrt 3", "isqrt 10", "exact", "svd_newton")}
    rows = {(row["root"], row["precision"]): row for row in root_errors(features(6, 40), methods=methods)}
    assert rows["exact", "float64"]["forward"] < 1e-12
    assert rows["isqrt 3", "float64"]["forward"] > 0.02 > rows["isqrt 10", "float64"]["forward"]
    assert rows["svd_newton", "float64"]["forward"] < 1e-6 < 0.02 < rows["svd_newton", "float64"]["gradient"]
    for name in methods:
        rounding = [rows[name, precision]["gradient_rounding"] for precision in ("float64", "float32", "bfloat16")]
        assert rounding[0] == 0
        assert 0 < rounding[1] < 1e-5 < rounding[2] < 0.1
        assert rows[name, "float16"]["gradient_rounding"] < rounding[2]
        assert rows[name, "float32"]["cosine"] > 0.9


def test_an_overflow_in_float16_is_reported_and_not_dropped() -> None:
    x = features(4, 20)
    x[0] *= 3000  # its covariance is above 65504
    row = root_errors(x, methods={"isqrt 5": METHODS["isqrt 5"]})[3]
    assert (row["precision"], row["status"], row["overflow"], row["samples"]) == ("float16", "overflow", 1, 3)
    assert math.isfinite(row["forward"])  # the median of three samples
    row = root_errors(3000 * x, methods={"isqrt 5": METHODS["isqrt 5"]})[3]
    assert (row["overflow"], row["forward"]) == (3, math.inf)


def test_an_operation_that_a_precision_lacks_is_not_an_error_of_zero() -> None:
    rows = root_errors(features(4, 20), methods={"mpa_lya": METHODS["mpa_lya"]})
    assert [row["status"] for row in rows] == ["ok", "ok", "not available", "not available"]
    assert rows[2]["forward"] is None


def test_a_decomposition_that_fails_counts_as_not_finite_and_other_mistakes_are_raised() -> None:
    def fail(x: Tensor) -> Tensor:
        raise torch.linalg.LinAlgError("did not converge")

    def mistake(x: Tensor) -> Tensor:
        raise RuntimeError("sizes do not match")

    x, g = features(4, 20), torch.ones(3, 4, 4)
    found = apply_root(fail, x, torch.float32, g)
    assert found is not None
    assert [part.isnan().all().item() for part in found] == [True, True]
    with pytest.raises(RuntimeError, match="sizes do not match"):
        apply_root(mistake, x, torch.float32, g)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_in_16_bits_are_summed_in_float32(dtype: torch.dtype) -> None:
    a = torch.ones(2, 8, 4096, dtype=dtype)  # in 16 bits the sum would stop at 2048 or 256
    assert (a @ a.mT).unique().tolist() == [4096]


def test_errors_are_relative_and_infinite_where_nothing_was_found() -> None:
    exact = torch.tensor([[[2.0]], [[2.0]], [[0.0]], [[0.0]], [[1.0]]])
    found = torch.tensor([[[1.0]], [[torch.inf]], [[0.0]], [[1.0]], [[torch.nan]]])
    assert relative_errors(found, exact).tolist() == [0.5, math.inf, 0, math.inf, math.inf]


def test_the_figure_names_what_overflowed_and_places_large_errors_that_are_finite() -> None:
    rows = [
        {"model": "mine", "root": root, "precision": precision, "forward": error, "gradient": error}
        for root, precision, error in (
            ("topn", "float32", 1e7), ("topn", "float16", math.inf), ("mpa", "float32", 0.1), ("mpa", "float16", None)
        )
    ]  # fmt: skip
    figure = ROOTS.draw(rows)
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["overflow: float16"]
        assert [list(line.get_xdata()) for line in axis.lines] == [[1e7, 0.1], []]
    assert "overflow: float16" in figures.to_svg(figure, "roots")
