"""Plots of a run as PNG: training curves, confusion matrix, covariance spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcpzoo.functional import as_matrix, covariance

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
    """Loss (left) and top-1 accuracy in % (right) against the epoch, one color a run; dashed: on the training set.

    Args:
        runs: name of a run → one row an epoch with ``epoch`` and any of ``train/loss``, ``val/loss``, ``train/top1``,
            ``val/top1``.
        path: the PNG to write.
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
    """Share of each true class (row) that was given each class (column), from counts ``(n, n)``."""
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


def comparison(reports: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Final test accuracy for each data set and head, and the spectra of the first data set."""
    figure, (left, right) = _figure(10, 3.8, 2)
    heads = list(dict.fromkeys(h for runs in reports.values() for h in runs))
    width = 0.8 / len(heads)
    for k, (color, head) in enumerate(zip(COLORS, heads)):
        at = [i + k * width for i, runs in enumerate(reports.values()) if head in runs]
        values = [100 * runs[head]["test"]["top1"] for runs in reports.values() if head in runs]
        bars = left.bar(at, values, 0.9 * width, color=color, label=head)
        left.bar_label(bars, fmt="%.2f", fontsize=7)
    left.set_xticks([i + 0.4 - width / 2 for i in range(len(reports))], list(reports))
    left.set(ylabel="top-1 accuracy (%), final epoch", ylim=(60, 102))
    left.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    name, runs = next(iter(reports.items()))
    _draw_spectra(right, {head: r["spectrum"] for head, r in runs.items()})
    right.set_title(f"spectra, {name}", fontsize=9)
    figure.savefig(path)


@torch.no_grad()
def spectrum(head: Any, features: Tensor) -> dict[str, np.ndarray]:
    """Eigenvalues, largest first and relative to it, averaged over the batch.

    Args:
        head: a head of the zoo.
        features: the backbone's ``(B, C, h, w)``.

    Returns:
        ``covariance``: of the covariance after the reduction, ``(d,)``; for second-order heads whose matrix is
        symmetric also ``normalized``: of the matrix that the classifier sees.
    """
    dtype = next((p.dtype for p in head.parameters()), features.dtype)
    x = as_matrix(head.reduction(features.to(dtype)) if hasattr(head, "reduction") else features).double()
    matrices = {"covariance": covariance(x)}
    if head.second_order and hasattr(head, "normalize"):
        a = head.normalize(x)
        if a.ndim == 3 and a.shape[1] == a.shape[2] and torch.allclose(a, a.mT, atol=1e-4 * float(a.abs().max())):
            matrices["normalized"] = a.double()
    values = {}
    for name, a in matrices.items():
        w = torch.linalg.eigvalsh(a).flip(1)
        values[name] = (w / w[:, :1].clamp_min(torch.finfo(w.dtype).tiny)).mean(0).cpu().numpy()
    return values


def covariance_spectrum(spectra: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """Eigenvalues relative to the largest, logarithmic: dashed before the normalization, solid after it."""
    figure, axis = _figure()
    _draw_spectra(axis, spectra)
    figure.savefig(path)


def _draw_spectra(axis: Any, spectra: Mapping[str, Mapping[str, Any]]) -> None:
    for color, (name, values) in zip(COLORS, spectra.items()):
        for kind, style in (("covariance", "--"), ("normalized", "-")):
            if kind in values:
                w = np.clip(values[kind], 1e-8, None)
                axis.semilogy(np.arange(1, len(w) + 1), w, style, color=color, label=f"{name}, {kind}")
    axis.set(xlabel="eigenvalue, by size", ylabel="relative to the largest", ylim=(1e-7, 1.5))
    axis.legend(frameon=False, fontsize=8)
