"""Plots: what is drawn, read back from the figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from gcpzoo.analysis import plots


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: figures.append(figure))
    return figures


def test_a_row_of_the_confusion_matrix_shows_shares_of_the_true_class(drawn: list[Figure]) -> None:
    plots.confusion_matrix(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), ["a", "b", "c"], Path("x.png"))
    axis = drawn[0].axes[0]
    assert axis.images[0].get_array().tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")


def test_training_curves_show_the_loss_and_the_accuracy_in_per_cent(drawn: list[Figure]) -> None:
    rows = [
        {"epoch": 0, "train/loss": 2.0, "val/loss": 1.5, "train/top1": 0.25, "val/top1": 0.5},
        {"epoch": 1, "train/loss": 1.0, "train/top1": 0.75},
    ]
    plots.training_curves({"isqrt": rows}, Path("x.png"))
    left, right = drawn[0].axes
    for axis, training, validation in ((left, [2.0, 1.0], [1.5]), (right, [25.0, 75.0], [50.0])):
        lines = {line.get_label(): line for line in axis.lines}
        assert list(lines["isqrt, training"].get_ydata()) == training
        assert list(lines["isqrt, training"].get_xdata()) == [1, 2]
        assert list(lines["isqrt, validation"].get_ydata()) == validation
        assert lines["isqrt, training"].get_linestyle() == "--"


def test_spectra_are_drawn_down_to_the_smallest_that_shows(drawn: list[Figure]) -> None:
    plots.covariance_spectrum({"isqrt": {"covariance": [1.0, 0.0], "normalized": [1.0, 0.5]}}, Path("x.png"))
    lines = {line.get_label(): list(line.get_ydata()) for line in drawn[0].axes[0].lines}
    assert lines == {"isqrt, covariance": [1.0, 1e-8], "isqrt, normalized": [1.0, 0.5]}
