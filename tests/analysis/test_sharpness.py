"""Sharpness and curvature, where they are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from two_layers import landscape

from gcpzoo.analysis.measurements.sharpness import (
    SHARPNESS,
    adaptive_sharpness,
    largest_curvature,
    random_direction,
    scales,
)
from gcpzoo.analysis.measurements.subject import Subject
from gcpzoo.analysis.measurements.surface import Surface, norm, weight_surface
from gcpzoo.data import Digits
from gcpzoo.errors import ZooError
from gcpzoo.models import create_model


def symmetric(values: list[float]) -> torch.Tensor:
    """A matrix with these eigenvalues."""
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(0)).double())[0]
    return q @ torch.diag(torch.tensor(values).double()) @ q.mT


def quadratic(matrix: torch.Tensor, x: torch.Tensor | None = None) -> Surface:
    origin = torch.zeros(len(matrix)).double() if x is None else x
    return Surface({"x": origin}, [lambda point: (point["x"] - origin) @ matrix @ (point["x"] - origin) / 2])


def small_batch() -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return [(x, torch.tensor([0, 1, 2, 0]))]


def test_at_the_minimum_of_a_quadratic_loss_it_is_half_the_largest_eigenvalue_times_the_radius_squared() -> None:
    surface = quadratic(symmetric([0.5, 2.0, 9.0]))
    found = adaptive_sharpness(surface, rho=0.3, radius="plain", steps=30)
    assert found == pytest.approx(0.5 * 0.3**2 * 9.0, rel=1e-6)


def test_an_adaptive_radius_scales_the_weights() -> None:
    matrix, x = symmetric([0.5, 2.0, 9.0]), torch.tensor([3.0, -1.0, 0.0]).double()
    t = torch.diag(x.abs() + 0.01)
    expected = 0.5 * 0.2**2 * float(torch.linalg.eigvalsh(t @ matrix @ t)[-1])
    assert adaptive_sharpness(quadratic(matrix, x), 0.2, "element", steps=60) == pytest.approx(expected, rel=1e-6)


def test_one_step_finds_the_whole_rise_of_a_linear_loss() -> None:
    slope, x = torch.tensor([1.0, 2.0]), torch.tensor([4.0, -3.0])
    surface = Surface({"x": x}, [lambda point: point["x"] @ slope])
    assert adaptive_sharpness(surface, 0.1, "plain", steps=1) == pytest.approx(0.1 * 5**0.5, rel=1e-5)
    expected = 0.1 * math.hypot(1 * 4, 2 * 3)
    assert adaptive_sharpness(surface, 0.1, "element", steps=1, floor=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("radius", ["filter", "element"])
def test_an_adaptive_radius_does_not_change_with_scales_that_layers_can_shift_between_them(radius: str) -> None:
    plain, scaled = (adaptive_sharpness(landscape(scale), 0.3, radius, floor=0) for scale in (1.0, 16.0))
    assert scaled == pytest.approx(plain, rel=1e-6)
    apart = [adaptive_sharpness(landscape(scale), 0.3, "plain") for scale in (1.0, 16.0)]
    assert apart[0] != pytest.approx(apart[1], rel=0.1)


def test_the_highest_loss_of_all_steps_counts() -> None:
    surface = landscape()
    rises = [adaptive_sharpness(surface, 2.0, steps=steps) for steps in (1, 2, 5, 8)]
    assert rises == sorted(rises)
    assert rises[0] > 0


def test_on_a_summit_nothing_rises_and_an_overflow_is_infinite() -> None:
    assert adaptive_sharpness(quadratic(-symmetric([1.0, 2.0])), radius="plain") == 0
    steep = Surface({"x": torch.tensor([0.0])}, [lambda point: (1e3 * point["x"]).exp().sum()])
    assert adaptive_sharpness(steep, radius="plain") == math.inf


def test_filters_and_single_weights_have_their_own_scales() -> None:
    origin = {"w": torch.tensor([[[3.0], [4.0]], [[0.0], [0.0]]]), "b": torch.tensor([-2.0])}
    t = scales(origin, "filter", floor=0.5)
    assert t["w"].tolist() == [[[5.5], [5.5]], [[0.5], [0.5]]]
    assert t["b"].tolist() == [2.5]
    assert scales(origin, "plain")["w"].unique().tolist() == [1.0]


@pytest.mark.parametrize("bad", [{"rho": 0.0}, {"rho": math.nan}, {"steps": 0}])
def test_a_radius_without_size_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="rho and steps must be positive"):
        adaptive_sharpness(quadratic(symmetric([1.0])), **bad)


def test_an_unknown_radius_is_refused() -> None:
    with pytest.raises(ZooError, match=r"unknown radius 'filters': did you mean filter\?"):
        scales({}, "filters")


@pytest.mark.parametrize("values", [[1.0, 3.0, 10.0], [-20.0, 1.0, 10.0], [-3.0, -1.0, -2.0]])
def test_the_largest_eigenvalue_is_found_whatever_the_sign_of_the_others(values: list[float]) -> None:
    found = largest_curvature(quadratic(symmetric(values)), iterations=200, tolerance=1e-5)
    assert found.eigenvalue == pytest.approx(max(values), rel=1e-4)
    assert found.residual <= 1e-5
    assert found.iterations < 200


def test_the_residual_says_how_far_an_iteration_that_was_cut_is_from_the_end() -> None:
    found = largest_curvature(quadratic(symmetric([9.9, 10.0, 1.0])), iterations=2, tolerance=1e-5)
    assert found.iterations == 2
    assert found.residual > 1e-3
    assert abs(found.eigenvalue - 10) <= found.residual * found.eigenvalue + 0.1


def test_a_flat_loss_has_no_curvature() -> None:
    found = largest_curvature(Surface({"x": torch.ones(2).double()}, [lambda point: 3 * point["x"].sum()]))
    assert (found.eigenvalue, found.residual) == (0.0, 0.0)


def test_a_linear_classifier_has_the_curvature_of_its_whole_hessian() -> None:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)).double()
    y = torch.arange(12) % 3
    model = nn.Linear(4, 3, bias=False).double()
    surface = weight_surface(model, [(x[:5], y[:5]), (x[5:], y[5:])], dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda w: cross_entropy(x @ w.view(3, 4).mT, y), model.weight.flatten())
    found = largest_curvature(surface, iterations=300, tolerance=1e-4)
    assert found.eigenvalue == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-4)


def test_differences_of_gradients_agree_with_differentiating_twice() -> None:
    torch.manual_seed(0)
    surface = weight_surface(create_model("resnet18", "gap", 3, until="layer1"), small_batch(), dtype=torch.float64)
    differences, twice = (largest_curvature(surface, 3, double_backward=double) for double in (False, True))
    assert differences.eigenvalue == pytest.approx(twice.eigenvalue, rel=1e-5)


def test_heads_without_a_second_derivative_have_a_curvature() -> None:
    torch.manual_seed(0)
    model = create_model("resnet18", "isqrt", 3, dim=4, until="layer1")
    surface = weight_surface(model, small_batch(), "classifier", dtype=torch.float64)
    with torch.no_grad():
        v = model.double().eval().forward_head(model.forward_features(small_batch()[0][0].double()), pre_logits=True)
    ones = torch.cat([v, torch.ones(4, 1)], 1)
    p = model.classifier(v).softmax(1).detach()
    blocks = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    hessian = torch.einsum("bij,bk,bl->ikjl", blocks, ones, ones).reshape(3 * ones.shape[1], -1) / 4
    found = largest_curvature(surface, 200, 1e-4)
    assert found.eigenvalue == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-4)
    with pytest.raises(RuntimeError, match="no second derivative"):
        largest_curvature(weight_surface(model, small_batch()), 1, double_backward=True)


def test_differences_in_float32_are_refused() -> None:
    with pytest.raises(ZooError, match="need a surface in float64: build it with dtype=torch.float64"):
        largest_curvature(Surface({"x": torch.zeros(2)}, [lambda point: point["x"].square().sum()]))


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    broken = Surface({"x": torch.ones(2).double()}, [lambda point: (point["x"] - 1).sum().sqrt()])
    with pytest.raises(ZooError, match="the gradient is not finite"):
        largest_curvature(broken)
    with pytest.raises(ZooError, match="the loss or its gradient is not finite"):
        adaptive_sharpness(broken)


def test_a_network_without_a_finite_gradient_has_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> float:
        raise ZooError("not finite")

    monkeypatch.setattr("gcpzoo.analysis.measurements.sharpness.adaptive_sharpness", fail)
    model = create_model("resnet18", "gap", 10, until="layer1")
    assert SHARPNESS.run(Subject("a", model, Digits(image_size=8), images=2)) == []


def test_random_directions_have_length_one_and_follow_the_seed() -> None:
    origin = {"a": torch.zeros(4, 3), "b": torch.zeros(2)}
    direction = random_direction(origin, 5)
    assert norm(direction) == pytest.approx(1)
    assert torch.equal(direction["a"], random_direction(origin, 5)["a"])
    assert not torch.equal(direction["a"], random_direction(origin, 6)["a"])
