"""A covariance head against its control on the same test images: accuracies, their difference, which to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gcpzoo.errors import ZooError
from gcpzoo.experiments.report.trainings import Predictions, read_predictions
from gcpzoo.experiments.statistics import Estimate, bootstrap_images, percent_between
from gcpzoo.hub.card import markdown
from gcpzoo.hub.run_results import COMPARISON
from gcpzoo.paths import write_text
from gcpzoo.training.predictions import FILE

FORMAT = 1


@dataclass(frozen=True)
class Verdict:
    """What a comparison on test images says.

    Attributes:
        top1: of each network, a fraction with its interval over test images.
        per_class: mean over the classes' accuracies of each.
        difference: of the first to the second, paired by image.
        keep: name of the one to keep.
        reason: why, in words.

    >>> zero = Estimate(0.0, 0.0, 0.0, 9)
    >>> Verdict({"gcp": zero, "gap": zero}, {"gcp": 0.0, "gap": 0.0}, zero, "gap", "it is smaller").keep
    'gap'
    """

    top1: dict[str, Estimate]
    per_class: dict[str, float]
    difference: Estimate
    keep: str
    reason: str


def compare_runs(runs: Mapping[str, Path]) -> Verdict:
    """Compare two runs of ``gcpzoo fit`` by their answers to the same test images.

    Args:
        runs: two folders of runs by name; the second is the control.

    Raises:
        ZooError: if a run has no answers, or they are about other images.

    >>> compare_runs({"gcp": Path("/nowhere/gcp"), "gap": Path("/nowhere/gap")})
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: /nowhere/gcp/test_predictions.csv cannot be read: ...
    """
    answers = {name: read_predictions(folder / FILE) for name, folder in runs.items()}
    (first, one), (second, other) = answers.items()
    if not one.same_images(other):
        raise ZooError(f"{runs[first]} and {runs[second]} were tested on different images: give another --output")
    difference = bootstrap_images(one.right.astype(float) - other.right)
    keep, reason = judge(first, second, difference)
    top1 = {name: bootstrap_images(p.right.astype(float)) for name, p in answers.items()}
    return Verdict(top1, {name: _per_class(p) for name, p in answers.items()}, difference, keep, reason)


def judge(name: str, control: str, difference: Estimate) -> tuple[str, str]:
    """Say which of two networks to keep, and how sure that is.

    >>> judge("gcp", "gap", Estimate(0.01, -0.01, 0.03, 400))
    ('gcp', 'it is right more often, but not beyond what other test images could turn')
    >>> judge("gcp", "gap", Estimate(0.0, -0.01, 0.01, 400))
    ('gap', 'they are right equally often, and it is the smaller one')
    """
    if difference.mean == 0:
        return control, "they are right equally often, and it is the smaller one"
    sure = (
        "and its interval excludes zero"
        if difference.excludes_zero
        else "but not beyond what other test images could turn"
    )
    return (name if difference.mean > 0 else control), f"it is right more often, {sure}"


def _per_class(answers: Predictions) -> float:
    return float(np.mean([answers.right[answers.true == name].mean() for name in np.unique(answers.true)]))


def lines(verdict: Verdict, labels: Mapping[str, str]) -> list[str]:
    """Put a comparison into lines.

    >>> e = Estimate(0.5, 0.4, 0.6, 90)
    >>> lines(Verdict({"gcp": e, "gap": e}, {"gcp": 0.5, "gap": 0.5}, e, "gcp", "it is better"), {})[0]
    'gcp: top-1 50.00 (40.00 to 60.00) %, mean over classes 50.00 %'
    """
    found = [
        f"{_titled(name, labels)}: top-1 {percent_between(value, signed=False)} %, "
        f"mean over classes {100 * verdict.per_class[name]:.2f} %"
        for name, value in verdict.top1.items()
    ]
    d = verdict.difference
    first, second = verdict.top1
    found.append(
        f"{first} − {second}: {percent_between(d)} points, paired over {d.n:,} test images; one training each, "
        "so other seeds can move it too"
    )
    return [*found, f"keep {verdict.keep}: {verdict.reason}"]


def _titled(name: str, labels: Mapping[str, str]) -> str:
    label = labels.get(name, name)
    return name if label == name else f"{name} ({label})"


def write_comparison(verdict: Verdict, labels: Mapping[str, str], about: Mapping[str, Any], folder: Path) -> None:
    """Write ``comparison.json`` and ``comparison.md``; fractions, with 95 % intervals over the test images.

    >>> import tempfile
    >>> e = Estimate(0.5, 0.4, 0.6, 90)
    >>> verdict = Verdict({"gcp": e, "gap": e}, {"gcp": 0.5, "gap": 0.5}, e, "gcp", "it is better")
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_comparison(verdict, {"gcp": "isqrt", "gap": "mean"}, {}, folder)
    >>> json.loads((folder / "comparison.json").read_text())["keep"]
    'gcp'
    """
    content = {"format": FORMAT, **asdict(verdict), "heads": dict(labels), **about}
    write_text(folder / COMPARISON, json.dumps(content, indent=2) + "\n")
    rows = [
        (name, labels[name], percent_between(value, signed=False) + " %", f"{100 * verdict.per_class[name]:.2f} %")
        for name, value in verdict.top1.items()
    ]
    table = markdown(("run", "head", "top-1 (95 % interval over test images)", "mean over classes"), rows)
    text = "\n\n".join(["# Comparison", table, *lines(verdict, labels)[-2:]])
    write_text(folder / "comparison.md", text + "\n")
