"""Heads compared on the same data, backbone and settings: estimates, differences to the control, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gcpzoo.analysis.calibration import BINS, calibration_error, reliability_bins
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.experiments.report.trainings import Training
from gcpzoo.experiments.statistics import (
    Estimate,
    bootstrap_images,
    epochs_to_reach,
    mean_interval,
    paired_difference,
)


@dataclass
class HeadResult:
    """What the trainings of one head say.

    Attributes:
        runs: those that are done, by seed.
        unfinished: number of those that are not.
        over_seeds: difference to the control, paired by seed; a fraction.
        over_images: the same, paired by test image.
        reached: for each shared seed the epochs to the control's final accuracy on validation images; null: not.

    >>> HeadResult("gap", [], 0).test
    """

    name: str
    runs: list[Training]
    unfinished: int
    over_seeds: Estimate | None = None
    over_images: Estimate | None = None
    reached: list[int | None] = field(default_factory=list)

    @property
    def test(self) -> Estimate | None:
        """Top-1 on the test images, a fraction."""
        return mean_interval(self.by_seed("test/top1")) if self.runs else None

    def by_seed(self, name: str) -> list[float]:
        """Return a figure of the final epoch of each training that has it."""
        return [run.epochs[-1][name] for run in self.runs if name in run.epochs[-1]]

    @property
    def minutes(self) -> str:
        """Median over seeds: a training that others slowed down, or that stood still, does not decide it."""
        seconds = self.by_seed("seconds")
        return f"{np.median(seconds) / 60:.1f}" if seconds else "–"

    @property
    def lengths(self) -> str:
        """Epochs of its trainings."""
        return " or ".join(map(str, sorted({run.length for run in self.runs})))


@dataclass
class Block:
    """The heads on the same data, backbone and settings.

    >>> Block({"data": "digits", "backbone": "resnet18"}, None, []).title
    'digits · resnet18'
    """

    labels: dict[str, str]
    control: str | None
    heads: list[HeadResult]
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return " · ".join(self.labels.values())

    def get(self, name: str | None) -> HeadResult | None:
        """Find a head that has finished trainings."""
        return next((head for head in self.heads if head.name == name and head.runs), None)


def compare(trainings: Sequence[Training], control: str | None = None) -> list[Block]:
    """Group trainings and compare every head with the control.

    Args:
        trainings: of :func:`gcpzoo.experiments.report.collect`.
        control: name of the head to compare with; null: ``gap``, where there is one.

    Raises:
        ZooError: if no training has this head.

    >>> [block] = compare([
    ...     Training({"data": "d", "head": "gap"}, 0, [{"test/top1": 0.5}], {}),
    ...     Training({"data": "d", "head": "isqrt"}, 0, [{"test/top1": 0.75}], {}),
    ... ])
    >>> block.control, block.heads[1].over_seeds.mean
    ('gap', 0.25)
    """
    heads = list(dict.fromkeys(run.labels["head"] for run in trainings))
    if control is not None and control not in heads:
        raise unknown_name("control", control, heads)
    if control is None and "gap" in heads:
        control = "gap"
    groups: dict[Any, list[Training]] = {}
    for run in trainings:
        groups.setdefault(tuple((k, v) for k, v in run.labels.items() if k != "head"), []).append(run)
    blocks = []
    for labels, runs in groups.items():
        results = []
        for name in dict.fromkeys(run.labels["head"] for run in runs):
            _check_recipes([run for run in runs if run.labels["head"] == name])
            own = sorted((run for run in runs if run.labels["head"] == name), key=lambda run: run.seed)
            done = [run for run in own if run.test is not None]
            results.append(HeadResult(name, done, len(own) - len(done)))
        block = Block(dict(labels), control, results)
        _compare_with_control(block)
        blocks.append(block)
    return blocks


def _check_recipes(runs: Sequence[Training]) -> None:
    """Refuse to average trainings of one name that were trained with different options."""
    recipes = {run.about.get("recipe", ""): run for run in runs if run.about.get("recipe")}
    if len(recipes) > 1:
        one, other = list(recipes.values())[:2]
        raise ZooError(
            f"{' · '.join(one.labels.values())}: seed {one.seed} ({one.source}) and seed {other.seed} ({other.source}) "
            "were trained with different options, so they have no common mean: report them apart, or rename one"
        )


def _compare_with_control(block: Block) -> None:
    control = block.get(block.control)
    if control is None:
        block.notes.append(f"No training of the control {block.control!r} is done here." if block.control else "")
        return
    base = {run.seed: run for run in control.runs}
    for head in block.heads:
        if head.name == block.control or not head.runs:
            continue
        own = {run.seed: run for run in head.runs}
        common = sorted(own.keys() & base.keys())
        head.over_seeds = paired_difference(_tests(own.values()), _tests(base.values()))
        if len(common) < max(len(own), len(base)):
            block.notes.append(f"{head.name}: only the seeds {common} are paired with the control.")
        if head.lengths != control.lengths:
            block.notes.append(f"{head.name}: trained for {head.lengths} epochs, the control for {control.lengths}.")
        head.over_images = _over_images([(own[s], base[s]) for s in common], block, head.name)
        for seed in common:
            curve = [v for v in base[seed].curve("val/top1") if v is not None]
            if curve:
                head.reached.append(epochs_to_reach(own[seed].curve("val/top1"), curve[-1]))


def _tests(runs: Iterable[Training]) -> dict[int, float]:
    return {run.seed: run.test for run in runs if run.test is not None}


def _over_images(pairs: list[tuple[Training, Training]], block: Block, name: str) -> Estimate | None:
    """Resample the test images: how much more often a head is right than the control, over the shared seeds."""
    found = [(run.predictions(), control.predictions()) for run, control in pairs]
    known = [(one, other) for one, other in found if one is not None and other is not None]
    if not known:
        return None
    if len(known) < len(found):
        why = f"only {len(known)} of {len(found)} seeds have predictions of both."
    elif not all(one.same_images(other) for one, other in known):
        why = "its test images are not those of the control."
    elif not all(one.same_images(known[0][0]) for one, _ in known):
        why = "the test images of one seed are not those of another."
    else:
        return bootstrap_images(np.mean([one.right.astype(float) - other.right for one, other in known], 0))
    block.notes.append(f"{name}: not paired by image, for {why}")
    return None


def calibration(runs: Sequence[Training], bins: int = BINS) -> tuple[list[tuple[float, float, int]], float] | None:
    """Compare confidence with accuracy, in equal bins over the images of all seeds.

    Returns:
        For each bin with images the mean confidence, the share that is right and the number of images; then the
        expected calibration error, the mean of their distances weighted by images. Nothing without predictions.

    Source: Guo et al., ICML 2017.

    >>> calibration([])
    """
    found = [p for p in (run.predictions() for run in runs) if p is not None]
    if not found:
        return None
    confidence, right = (np.concatenate([getattr(p, name) for p in found]) for name in ("confidence", "right"))
    rows = list(reliability_bins(confidence, right, bins).values())
    return rows, calibration_error(rows)


def confusion(runs: Sequence[Training]) -> tuple[Any, list[str]] | None:
    """Average over seeds the share of each true class that was predicted as each class.

    Returns:
        The shares, a row for each true class, and the class ids; nothing without predictions.

    >>> confusion([])
    """
    found = [p for p in (run.predictions() for run in runs) if p is not None]
    if not found:
        return None
    names = sorted(
        {str(c) for p in found for c in (*p.true, *p.predicted)}, key=lambda c: (len(c), c) if c.isdigit() else (0, c)
    )
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)))
    for p in found:
        np.add.at(counts, ([place[str(c)] for c in p.true], [place[str(c)] for c in p.predicted]), 1)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1), names
