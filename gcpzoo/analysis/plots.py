"""Plots as PNG: training curves, confusion matrix, covariance spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

COLORS = ("#0b5fa5", "#d1495b", "#2e8b57", "#8d6a9f", "#c98a1b")


def _figure(width: float = 6.0, height: float = 4.0, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def training_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Draw loss (left) and top-1 accuracy in % (right) against the epoch, one color a run; dashed: on the training set.

    Args:
        runs: name of a run → one row an epoch with ``epoch`` and any of ``train/loss``, ``val/loss``, ``train/top1``,
            ``val/top1``.
        path: the PNG to write.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "curves.png"
    >>> training_curves({"isqrt": [{"epoch": 0, "train/loss": 2.0, "val/top1": 0.5}]}, path)
    >>> path.is_file()
    True
    """
    figure, (left, right) = _figure(10, 4, 2)
    for color, (name, rows) in zip(COLORS, runs.items()):
        for split, style in (("train", "--"), ("val", "-")):
            for axis, metric, scale in ((left, "loss", 1), (right, "top1", 100)):
                points = [(r["epoch"] + 1, scale * r[k]) for r in rows if (k := f"{split}/{metric}") in r]
                if points:
                    label = f"{name}, {'training' if split == 'train' else 'validation'}"
                    axis.plot(*zip(*points), style, color=color, label=label, marker=".")
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    left.set(xlabel="epoch", ylabel="cross-entropy")
    right.set(xlabel="epoch", ylabel="top-1 accuracy (%)")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def confusion_matrix(counts: Tensor, class_names: Sequence[str], path: Path) -> None:
    """Draw the share of each true class (row) that was predicted as each class (column), from counts ``(n, n)``.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "confusion.png"
    >>> confusion_matrix(torch.tensor([[9, 1], [0, 10]]), ["cat", "dog"], path)
    >>> path.is_file()
    True
    """
    share = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
    figure, axis = _figure(7, 6)
    image = axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    axis.set(xlabel="predicted class", ylabel="true class")
    class_names = [name.encode("utf-8", "replace").decode() for name in class_names]  # file systems allow more
    if len(class_names) <= 100:
        size = 8 if len(class_names) <= 30 else 4
        axis.set_xticks(range(len(class_names)), class_names, rotation=90, fontsize=size)
        axis.set_yticks(range(len(class_names)), class_names, fontsize=size)
    figure.savefig(path)


def covariance_spectrum(spectra: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draw eigenvalues relative to the largest on a logarithmic axis: dashed before the normalization, solid after it.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "spectrum.png"
    >>> covariance_spectrum({"isqrt": {"covariance": [1.0, 0.01], "normalized": [1.0, 0.1]}}, path)
    >>> path.is_file()
    True
    """
    figure, axis = _figure()
    draw_spectra(axis, spectra)
    figure.savefig(path)


def draw_spectra(axis: Any, spectra: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw spectra into an axis of matplotlib.

    >>> _, axis = _figure()
    >>> draw_spectra(axis, {"isqrt": {"covariance": [1.0, 0.1]}})
    """
    for color, (name, values) in zip(COLORS, spectra.items()):
        for kind, style in (("covariance", "--"), ("normalized", "-")):
            if kind in values:
                w = np.clip(values[kind], 1e-8, None)
                axis.semilogy(np.arange(1, len(w) + 1), w, style, color=color, label=f"{name}, {kind}")
    axis.set(xlabel="eigenvalue, by size", ylabel="relative to the largest", ylim=(1e-7, 1.5))
    axis.legend(frameon=False, fontsize=8)
