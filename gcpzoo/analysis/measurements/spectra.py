"""Measurements of spectra: of a trained network, and of its checkpoints through training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gcpzoo.analysis.drawing.figures import spectra
from gcpzoo.analysis.drawing.style import TEXT, add_legend, new_figure, plain, series
from gcpzoo.analysis.measurements.subject import Measurement, Row, Subject
from gcpzoo.analysis.spectrum import head_spectra, mean_relative, pooled_features, summarize

IMAGES = 256


@torch.no_grad()
def network_spectra(model: Any, batches: Any) -> tuple[dict[str, Tensor], int]:
    """Collect the eigenvalues of what a network's head works on, over batches of images.

    Args:
        model: a :class:`gcpzoo.models.GCPNet` in eval mode.
        batches: pairs of normalized images and labels.

    Returns:
        :func:`~gcpzoo.analysis.head_spectra` of all images, and the number of positions of a map.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "isqrt", 2, dim=8, until="layer1").eval()
    >>> found, positions = network_spectra(model, [(torch.rand(2, 3, 32, 32), torch.zeros(2))] * 3)
    >>> found["normalized"].shape, positions
    (torch.Size([6, 8]), 64)
    """
    parts: dict[str, list[Tensor]] = {}
    positions = 0
    for images, _ in batches:
        features = pooled_features(model, images)
        positions = features.flatten(2).shape[2]
        for kind, values in head_spectra(model.head, features).items():
            parts.setdefault(kind, []).append(values)
    return {kind: torch.cat(values) for kind, values in parts.items()}, positions


def _spectrum(subject: Subject) -> list[Row]:
    rows: list[Row] = []
    for name, model in subject.networks():
        found, _ = network_spectra(model, subject.batches("test", subject.images or IMAGES))
        for kind, values in found.items():
            columns = (values.mean(0).tolist(), mean_relative(values))
            rows += [
                {"model": name, "matrix": kind, "index": i + 1, "eigenvalue": value, "relative": relative}
                for i, (value, relative) in enumerate(zip(*columns))
            ]
    return rows


def _draw_spectrum(rows: Sequence[Mapping[str, Any]]) -> Any:
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault(row["model"], {}).setdefault(row["matrix"], []).append(row["relative"])
    return spectra(found, {name: i for i, name in enumerate(found)})


def _conditioning(subject: Subject) -> list[Row]:
    """Summarize the spectra of the network, of the run's checkpoints, and what the run itself logged."""
    rows: list[Row] = []
    for about, model in subject.through_training():
        found, positions = network_spectra(model, subject.batches("test", subject.images or IMAGES))
        rows += [
            {**about, "matrix": kind, "matrices": len(values), **summarize(values, positions).to_dict()}
            for kind, values in found.items()
        ]
    names = [key for key in rows[0] if key not in ("model", "source", "epoch", "step", "matrix", "matrices")]
    for row in subject.history:
        if "spectrum/effective_rank" in row:
            values = {key: row.get(f"spectrum/{key}") for key in names}
            values["condition"] = float("inf") if values["condition"] is None else values["condition"]
            about = {"model": subject.name, "source": "logged by the run", "epoch": row["epoch"], "step": None}
            rows.append({**about, "matrix": "covariance", "matrices": None, **values})
    return rows


def _draw_conditioning(rows: Sequence[Mapping[str, Any]]) -> Any:
    figure, axes = new_figure(9.5, 3.4, 2)
    for axis, (key, label) in zip(
        axes, (("condition_nonzero", "condition number of the non-zero spectrum"), ("effective_rank", "effective rank"))
    ):
        curves: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
        for row in rows:
            if row[key] is not None:
                source = "logged by the run" if row["source"] == "logged by the run" else "checkpoints"
                place = curves.setdefault((row["model"], row["matrix"], source), [])
                place.append((float("nan") if row["epoch"] is None else row["epoch"], row[key]))
        if all(row["epoch"] is None for row in rows):
            _draw_bars(axis, {plain(f"{name}, {matrix}"): points[0][1] for (name, matrix, _), points in curves.items()})
            axis.set(xlabel=label)
            if key == "condition_nonzero":
                axis.set_xscale("log")
                axis.set_xlim(left=1)  # of the identity
            else:
                axis.set_yticklabels([])
            continue
        for i, ((name, matrix, source), points) in enumerate(curves.items()):
            points.sort()
            label_of = plain(f"{name}, {matrix}") + (f", {source}" if source != "checkpoints" else "")
            if any(x != x for x, _ in points):  # no epoch is known: a level line
                axis.axhline(points[0][1], label=label_of, color=series(i)["color"], linestyle=series(i)["linestyle"])
            else:
                axis.plot(*zip(*points), label=label_of, markersize=4, **series(i))
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(color=TEXT, alpha=0.15)
        if key == "condition_nonzero":
            axis.set_yscale("log")
            add_legend(axis)
    return figure


def _draw_bars(axis: Any, values: Mapping[str, float]) -> None:
    """Draw what is known of no epoch as bars with their values."""
    colors = [series(i)["color"] for i in range(len(values))]
    bars = axis.barh(range(len(values)), list(values.values()), color=colors, height=0.5)
    axis.bar_label(bars, [f"{value:.3g}" for value in values.values()], fontsize=8, padding=3, color=TEXT)
    axis.set_yticks(range(len(values)), list(values), fontsize=8)
    axis.set_ylim(max(len(values), 3) - 0.4, -0.6)
    axis.margins(x=0.15)


SPECTRUM = Measurement(
    "spectrum",
    _spectrum,
    _draw_spectrum,
    "Eigenvalues of the covariance and of the matrix that the head makes of it, in float64, averaged over images after "
    "dividing by the largest. Topic of Li et al., ICCV 2017: the root evens out a steep "
    "spectrum",
)
CONDITIONING = Measurement(
    "conditioning",
    _conditioning,
    _draw_conditioning,
    "Condition numbers and effective ranks in float64, medians over images, through training. Topic of Song et al., "
    "ICCV 2021 and ECCV 2022: how ill-conditioned the covariance is that a differentiable SVD meets",
)
