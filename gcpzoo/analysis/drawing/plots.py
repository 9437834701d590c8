"""Plots of runs as PNG: training curves, confusions, spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gcpzoo.analysis.confusions import worst_confusions
from gcpzoo.analysis.drawing.figures import draw_spectrum
from gcpzoo.analysis.drawing.style import TEXT, brief, explain_below, label_lines, new_figure, plain, series, write_png

PLAIN_LOSS = "cross-entropy"
NUMBERED = 20
"""Most classes of a confusion matrix whose cells are large enough for numbers."""
TRAINING = "Training: mean over the epoch while the weights change, on augmented images."
VALIDATION = " Validation: after the epoch, on unchanged images."
SPECTRA = (
    "Mean over images, each relative to its largest eigenvalue. Dashed: the covariance of an image's features; solid: "
    "the matrix that the head makes of it. The flatter the line, the more directions of the feature space count: "
    "effective rank = exp of the entropy of the eigenvalues' shares."
)


def training_curves(
    runs: Mapping[str, Sequence[Mapping[str, float | None]]], path: Path, loss: str = PLAIN_LOSS
) -> None:
    """Draw losses and top-1 accuracy in % against the epoch, one color a run; dashed: on the training set.

    Training and validation losses share an axis only where both are the plain cross-entropy.

    Args:
        runs: name of a run → one row an epoch with ``epoch`` and any of ``train/loss``, ``val/loss``, ``train/top1``,
            ``val/top1``; null where a value was not finite.
        path: the PNG to write.
        loss: what the training minimizes, as ``fit.loss`` in ``metrics.json``; the validation loss is always the plain
            cross-entropy.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "curves.png"
    >>> training_curves({"isqrt": [{"epoch": 0, "train/loss": 2.0, "val/top1": 0.5}]}, path)
    >>> path.is_file()
    True
    """
    comparable = loss == PLAIN_LOSS
    validated = any("val/loss" in row for rows in runs.values() for row in rows)
    panels: list[tuple[str, str, tuple[str, ...]]] = [("loss", "cross-entropy per image (nats)", ("train", "val"))]
    if not comparable:
        panels = [("loss", "training loss per image (nats)", ("train",))]
        if validated:
            panels.append(("loss", "validation cross-entropy per image (nats)", ("val",)))
    panels.append(("top1", "top-1 accuracy (%)", ("train", "val")))
    figure, axes = new_figure(5.2 * len(panels), 4, len(panels))
    mixed = " (mixed images)" if "mix" in loss.lower() else ""
    names = {"train": f"training{mixed}", "val": "validation"}
    for axis, (metric, label, splits) in zip(axes, panels):
        for k, (name, rows) in enumerate(runs.items()):
            for split in splits:
                label_of_line = f"{plain(name)}, {names[split]}" if len(runs) > 1 else names[split]
                scale = 100 if metric == "top1" else 1
                _draw_curve(axis, rows, f"{split}/{metric}", scale, k, label_of_line)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set(xlabel="epoch", ylabel=label)
        axis.grid(axis="y", color=TEXT, alpha=0.12)
        label_lines(axis)
    axes[0].set_title("" if comparable else plain(loss), fontsize=9)
    if len(runs) == 1:
        figure.suptitle(plain(next(iter(runs))), fontsize=11)
    note = VALIDATION if validated else ""
    if not comparable:
        note += f" The training minimizes {loss}" + (", of another scale than the validation." if validated else ".")
    explain_below(figure, TRAINING + note)
    write_png(figure, path)


def _draw_curve(axis: Any, rows: Sequence[Mapping[str, Any]], key: str, scale: float, k: int, label: str) -> None:
    """Draw a value against the epoch; of the training dashed, with hollow markers."""
    points = [(row["epoch"] + 1, scale * row[key]) for row in rows if row.get(key) is not None]
    if points:
        training = key.startswith("train/")
        look = {**series(k), "linestyle": "--" if training else "-", "label": label, "markersize": 4}
        face = "white" if training else look["color"]
        axis.plot(*zip(*points), **look, markerfacecolor=face, markevery=max(1, len(points) // 15))


def confusion_matrix(counts: Tensor, class_names: Sequence[str], path: Path, worst: int = 20) -> None:
    """Draw which true class (row) was predicted as which (column): of up to 20 classes with the numbers of images.

    Of more classes the matrix stands small beside the worst confusions, ranked.

    Args:
        counts: images, ``(n, n)``.
        class_names: what people read.
        path: the PNG to write.
        worst: most confusions to rank.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "confusion.png"
    >>> confusion_matrix(torch.tensor([[9, 1], [0, 10]]), ["cat", "dog"], path)
    >>> path.is_file()
    True
    """
    n, images = len(class_names), int(counts.sum())
    share = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
    names = [brief(name) or "…" for name in class_names]
    right = f"{int(counts.diag().sum()):,} of {images:,} test images right"
    if n <= NUMBERED:
        figure, (axis,) = new_figure(3.2 + 0.42 * max(n, 5), 2.6 + 0.38 * max(n, 5))
        upright = max(map(len, names)) * max(n, 5) <= 50  # the names fit side by side
        turned: dict[str, Any] = {} if upright else {"rotation": 45, "ha": "right"}
        axis.set_xticks(range(n), names, fontsize=8, **turned)
        axis.set_yticks(range(n), names, fontsize=8)
        for i, j in counts.nonzero().tolist():
            color = "white" if share[i, j] > 0.5 else TEXT
            axis.text(j, i, f"{int(counts[i, j])}", ha="center", va="center", color=color, fontsize=8)
    else:
        figure, (axis, ranked) = new_figure(13, 6.4, 2)
        axis.set_xticks([])
        axis.set_yticks([])
        _draw_worst(ranked, counts, names, worst)
    image = axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axis, shrink=0.7)
    bar.set_label("share of the true class's images", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    axis.set(xlabel="predicted class", ylabel="true class", title=right)
    axis.title.set_fontsize(10)
    numbers = " Numbers count images." if n <= NUMBERED else f" Rows and columns are the {n} classes in their order."
    explain_below(figure, f"Each row is a true class and sums to 1; off the diagonal are mistakes.{numbers}")
    write_png(figure, path)


def _draw_worst(axis: Any, counts: Tensor, names: Sequence[str], most: int) -> None:
    """Draw the worst confusions as bars from zero, with their numbers."""
    found = worst_confusions(counts, most)
    axis.set_title(f"the {len(found)} worst confusions" if found else "no confusions", fontsize=10)
    bars = axis.barh(range(len(found)), [c.count for c in found], color=series(1)["color"], height=0.65)
    axis.bar_label(bars, [f"{c.count} of {c.images}" for c in found], fontsize=8, padding=3)
    axis.set_yticks(range(len(found)), [f"{names[c.true]} → {names[c.predicted]}" for c in found], fontsize=8)
    axis.set(
        xlabel="images", ylim=(max(len(found), 8) - 0.4, -0.6), xlim=(0, 1.2 * max([c.count for c in found] + [1]))
    )
    axis.xaxis.get_major_locator().set_params(integer=True)


def covariance_spectrum(spectra: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draw eigenvalues relative to the largest on a logarithmic axis: dashed before the normalization, solid after it.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "spectrum.png"
    >>> covariance_spectrum({"isqrt": {"covariance": [1.0, 0.01], "normalized": [1.0, 0.1]}}, path)
    >>> path.is_file()
    True
    """
    figure, (axis,) = new_figure(7.5, 4.6)
    draw_spectra(axis, spectra)
    explain_below(figure, SPECTRA)
    write_png(figure, path)


def draw_spectra(axis: Any, spectra: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw spectra into an axis of matplotlib, one after the other, and name their effective ranks.

    >>> _, (axis,) = new_figure(3, 2)
    >>> draw_spectra(axis, {"isqrt": {"covariance": [1.0, 1.0, 0.0]}})
    >>> axis.lines[0].get_label()
    'isqrt, covariance: effective rank 2.0 of 3'
    """
    for k, (name, values) in enumerate(spectra.items()):
        for kind, style in (("covariance", "--"), ("normalized", "-")):
            if kind in values:
                draw_spectrum(axis, values[kind], f"{name}, {kind}", **{**series(k), "linestyle": style})
    axis.set(xlabel="number of the eigenvalue, from the largest", ylabel="eigenvalue, share of the largest")
    axis.grid(color=TEXT, alpha=0.12)
    axis.legend(frameon=False, fontsize=8, loc="lower left")
