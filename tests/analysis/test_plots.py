"""Plots: what is drawn, read back from the figures."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from gcpzoo.analysis.drawing import plots


@pytest.fixture(autouse=True)
def undrawn() -> None:
    """These tests draw."""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "write_png", lambda figure, path: figures.append(figure))
    return figures


def texts(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.texts]


ROWS = [
    {"epoch": 0, "train/loss": 2.0, "val/loss": 1.5, "train/top1": 0.25, "val/top1": 0.5},
    {"epoch": 1, "train/loss": 1.0, "val/loss": None, "train/top1": 0.75},
]


def test_a_row_of_the_confusion_matrix_shows_shares_of_the_true_class_and_numbers_of_images(
    drawn: list[Figure],
) -> None:
    plots.confusion_matrix(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), ["a", "b", "c"], Path("x.png"))
    axis = drawn[0].axes[0]
    assert axis.images[0].get_array().tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    assert texts(axis) == ["3", "1", "2"]
    assert axis.get_title() == "5 of 6 test images right"


def test_of_many_classes_the_worst_confusions_are_ranked(drawn: list[Figure]) -> None:
    counts = 9 * torch.eye(21, dtype=torch.int64)
    counts[3, 4], counts[7, 1], counts[7, 2] = 5, 2, 1
    plots.confusion_matrix(counts, [f"kind {i}" for i in range(21)], Path("x.png"), worst=2)
    matrix, ranked = drawn[0].axes[:2]
    assert not matrix.texts
    assert [label.get_text() for label in ranked.get_yticklabels()] == ["kind 3 → kind 4", "kind 7 → kind 1"]
    assert [bar.get_width() for bar in ranked.patches] == [5, 2]
    assert texts(ranked) == ["5 of 14", "2 of 12"]
    assert ranked.get_xlim()[0] == 0


def test_training_curves_show_the_loss_and_the_accuracy_in_per_cent(drawn: list[Figure]) -> None:
    plots.training_curves({"isqrt": ROWS}, Path("x.png"))
    left, right = drawn[0].axes
    assert left.get_ylabel() == "cross-entropy per image (nats)"
    for axis, training, validation in ((left, [2.0, 1.0], [1.5]), (right, [25.0, 75.0], [50.0])):
        lines = {line.get_label(): line for line in axis.lines}
        assert list(lines["training"].get_ydata()) == training
        assert list(lines["training"].get_xdata()) == [1, 2]
        assert list(lines["validation"].get_ydata()) == validation
        assert lines["training"].get_linestyle() == "--"
        assert sorted(texts(axis)) == ["training", "validation"]


def test_a_smoothed_training_loss_shares_no_axis_with_the_plain_validation_loss(drawn: list[Figure]) -> None:
    plots.training_curves({"isqrt": ROWS}, Path("x.png"), "cross-entropy with label smoothing 0.1 and MixUp")
    training, validation, accuracy = drawn[0].axes
    assert [len(axis.lines) for axis in drawn[0].axes] == [1, 1, 2]
    assert training.get_title() == "cross-entropy with label smoothing 0.1 and MixUp"
    assert validation.get_ylabel() == "validation cross-entropy per image (nats)"
    assert "training (mixed images)" in texts(accuracy)


def test_the_lines_of_several_runs_bear_their_names(drawn: list[Figure]) -> None:
    plots.training_curves({"isqrt": ROWS, "gap": ROWS}, Path("x.png"))
    expected = {f"{run}, {split}" for run in ("isqrt", "gap") for split in ("training", "validation")}
    assert set(texts(drawn[0].axes[0])) == expected
    heights = sorted(text.get_position()[1] for text in drawn[0].axes[0].texts)
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 0.0749  # equal curves, labels apart


def test_spectra_end_where_they_vanish_and_name_their_effective_ranks(drawn: list[Figure]) -> None:
    spectra = {"isqrt": {"covariance": [1.0, 1.0, 0.0, 1e-9], "normalized": [1.0, 0.5]}}
    plots.covariance_spectrum(spectra, Path("x.png"))
    lines = {line.get_label(): list(line.get_ydata()) for line in drawn[0].axes[0].lines}
    assert lines == {
        "isqrt, covariance: effective rank 2.0 of 4": [1.0, 1.0],
        "isqrt, normalized: effective rank 1.9 of 2": [1.0, 0.5],
    }
