"""Measurement of calibration: as trained, and with a temperature that validation images give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gcpzoo.analysis.calibration import calibration, fit_temperature
from gcpzoo.analysis.drawing import figures
from gcpzoo.analysis.measurements.subject import Measurement, Row, Subject
from gcpzoo.errors import ZooError

AS_TRAINED, SCALED = "as trained", "temperature"


@torch.inference_mode()
def collect_logits(model: Any, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Compute the logits of all images, in float32 or wider, and gather their labels.

    Args:
        model: a network in eval mode.
        batches: pairs of normalized images and labels.

    Raises:
        ZooError: if a logit is not finite.

    >>> from torch import nn
    >>> logits, labels = collect_logits(nn.Flatten(), [(torch.ones(2, 3), torch.tensor([0, 1]))] * 2)
    >>> logits.shape, labels
    (torch.Size([4, 3]), tensor([0, 1, 0, 1]))
    """
    parts = [(model(images).float(), labels) for images, labels in batches]
    logits, labels = (torch.cat(values) for values in zip(*parts))
    if not logits.isfinite().all():
        raise ZooError("the network gives logits that are not finite: its weights are damaged")
    return logits, labels


def _run(subject: Subject) -> list[Row]:
    rows: list[Row] = []
    held_out = subject.has("val") and not subject.data.val_on_test
    for name, model in subject.networks():
        logits, labels = collect_logits(model, subject.batches("test", subject.images))
        scalings: list[tuple[str, float]] = [(AS_TRAINED, 1.0)]
        note = "" if held_out else "no validation images to fit a temperature on"
        if held_out:
            try:
                found = fit_temperature(*collect_logits(model, subject.batches("val", subject.images)))
                scalings.append((SCALED, found))
            except ZooError as error:
                note = str(error)
        for scaling, temperature in scalings:
            measured = calibration(logits, labels, temperature)
            about = {"model": name, "scaling": scaling, "temperature": temperature}
            whole = {key: measured[key] for key in ("images", "confidence", "accuracy", "ece", "nll")}
            rows.append({**about, "bin": "all", **whole, "note": note})
            rows += [
                {**about, "bin": b, "images": n, "confidence": c, "accuracy": r, "ece": None, "nll": None, "note": ""}
                for b, (c, r, n) in measured["bins"].items()
            ]
    return rows


def _draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    found: dict[str, list[tuple[float, float, int]]] = {}
    for row in rows:
        if row["bin"] == "all":
            name = f"{row['model']}, {row['scaling']}: ECE {100 * row['ece']:.1f} %"
            points = found.setdefault(name, [])
        else:
            points.append((row["confidence"], row["accuracy"], row["images"]))
    return figures.reliability(found, {name: i for i, name in enumerate(found)})


CALIBRATION = Measurement(
    "calibration",
    _run,
    _draw,
    "Share of test images that are right against confidence in 15 bins, as trained and after a temperature fitted on "
    "validation images. Guo et al., ICML 2017, Fig. 1 (reliability diagram) and Table 1 (ECE before and after)",
)
