"""``gcpzoo report``: what the trainings of a sweep say, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcpzoo.analysis.drawing import figures
from gcpzoo.errors import ZooError
from gcpzoo.experiments.report.collect import collect
from gcpzoo.experiments.report.compare import Block, HeadResult, calibration, compare, confusion
from gcpzoo.experiments.report.document import Document, Figure, Heading, Table, Text
from gcpzoo.experiments.report.trainings import Training
from gcpzoo.experiments.statistics import Estimate, mean_interval, percent, percent_between

SUFFIXES = (".html", ".md")
MOST_CONFUSIONS = 10


def write_report(
    folders: Sequence[str | Path], outputs: Sequence[str | Path], control: str | None = None, title: str = "Results"
) -> list[Block]:
    """Compare trainings and write what comes out.

    Args:
        folders: outputs of sweeps, run folders, or tables like ``results.csv``.
        outputs: files to write, ``.html`` or ``.md``.
        control: the head that the others are compared with; null: ``gap``.
        title: of the report.

    Returns:
        The comparisons, one for each data set, backbone and setting.

    Raises:
        ZooError: if there is nothing to compare, or an output has another suffix.

    >>> write_report(["runs/birds"], ["report.pdf"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: the output must end in .html or .md, got 'report.pdf'
    """
    for output in outputs:
        if Path(output).suffix not in SUFFIXES:
            raise ZooError(f"the output must end in {' or '.join(SUFFIXES)}, got {str(output)!r}")
    trainings = collect([Path(folder) for folder in folders])
    blocks = compare(trainings, control)
    if not any(head.runs for block in blocks for head in block.heads):
        raise ZooError("no training is done yet: there is no figure on test images to report")
    document = build(trainings, blocks, title)
    for output in outputs:
        document.write(Path(output))
    return blocks


def build(trainings: Sequence[Training], blocks: Sequence[Block], title: str) -> Document:
    """Put the report together.

    >>> runs = [Training({"data": "d", "head": "gap"}, 0, [{"test/top1": 0.5}], {})]
    >>> build(runs, compare(runs), "Birds").parts[0]
    Heading(text='Birds', level=1)
    """
    done = [run for run in trainings if run.test is not None]
    document = Document([Heading(title, 1), Text(_what(trainings, done))])
    order = {name: i for i, name in enumerate(dict.fromkeys(run.labels["head"] for run in trainings))}
    document.parts += [Heading("Test images"), *_overview(blocks, order)]
    for block in blocks:
        document.parts += [Heading(block.title), *_block(block, order)]
    document.parts += [Heading("How to read this"), *map(Text, _explain(blocks, done))]
    if failed := [run for run in trainings if run.test is None]:
        rows = [
            [" · ".join(r.labels.values()), str(r.seed), str(r.length), r.about.get("state") or "unfinished",
             r.about.get("error", "")] for r in failed
        ]  # fmt: skip
        document.parts += [Heading("Trainings that are not done"), Table(NOT_DONE, rows, names=5)]
    return document


NOT_DONE = ("training", "seed", "epochs", "state", "error")


def _what(trainings: Sequence[Training], done: Sequence[Training]) -> str:
    machines = sorted({run.about.get("hardware", "") for run in done} - {""})
    code = sorted({run.about.get("git") or run.about.get("gcpzoo", "") for run in done} - {""})
    best = sum(run.about.get("kept") == "best" for run in done)
    but = f", but for the {best} trained with --best: they tested the epoch that was best on validation images"
    text = f"{len(done)} of {len(trainings)} trainings are done. Every figure on test images is of the final epoch"
    text += f"{but if best else ''}."
    text += f" Measured on {'; '.join(machines)}." if machines else ""
    return text + (f" State of the code: {', '.join(code)}." if code else "")


def _overview(blocks: Sequence[Block], order: dict[str, int]) -> list[Text | Table | Figure]:
    """The table and the two figures that hold all comparisons."""
    rows, accuracy = [], []
    for block in blocks:
        for head in block.heads:
            if head.test is None:
                continue
            rows.append([
                block.title, head.name, str(len(head.runs)), percent(head.test),
                "control" if head.name == block.control else percent_between(head.over_seeds),
                "" if head.name == block.control else percent_between(head.over_images),
                reached(head), head.minutes,
            ])  # fmt: skip
            base = {"group": block.title, "name": head.name, "series": order[head.name]}
            seeds = [100 * v for v in head.by_seed("test/top1")]
            accuracy.append({**base, **_interval(head.test), "points": seeds})
    difference = differences(blocks, order)
    parts: list[Text | Table | Figure] = [Table(COLUMNS, rows, names=2)]
    name = "Top-1 accuracy on test images"
    caption = "Mean over seeds with its 95 % interval; the ticks are the single seeds."
    parts.append(Figure(name, figures.to_svg(figures.intervals(accuracy, "top-1 accuracy (%)"), name), caption))
    if difference:
        name = "Difference to the control"
        drawing = figures.intervals(difference, "difference in top-1 to the control (points)", zero=True)
        parts.append(Figure(name, figures.to_svg(drawing, name), THICK_AND_DOTTED))
    return parts


THICK_AND_DOTTED = "Thick: 95 % interval over seeds. Dotted: 95 % interval over test images."


def differences(blocks: Sequence[Block], order: dict[str, int]) -> list[dict[str, Any]]:
    """List the differences to the control with both intervals, for :func:`gcpzoo.analysis.drawing.figures.intervals`.

    >>> runs = [Training({"data": "d", "head": head}, 0, [{"test/top1": 0.5}], {}) for head in ("gap", "isqrt")]
    >>> [(row["name"], row["mean"]) for row in differences(compare(runs), {"isqrt": 1})]
    [('isqrt', 0.0)]
    """
    rows = []
    for block in blocks:
        for head in block.heads:
            if head.over_seeds is not None:
                second = _interval(head.over_images) if head.over_images else {"low": None, "high": None}
                row: dict[str, Any] = {"group": block.title, "name": head.name, "series": order[head.name]}
                row |= {"points": [], "low2": second["low"], "high2": second["high"]}
                rows.append(row | _interval(head.over_seeds))
    return rows


COLUMNS = (
    "data · backbone · settings", "head", "seeds", "top-1 %", "to control, over seeds", "to control, over images",
    "epochs to control's final", "minutes",
)  # fmt: skip


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {
        "mean": 100 * estimate.mean,
        "low": None if estimate.low is None else 100 * estimate.low,
        "high": None if estimate.high is None else 100 * estimate.high,
    }


def reached(head: HeadResult) -> str:
    """Write the epochs to the control's final accuracy: their mean, and in how many seeds it was reached.

    >>> reached(HeadResult("isqrt", [], 0, reached=[3, None]))
    '3.0 (in 1 of 2 seeds)'
    """
    if not head.reached:
        return "–"
    epochs = [e for e in head.reached if e is not None]
    if not epochs:
        return "not reached"
    text = f"{np.mean(epochs):.1f}"
    return text if len(epochs) == len(head.reached) else f"{text} (in {len(epochs)} of {len(head.reached)} seeds)"


def _block(block: Block, order: dict[str, int]) -> list[Text | Table | Figure]:
    """Everything about one comparison."""
    done = [head for head in block.heads if head.runs]
    parts: list[Text | Table | Figure] = [Text(note) for note in block.notes if note]
    if heads := {head.name: rows for head in done if (rows := _curve(head.runs))}:
        name = f"Accuracy against epochs and time, {block.title}"
        svg = figures.to_svg(figures.curves(heads, order), name)
        parts.append(Figure(name, svg, "Mean over seeds; the band spans them. The final epoch counts, not the best."))
    if found := {head.name: values for head in done if (values := _spectrum(head.runs))}:
        name = f"Spectra, {block.title}"
        svg = figures.to_svg(figures.spectra(found, order), name)
        parts.append(Figure(name, svg, "Eigenvalues after training, averaged over 32 test images and over seeds."))
    return parts + _calibration(block, done, order) + _confusions(block, done)


def _curve(runs: Sequence[Training]) -> list[tuple[float, ...]]:
    """Number, mean, lowest and highest accuracy in %, and minutes of each epoch that validated all seeds."""
    rows: list[tuple[float, ...]] = []
    figures_of = [zip(*(run.curve(name) for run in runs)) for name in ("val/top1", "seconds")]
    for number, (shares, seconds) in enumerate(zip(*figures_of), 1):
        values = [100 * share for share in shares if share is not None]
        spent = [value / 60 for value in seconds if value is not None]
        if len(values) == len(runs):
            minutes = float(np.median(spent)) if spent else float("nan")
            rows.append((number, float(np.mean(values)), min(values), max(values), minutes))
    return rows


def _spectrum(runs: Sequence[Training]) -> dict[str, list[float]]:
    """Average the spectra of the seeds."""
    found = [spectrum for run in runs if (spectrum := run.spectrum())]
    return {
        kind: np.mean([s[kind] for s in found], 0).tolist()
        for kind in ("covariance", "normalized")
        if found and all(s.get(kind) and len(s[kind]) == len(found[0].get(kind, [])) for s in found)
    }


def _calibration(block: Block, done: Sequence[HeadResult], order: dict[str, int]) -> list[Text | Table | Figure]:
    heads, rows = {}, []
    for head in done:
        if (measured := calibration(head.runs)) is None:
            continue
        heads[head.name] = measured[0]
        errors = [own[1] for run in head.runs if (own := calibration([run]))]
        losses = head.by_seed("test/loss")
        rows.append([head.name, percent(mean_interval(errors)), f"{np.mean(losses):.4f}" if losses else "–"])
    if not heads:
        return []
    name = f"Calibration, {block.title}"
    svg = figures.to_svg(figures.reliability(heads, order), name)
    caption = (
        "Share that is right against confidence, in 15 bins over the test images of all seeds; on the line they agree."
    )
    columns = ("head", "expected calibration error, points", "negative log-likelihood")
    return [Table(columns, rows), Figure(name, svg, caption)]


def _confusions(block: Block, done: Sequence[HeadResult]) -> list[Text | Table | Figure]:
    """Draw the confusions of the control and of the best other head, and list where the latter differs most."""
    others = sorted((h for h in done if h.name != block.control), key=lambda h: -h.test.mean if h.test else 0)
    chosen = [head for head in (block.get(block.control), *others[:1]) if head]
    found = {head.name: share for head in chosen if (share := confusion(head.runs))}
    names = next(iter(found.values()))[1] if found else []
    if not found or any(classes != names for _, classes in found.values()):
        return []
    shares = {head: share for head, (share, _) in found.items()}
    name = f"Confusions, {block.title}"
    caption = "Share of each true class that was predicted as each class, over the test images of all seeds."
    parts: list[Text | Table | Figure] = [
        Figure(name, figures.to_svg(figures.confusions(shares, names), name), caption)
    ]
    mean = np.mean(list(shares.values()), 0)
    np.fill_diagonal(mean, 0)
    largest = [divmod(int(i), len(names)) for i in np.argsort(-mean, axis=None)[:MOST_CONFUSIONS] if mean.flat[i] > 0]
    rows = [[names[i], names[j], *(f"{100 * share[i, j]:.1f}" for share in shares.values())] for i, j in largest]
    return (
        [*parts, Table(("true class", "taken for", *(f"{head} %" for head in shares)), rows, names=2)]
        if rows
        else parts
    )


def _explain(blocks: Sequence[Block], done: Sequence[Training]) -> list[str]:
    """Say what the figures prove and what they do not."""
    seeds = sorted({len(head.runs) for block in blocks for head in block.heads if head.runs})
    compared = sum(head.over_seeds is not None for block in blocks for head in block.heads)
    few = f"Between {seeds[0]} and {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    lines = [
        f"Seeds: {few} for each head. ± is the half width of Student's 95 % interval of the mean over seeds. It is 9 "
        "standard deviations with two seeds and 2.5 with three, so three seeds alone prove little; one seed has "
        "none at all.",
        "Difference over seeds: of trainings with the same seed, so what a seed does to both cancels. It says whether "
        "other trainings on the same images would come out alike.",
        "Difference over images: the test images are drawn again 10,000 times (bootstrap), each with the answers of "
        "these very networks. It says whether other test images would come out alike, not whether other trainings "
        "would. A difference is well founded where both intervals exclude 0.",
    ]
    if compared > 1:
        lines.append(
            f"There are {compared} comparisons, none corrected for their number: about one interval in twenty excludes "
            "0 by chance."
        )
    lines += (
        "Epochs to the control's final: the first epoch after which the accuracy on validation images is at least the "
        "control's after its final epoch, seed by seed; the mean is of the seeds that reach it.",
        "Minutes: the median over seeds, of the training with its validations. Trainings side by side slow each other "
        "down: it compares costs roughly.",
    )
    return lines
