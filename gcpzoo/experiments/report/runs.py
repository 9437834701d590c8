"""Runs of ``gcpzoo fit`` that no sweep made: only those with the same options are trainings of the same thing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.experiments.report.trainings import Training, check_figures
from gcpzoo.experiments.sweep.results import FIGURES
from gcpzoo.hub.run_results import REPORT, read_report
from gcpzoo.limits import read_yaml
from gcpzoo.training.options import CONFIG, WITHOUT_EFFECT, flatten, is_of

NAMED = ("data.class_path", "model.backbone", "model.head")
"""Options that have a label of their own."""
OF_HEAD = ("model.head_args", "model.dim", "model.fusion")
"""Options that come with the head: two values of them are two heads, to be compared with each other."""
NOT_SETTINGS = (*WITHOUT_EFFECT, *NAMED, "seed_everything", "evaluate", "generations")
TEACHER = "model.distillation.teacher"
LONGEST = 100
"""Characters of a label that names options."""


def read_runs(folders: Sequence[Path], apart: bool = False) -> list[Training]:
    """Read runs, labelled so that equal labels mean equal options but for the seed.

    Options in which the runs differ are named: those of the head beside its name, all others, the data's among them, as
    ``settings``. A network taught by a former one of its folder counts as of its generation.

    Args:
        folders: of the runs.
        apart: give all of them ``settings``, so that none is taken for a sweep's training.

    Raises:
        ZooError: if a folder is not that of a run of ``gcpzoo fit``, or its run had no seed.

    >>> read_runs([Path("nowhere")])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: nowhere/metrics.json is not the report of 'gcpzoo fit'
    """
    runs = [(_read_run(folder), _read_options(folder)) for folder in dict.fromkeys(folders)]
    blocks: dict[tuple[str, str], list[tuple[Training, dict[str, Any]]]] = {}
    for run, options in runs:
        blocks.setdefault((run.labels["data"], run.labels["backbone"]), []).append((run, options))
    for block in blocks.values():
        settings = _name_differences([options for _, options in block], lambda option: not is_of(option, OF_HEAD))
        for head in dict.fromkeys(run.labels["head"] for run, _ in block):
            own = [(run, options) for run, options in block if run.labels["head"] == head]
            names = _name_differences([options for _, options in own], lambda option: is_of(option, OF_HEAD))
            for (run, _), name in zip(own, names):
                run.labels["head"] = f"{head}, {name}" if name else head
        if apart or any(settings):
            for (run, _), name in zip(block, settings):
                run.labels["settings"] = name or "gcpzoo fit"
    return [run for run, _ in runs]


def _read_run(folder: Path) -> Training:
    report = read_report(folder)
    try:
        model, data = report["model"], report["data"]["data"]
        history, test = report["fit"]["history"], report.get("test", {})
        epochs = [{k: v for k, v in row.items() if k in ("epoch", *FIGURES) and v is not None} for row in history]
    except (KeyError, TypeError):
        raise ZooError(f"{folder}/{REPORT} is not the report of 'gcpzoo fit'") from None
    kept = report.get("checkpoint")
    about = {key: str(report.get(key, "")) for key in ("hardware", "gcpzoo", "parameters")}
    about["kept"] = str(kept.get("kept", "")) if isinstance(kept, Mapping) else ""
    if report.get("seed") is None:
        raise ZooError(f"the run in {folder} had no seed, by which runs are paired: leave it out, or train it with one")
    if epochs and isinstance(test, Mapping):
        epochs[-1] |= {f"test/{key}": test[key] for key in ("top1", "loss") if test.get(key) is not None}
    try:
        for row in epochs:
            check_figures(row)
    except ValueError as error:
        raise ZooError(f"{folder}/{REPORT}: {error}") from None
    labels = {"data": str(data), "backbone": str(model["backbone"]), "head": str(model["head"])}
    return Training(labels, report["seed"], epochs, about, folder, str(folder))


def _read_options(folder: Path) -> dict[str, Any]:
    """Read all that decides what a run computes, by dotted names: its options, and what its report says of the data."""
    report, path = read_report(folder), folder / CONFIG
    try:
        options = flatten(read_yaml(path))
    except FileNotFoundError:  # an older run: what the report has
        options = flatten({"data": report["data"], "trainer": {"max_epochs": report["fit"].get("epochs")}})
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{path} cannot be read: {error}") from None
    options = {key: value for key, value in options.items() if not is_of(key, NOT_SETTINGS)}
    options |= flatten({key: report["model"].get(key) for key in ("dim", "head_args", "fusion")}, "model")
    options |= flatten({key: report["data"].get(key) for key in ("num_classes", "images")}, "data")
    options["start"] = report.get("start")
    teacher = (report.get("teacher") or {}).get("sha256")
    options.pop(TEACHER, None)  # what it is, not where
    if generation := re.fullmatch(r"generation-(\d+)", folder.name):
        options["generation"] = int(generation[1])
        if options["generation"] > 1:  # its teacher is the generation before; what the first learned from counts
            first = folder.parent / "generation-1"
            teacher = (read_report(first).get("teacher") or {}).get("sha256")
    return {**options, "teacher": teacher and teacher[:12]}


def _name_differences(every: Sequence[Mapping[str, Any]], counts: Callable[[str], bool]) -> list[str]:
    """Name the options that count and in which some of these differ; equal names mean equal options."""
    keys = sorted({key for options in every for key in options if counts(key)})
    texts = [{key: json.dumps(options.get(key), sort_keys=True, default=str) for key in keys} for options in every]
    differing = [key for key in keys if len({text[key] for text in texts}) > 1]
    names = []
    for text in texts:
        parts = [f"{key.replace('.init_args.', '.').removeprefix('model.')}={text[key]}" for key in differing]
        name = ", ".join(parts)
        if len(name) > LONGEST:
            name = f"{name[:LONGEST]}… ({hashlib.sha256(name.encode()).hexdigest()[:8]})"
        names.append(name)
    return names
