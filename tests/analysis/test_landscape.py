"""The loss along filter-normalized directions."""

from __future__ import annotations

import math

import pytest
import torch
from two_layers import landscape

from gcpzoo.analysis.measurements.landscape import filter_direction, filter_norms, loss_along, loss_plane, width
from gcpzoo.analysis.measurements.surface import Surface
from gcpzoo.errors import ZooError


def bowl(curvature: float, floor: float = 1.0) -> Surface:
    return Surface({"x": torch.zeros(1, 1)}, [lambda point: floor + curvature * (point["x"] ** 2).sum() / 2])


ALONG = {"x": torch.ones(1, 1)}


def test_each_filter_of_a_direction_is_as_long_as_the_networks_and_biases_stay() -> None:
    origin = landscape().origin
    direction = filter_direction(origin, seed=3)
    for name in ("first.weight", "second.weight"):
        torch.testing.assert_close(filter_norms(direction[name]), filter_norms(origin[name]))
    assert not direction["first.bias"].any()
    assert not direction["second.bias"].any()


def test_a_seed_is_a_direction() -> None:
    origin = landscape().origin
    same, other = filter_direction(origin, seed=3), filter_direction(origin, seed=4)
    assert torch.equal(filter_direction(origin, seed=3)["first.weight"], same["first.weight"])
    assert not torch.equal(other["first.weight"], same["first.weight"])


def test_the_landscape_does_not_change_with_scales_that_layers_can_shift_between_them() -> None:
    positions = (-1.0, -0.3, 0.4, 1.0)
    plain, scaled = (loss_along(s, filter_direction(s.origin), positions) for s in (landscape(), landscape(16.0)))
    assert scaled == pytest.approx(plain, rel=1e-9)
    assert len({round(loss, 6) for loss in plain}) == 4


def test_a_plane_holds_the_lines_along_its_directions() -> None:
    surface, positions = landscape(), (-0.5, 0.0, 1.0)
    first, second = (filter_direction(surface.origin, seed) for seed in (0, 1))
    plane = loss_plane(surface, first, second, positions)
    assert [row[1] for row in plane] == pytest.approx(loss_along(surface, first, positions))
    assert plane[1] == pytest.approx(loss_along(surface, second, positions))


@pytest.mark.parametrize(("curvature", "factor"), [(8.0, 2.0), (50.0, 2.0), (16.0, 3.0)])
def test_the_width_of_a_parabola_is_known(curvature: float, factor: float) -> None:
    expected = 2 * math.sqrt(2 * (factor - 1) / curvature)
    assert width(bowl(curvature), ALONG, factor) == pytest.approx(expected, abs=2e-3)


def test_a_width_adds_both_sides() -> None:
    def slanted(point: dict[str, torch.Tensor]) -> torch.Tensor:
        x = point["x"].sum()
        return 1 + torch.where(x > 0, 2 * x, -5 * x)

    assert width(Surface({"x": torch.zeros(1, 1)}, [slanted]), ALONG) == pytest.approx(0.5 + 0.2, abs=2e-3)


def test_there_is_no_width_where_the_loss_does_not_rise_so_far_or_is_zero() -> None:
    assert width(bowl(1.0), ALONG) is None
    assert width(bowl(1.0), ALONG, reach=2.0) == pytest.approx(2 * math.sqrt(2), abs=2e-3)
    assert width(bowl(8.0, floor=0.0), ALONG) is None


@pytest.mark.parametrize("beyond", [math.nan, math.inf])
def test_a_loss_that_overflows_has_risen(beyond: float) -> None:
    def cliff(point: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.where(point["x"].abs().sum() > 0.25, torch.tensor(beyond), torch.tensor(1.0))

    assert width(Surface({"x": torch.zeros(1, 1)}, [cliff]), ALONG) == pytest.approx(0.5, abs=4e-3)


def test_weights_without_filters_have_no_landscape() -> None:
    with pytest.raises(ZooError, match="needs weights with filters"):
        filter_direction({"bias": torch.ones(3), "weight": torch.zeros(2, 2)})
