"""Gradients along the step, where they are known."""

from __future__ import annotations

import pytest
import torch

from gcpzoo.analysis.measurements.gradients import along_gradient, summarize_steps
from gcpzoo.analysis.measurements.surface import Surface, activation_surface, weight_surface
from gcpzoo.errors import ZooError
from gcpzoo.models import create_model

MATRIX = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)


def quadratic(*x: float) -> Surface:
    return Surface({"x": torch.tensor(x).double()}, [lambda point: point["x"] @ MATRIX @ point["x"] / 2 + 7])


@pytest.mark.parametrize("eta", [0.1, 0.7, -0.3])
def test_a_quadratic_loss_gives_what_its_matrix_says(eta: float) -> None:
    found = along_gradient(quadratic(1.0, -2.0), [eta])[1]
    x = torch.tensor([1.0, -2.0]).double()
    g = MATRIX @ x
    there = x - eta * g
    assert found.step == eta
    assert found.loss == pytest.approx(float(there @ MATRIX @ there / 2 + 7))
    assert found.change == pytest.approx(abs(eta) * float((MATRIX @ g).norm()))
    assert found.distance == pytest.approx(abs(eta) * float(g.norm()))
    assert found.smoothness == pytest.approx(float((MATRIX @ g).norm() / g.norm()))


def test_the_smoothness_along_an_eigenvector_is_the_eigenvalue() -> None:
    values, vectors = torch.linalg.eigh(MATRIX)
    found = along_gradient(quadratic(*vectors[:, 1].tolist()), [0.5, -2.0])
    assert [step.smoothness for step in found[1:]] == pytest.approx([float(values[1])] * 2)


def test_the_gradient_of_a_linear_loss_does_not_change() -> None:
    slope = torch.tensor([3.0, 4.0])
    found = along_gradient(Surface({"x": torch.zeros(2)}, [lambda point: point["x"] @ slope]), [0.2, -1.0])
    assert [(step.change, step.smoothness) for step in found[1:]] == [(0.0, 0.0)] * 2
    assert [step.loss for step in found] == pytest.approx([0.0, -5.0, 25.0])  # down by η‖g‖², and up


def test_where_the_gradient_is_zero_there_is_no_smoothness() -> None:
    found = along_gradient(quadratic(0.0, 0.0), [0.1])
    assert (found[1].distance, found[1].smoothness, summarize_steps(found).smoothness) == (0.0, None, None)


def test_a_summary_takes_the_extremes_over_the_steps_and_the_loss_of_the_start() -> None:
    found = along_gradient(quadratic(1.0, -2.0), [0.1, 0.2, -0.4])
    summary = summarize_steps(found)
    losses = [step.loss for step in found]
    assert (summary.loss, summary.loss_low, summary.loss_high) == (losses[0], min(losses[1:]), max(losses[1:]))
    assert summary.change == found[3].change
    assert summary.smoothness == max(step.smoothness for step in found[1:])


@pytest.mark.parametrize("steps", [[], [0.1, 0.0]])
def test_steps_that_go_nowhere_are_refused(steps: list[float]) -> None:
    with pytest.raises(ZooError, match="steps must be one or more numbers other than 0"):
        along_gradient(quadratic(1.0, 1.0), steps)


def test_a_small_step_down_lowers_the_loss_of_a_network_and_one_up_raises_it() -> None:
    torch.manual_seed(0)
    model = create_model("resnet18", "isqrt", 3, dim=4, until="layer1")
    batches = [(torch.randn(3, 3, 16, 16), torch.tensor([0, 1, 2]))]
    for surface in (weight_surface(model, batches), activation_surface(model, batches)):
        start, down, up = along_gradient(surface, [1e-3, -1e-3])
        assert down.loss < start.loss < up.loss
        assert along_gradient(surface, [1e-3, -1e-3]) == [start, down, up]
