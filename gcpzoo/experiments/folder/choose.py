"""Choose the settings of a training for a folder of images, and say why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gcpzoo.experiments.folder.advice import (
    BATCHES,
    COMMON,
    CONTROL,
    DEFAULT,
    EPOCHS,
    HEADS,
    IMAGE_SIZES,
    IMBALANCE,
    LONG_ON_CPU,
    OTHER_HEAD,
    HeadAdvice,
)
from gcpzoo.experiments.folder.frozen import GIVEN_BACK, FrozenComparison
from gcpzoo.experiments.folder.source import Source
from gcpzoo.experiments.folder.survey import FolderSurvey
from gcpzoo.experiments.sweep.options import lay_over


@dataclass(frozen=True)
class Choice:
    """Settings of a training, with their reasons.

    Attributes:
        options: an ordinary config of ``gcpzoo fit``.
        reasons: what was chosen and why, by topic.

    >>> Choice({}, {"epochs": "10"}).reasons
    {'epochs': '10'}
    """

    options: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def choose(
    survey: FolderSurvey,
    source: Source | None,
    on_gpu: bool = False,
    head: str = DEFAULT,
    typed: Mapping[str, str] | None = None,
    measured: FrozenComparison | None = None,
) -> Choice:
    """Choose backbone, head, rates, image size, batch and epochs by the table of advice.

    Args:
        survey: of the folder.
        source: the backbone to start from; null: a whole model that the user named, which brings its own head.
        on_gpu: whether the training runs on a GPU.
        head: a key of the table's heads, or the name of a head.
        typed: options of the command line; they win, and the reasons name them.
        measured: what was found on the frozen backbone, which ``head`` follows from; for the reason.

    >>> survey = FolderSurvey("x", {"train": 900, "test": 200}, {"cat": 500, "dog": 400}, 300, 0, 0.2, 0.1)
    >>> choice = choose(survey, Source({"backbone": "resnet18"}, "a new resnet18"), head="gap")
    >>> choice.options["model"]["head"], choice.options["trainer"]["max_epochs"]
    ('gap', 10)
    """
    asked = typed or {}
    advice = HEADS.get(head) or _advice_of_another(head)
    train = survey.images["train"]
    epochs, batch, size = _first(EPOCHS, train), _first(BATCHES, train), image_size(survey, on_gpu)
    data: dict[str, Any] = {"root": survey.root, "image_size": size, "batch_size": batch}
    data["val_fraction"] = survey.val_fraction
    if survey.test_fraction:
        data["test_fraction"] = survey.test_fraction
    options = lay_over(COMMON, {"data": {"init_args": data}, "trainer": {"max_epochs": epochs}})
    if on_gpu:
        options["trainer"]["precision"] = "bf16-mixed"
    reasons = {"data": _data(survey, asked)}
    if source is not None:
        options = lay_over(lay_over(options, {"model": advice.model}), {"model": source.model})
        why = _measured(measured) if measured else advice.why
        reasons |= {"backbone": source.words, "head": f"{advice.label}: {why}"}
        reasons["rates"] = f"AdamW at {options['model']['optimizer']['lr']:g}, cosine; {advice.rates}"
    reasons["images"] = f"{size} px, {_reason_of_size(survey, size)}; batches of {batch}"
    reasons["epochs"] = f"{epochs}, the usual number for {train:,} training images"
    if survey.ratio >= IMBALANCE:
        reasons["balance"] = _balance(survey, asked)
    if changed := [name for name in asked if name.startswith(("model.", "data.", "trainer."))]:
        reasons["yours"] = f"{', '.join(changed)}: as you give it, whatever stands above"
    return Choice(options, reasons)


def image_size(survey: FolderSurvey, on_gpu: bool = False) -> int:
    """Choose the side of the images in pixels by their own sizes and number.

    >>> image_size(FolderSurvey("x", {"train": 9, "test": 2}, {"cat": 7, "dog": 2}, 100, 0, 0.2, 0.1))
    160
    """
    size = _first(IMAGE_SIZES, survey.shorter_side or 1_000)
    return size if on_gpu or survey.images["train"] < LONG_ON_CPU else min(size, 160)


def _measured(found: FrozenComparison) -> str:
    """Say what the frozen backbone showed."""
    text = (
        f"on the frozen backbone, covariance and mean get {100 * found.gcp:.1f} % of {found.images:,} training images "
        f"right, the mean alone {100 * found.gap:.1f} % (95 % interval of the difference: {100 * found.low:+.1f} to "
        f"{100 * found.high:+.1f})"
    )
    if found.keep == "gcp":
        return text
    return f"{text}: fine-tuning gives back up to {100 * GIVEN_BACK:.0f} points, and the mean is smaller and faster"


def _advice_of_another(head: str) -> HeadAdvice:
    if head == HEADS[CONTROL].model["head"]:
        return HEADS[CONTROL]
    return HeadAdvice(
        head, {"head": head, **OTHER_HEAD}, "as you asked", "reduction layer ×10, classifier ×10, as for isqrt"
    )


def _first(table: tuple[tuple[int, int], ...], value: float) -> int:
    return next(result for least, result in table if value >= least)


def _data(survey: FolderSurvey, asked: Mapping[str, str]) -> str:
    counts = list(survey.per_class.values())
    each = f"{counts[0]:,} each" if counts[0] == counts[-1] else f"{counts[-1]:,} to {counts[0]:,} each"
    text = f"{survey.images['train']:,} images of {len(counts)} classes to train on, {each}"
    if survey.test_fraction:
        text += f"; {survey.images['test']:,} set aside for the test ({survey.test_fraction:.0%})".replace("%", " %")
    else:
        text += f"; {survey.images['test']:,} test images"
    if "val" in survey.images:
        return f"{text}, {survey.images['val']:,} for validation"
    if survey.val_fraction:
        held = f"{survey.val_fraction:.0%}".replace("%", " %")
        return f"{text}; {held} of the training images are held out for validation"
    why = "as you asked" if "data.val_fraction" in asked else "the classes are too small"
    return f"{text}; none held out for validation, {why}"


def _reason_of_size(survey: FolderSurvey, size: int) -> str:
    if not survey.shorter_side:
        return "as no sampled image could be read"
    text = f"as the shorter side is about {survey.shorter_side:,.0f} px"
    if size < _first(IMAGE_SIZES, survey.shorter_side):
        text += " but so many images take long on a CPU"
    return text


def _balance(survey: FolderSurvey, asked: Mapping[str, str]) -> str:
    names = list(survey.per_class)
    text = f"{names[0]} has {survey.ratio:,.0f} times the images of {names[-1]}"
    if "balanced" in asked:
        return f"{text}: each class weighs the same in the loss, as you asked"
    return f"{text}: --balanced lets each class weigh the same; read the mean over classes beside top-1"
