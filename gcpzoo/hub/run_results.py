"""The results of a training run, read from its ``metrics.json`` for the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.limits import read_json
from gcpzoo.paths import run_file

REPORT, COMPARISON = "metrics.json", "comparison.json"
WRONG = (ValueError, KeyError, TypeError, AttributeError, OverflowError)
"""What a report of another shape raises."""
COMPARED = ("backbone", "head", "num_classes", "dim", "until", "fusion", "hidden", "last_stride")
"""Fields of a model's configuration that every version of ``metrics.json`` writes in the same way."""


def read_report(folder: Path) -> dict[str, Any]:
    """Read the ``metrics.json`` of a run's folder as it is; nothing where there is none yet, or a damaged one.

    >>> read_report(Path("nowhere"))
    {}
    """
    try:
        report = _read(folder / REPORT)
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def run_results(checkpoint: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Read what the run wrote into ``metrics.json`` about the epoch it kept, as fields of a record, and of its control.

    Args:
        checkpoint: the run's ``checkpoints/last.ckpt``, or ``best.ckpt`` where it kept the best epoch; for any other
            file there are no results.
        config: configuration of the model in it.

    Raises:
        ZooError: if ``metrics.json`` is not a run's report, or is of another model.

    >>> run_results(Path("run/checkpoints/epoch=1.ckpt"), {})
    {}
    """
    report = run_report(checkpoint, config) if checkpoint.name in ("best.ckpt", "last.ckpt") else {}
    if not report:
        return {}
    try:
        is_best = report.get("checkpoint", {}).get("kept") == "best"
        if is_best != (checkpoint.name == "best.ckpt"):
            return {}
        return _fields(report) | _control(report, checkpoint.absolute().parent.parent)
    except WRONG as error:
        raise _no_report(checkpoint, error) from None


def run_report(model: str | Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Read the ``metrics.json`` of the run that a model is of; empty where there is none, as for any other model.

    Args:
        model: a run's folder, or any of its ``checkpoints/*.ckpt``.
        config: configuration of the model in it.

    Raises:
        ZooError: if ``metrics.json`` is not a run's report, or is of another model.

    >>> run_report(Path("run/checkpoints/epoch=1.ckpt"), {})
    {}
    """
    checkpoint = (run_file(model) or Path(model).expanduser()).absolute()
    path = checkpoint.parent.parent / REPORT
    if checkpoint.suffix != ".ckpt" or checkpoint.parent.name != "checkpoints" or not path.is_file():
        return {}
    try:
        report: dict[str, Any] = _read(path)
        _check_model(path, report["model"], config)
        report["data"].setdefault("images", {})  # of other data modules
        _fields(report)  # it has them all
        return report
    except ZooError:
        raise
    except WRONG as error:
        raise _no_report(checkpoint, error) from None


def _read(path: Path) -> Any:
    """Read a report; format 1 says "pictures" where today's says "images"."""
    report = read_json(path)
    data = report.get("data") if isinstance(report, dict) else None
    if isinstance(data, dict) and "pictures" in data:
        data["images"] = data.pop("pictures")
    return report


def _no_report(checkpoint: Path, error: Exception) -> ZooError:
    return ZooError(f"{checkpoint.parent.parent / REPORT} is not a report of 'gcpzoo fit': {error}")


def _check_model(path: Path, reported: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse the report of another model, as ``gcpzoo test --model OTHER --output RUN`` leaves it."""
    for key in COMPARED:
        if key in reported and key in config and reported[key] != json.loads(json.dumps(config[key])):
            raise ZooError(
                f"{path} is of another model: its {key} is {reported[key]!r}, that of the checkpoint {config[key]!r}; "
                "evaluate the checkpoint again, or move the file away to publish without results"
            )


def _kept(report: Mapping[str, Any]) -> str:
    kept = report.get("checkpoint", {})
    return f", of which epoch {kept['epoch']}, the best by {kept['metric']}" if kept.get("kept") == "best" else ""


def _fields(report: Mapping[str, Any]) -> dict[str, Any]:
    data, epochs = report["data"], report["fit"]["epochs"]
    counts = ", ".join(f"{n} images ({split})" for split, n in data["images"].items())
    about: dict[str, Any] = {
        "data": f"{data['data']}: {counts}" if counts else data["data"],
        "recipe": f"{epochs} epoch{'' if epochs == 1 else 's'}{_kept(report)}; every setting is in training.yaml",
        "seeds": None if report["seed"] is None else [report["seed"]],
        "hardware": report["hardware"],
    }
    part = next((p for p in ("test", "validate") if p in report), None)
    if metrics := in_percent(report[part]) if part else {}:
        about |= {"metrics": metrics, "measured_by": "gcpzoo"}
        about["data"] += f", measured on the {'test' if part == 'test' else 'validation'} images"
    return about


def _control(report: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """What average pooling reached that ``gcpzoo fit --compare`` trained beside a run, on the same images."""
    if run.name != "gcp" or not (run.parent / COMPARISON).is_file():
        return {}
    other = read_report(run.parent / "gap")
    if other.get("data") != report["data"] or "test" not in other or "test" not in report:
        return {}
    return {"control": {"head": other["model"]["head"], **in_percent(other["test"])}}


def in_percent(evaluated: Mapping[str, Any]) -> dict[str, float]:
    """Read the accuracies of an evaluation, as cards and records give them; one that is not finite is left out.

    >>> in_percent({"top1": 0.91234, "top5": None, "images": 360})
    {'top1': 91.23}
    """
    shares = {k: evaluated.get(k) for k in ("top1", "top5", "per_class")}
    return {k: round(100 * share, 2) for k, share in shares.items() if share is not None}  # null: not finite
