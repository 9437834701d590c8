"""Where a run's files go, and what it prints and writes at its end."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.utilities import rank_zero_only

from gcpzoo.analysis.prediction_table import write_table
from gcpzoo.errors import ZooError
from gcpzoo.hub.run_results import REPORT, read_report
from gcpzoo.training import RunReport
from gcpzoo.training.options import CONFIG

OUTPUT = "GCPZOO_OUTPUT"
"""Environment variable by which the processes of one run share its folder."""
LOCK = ".lock"
"""File in a run's folder that its first process holds, see :func:`hold`."""


def output_folder(config: Any, subcommand: str) -> Path:
    """Choose the run's folder: ``--output``, else that of the checkpoint, else a new ``runs/BACKBONE_HEAD[-2…]``.

    Raises:
        ZooError: if a new training would write into the folder of another run, or an evaluation into a training's
            without ``--overwrite``.

    >>> from jsonargparse import Namespace
    >>> output_folder(Namespace(output=None, ckpt_path="runs/cub/checkpoints/last.ckpt", model=Namespace()), "fit")
    PosixPath('runs/cub')
    """
    if "LOCAL_RANK" in os.environ and OUTPUT in os.environ:  # a process that the trainer started beside the first one
        return Path(os.environ[OUTPUT])
    if config.get("output"):
        folder = Path(config.output)
        if folder.suffix.lower() == ".csv":
            raise ZooError(f"output must be a folder, got {config.output!r}: predictions.csv and the rest go into it")
        several, holds_generations = config.get("generations", 1) != 1, (folder / "generation-1").is_dir()
        if subcommand == "fit" and several and _holds_run(folder):
            raise ZooError(f"{str(folder)!r} holds a single training: give another --output for several generations")
        if subcommand == "fit" and not several and holds_generations:
            raise ZooError(
                f"{str(folder)!r} holds generations: go on with --generations N, 2 or more, or give another --output"
            )
        if subcommand == "fit" and not (config.get("ckpt_path") or config.get("resume")):
            refuse_run(folder)
        if subcommand != "fit" and not config.get("overwrite") and (holds_generations or holds_training(folder)):
            raise ZooError(
                f"{str(folder)!r} holds a training, whose results stay as they are: give another --output, or "
                "--overwrite to replace them"
            )
        return folder
    path = Path(config.get("ckpt_path") or config.model.checkpoint or "")
    run = path.parent.parent if path.suffix == ".ckpt" and path.parent.name == "checkpoints" else None
    if run and subcommand == "fit" and config.get("ckpt_path"):
        return run
    if max(int(os.environ.get(key, 1)) for key in ("WORLD_SIZE", "SLURM_NTASKS")) > 1:
        raise ZooError("processes started by torchrun or SLURM must share a folder: give --output DIR")
    model = config.model
    name = run.name if run else str(model.checkpoint or f"{model.backbone}_{model.head}").rstrip("/").split("/")[-1]
    name = name.replace(":", "-") + ("" if subcommand == "fit" else f"-{subcommand}")
    folders = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(f for f in folders if not f.exists())


def refuse_run(folder: Path) -> None:
    """Refuse to begin a training where there is one.

    Raises:
        ZooError: if the folder holds a run.

    >>> refuse_run(Path("/nowhere"))
    """
    if _holds_run(folder):
        raise ZooError(f"{str(folder)!r} holds a run already: give another --output, or --resume to go on with it")


def refuse_training(folder: Path, purpose: str) -> None:
    """Refuse to begin several trainings in a folder that holds one, or its generations.

    Raises:
        ZooError: if it does.

    >>> refuse_training(Path("/nowhere"), "a comparison")
    """
    if _holds_run(folder) or (folder / "generation-1").exists():
        raise ZooError(f"{str(folder)!r} holds a training: give another --output for {purpose}")


def _holds_run(folder: Path) -> bool:
    return (folder / REPORT).exists() or (folder / "checkpoints").is_dir()


def holds_training(folder: Path) -> bool:
    """Say whether a folder holds a training: its checkpoints, or its report.

    The report of an evaluation tells of the training too, where it is of a run's ``.ckpt``, which its options name.

    >>> holds_training(Path("/nowhere"))
    False
    """
    if (folder / "checkpoints").is_dir():
        return True
    options = folder / CONFIG
    try:
        trained = "fit" in read_report(folder)
        evaluated = options.is_file() and re.search(r"^ckpt_path: (?!null)", options.read_text("utf-8"), re.MULTILINE)
        return trained and not evaluated
    except (OSError, ValueError):
        return False


def make_output(folder: Path) -> None:
    """Make the folder of a run.

    Raises:
        ZooError: if it cannot be made.

    >>> make_output(Path("/proc/run"))
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: the output folder '/proc/run' cannot be made: ...
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"the output folder {str(folder)!r} cannot be made: {error.strerror}") from error


@rank_zero_only
def hold(folder: Path) -> BinaryIO | None:
    """Keep the folder of a run to this command, for as long as it keeps what this returns.

    The first of a run's processes holds it, once: closing one of two files would end both locks. The lock is that
    process's own (POSIX): data workers do not inherit it, and it ends with a killed process at once.

    Returns:
        An open file; ``None`` where nothing can be written, which is named elsewhere, and in further processes.

    Raises:
        ZooError: if another command holds it.

    >>> hold(Path("/proc/run")) is None
    True
    """
    try:
        file = (folder / LOCK).open("ab")
    except OSError:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        raise ZooError(f"another run writes into {str(folder)!r}: wait for it, or give another --output") from None
    except OSError:
        pass  # a file system without locks
    return file


def set_former_log_aside(folder: Path) -> None:
    """Rename the ``metrics.csv`` of an interrupted run, which CSVLogger would delete.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "metrics.csv").write_text("epoch")
    >>> set_former_log_aside(folder)
    >>> [path.name for path in folder.iterdir()]
    ['metrics-1.csv']
    """
    former = folder / "metrics.csv"
    if former.exists():
        names = (folder / f"metrics-{i}.csv" for i in range(1, 10_000))
        former.rename(next(n for n in names if not n.exists()))


def print_summary(trainer: Any, folder: Path) -> None:
    """Print the figures of a run and where its results are, from the main process.

    >>> from lightning import Trainer
    >>> trainer = Trainer(callbacks=[RunReport()], logger=False, accelerator="cpu", enable_checkpointing=False)
    >>> print_summary(trainer, Path("runs/cub"))
    results in runs/cub
    """
    if not trainer.is_global_zero:
        return
    report = next(c for c in trainer.callbacks if isinstance(c, RunReport)).report
    for stage in ("validate", "test"):
        if stage in report:
            print(summary_line(stage, report))
    if left_out := report.get("data", {}).get("left_out"):
        print(f"{len(left_out):,} unreadable images were left out; metrics.json names them")
    print(f"results in {folder}")


def summary_line(stage: str, report: dict[str, Any]) -> str:
    """Return the figures of one evaluation in a line.

    >>> summary_line("test", {"test": {"top1": 0.5, "top5": 1.0, "per_class": 0.25, "loss": 1.5}})
    'test: top-1 50.00 %, top-5 100.00 %, mean over classes 25.00 %, loss 1.5000'
    """
    r = report[stage]
    epochs = f" after epoch {report['fit']['epochs']}" if "fit" in report else ""
    kept = report.get("checkpoint", {})
    if kept.get("kept") == "best":
        images = "held-out training" if report["data"].get("val_fraction") else "validation"
        epochs = (
            f" of epoch {kept['epoch']} of {report['fit']['epochs']}, the best by {kept['metric']} of {images} images"
        )
    top1, top5, mean = (100 * r[k] for k in ("top1", "top5", "per_class"))
    loss = "not finite" if r["loss"] is None else f"{r['loss']:.4f}"
    f1 = f", F1 {100 * r['f1']:.2f} %" if r.get("f1") is not None else ""
    return f"{stage}{epochs}: top-1 {top1:.2f} %, top-5 {top5:.2f} %, mean over classes {mean:.2f} %{f1}, loss {loss}"


def write_predictions(outputs: Sequence[Any], model: Any, data: Any, folder: Path) -> None:
    """Write ``predictions.csv``: path, class (its id), description, probability, and the true class where known.

    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(class_names=["n1", "n2"], class_descriptions=["tench", "goldfish"])
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_predictions([torch.tensor([[0.25, 0.75]])], model, None, folder)
    1 predictions in ...predictions.csv
    >>> (folder / "predictions.csv").read_text().splitlines()[1]
    '0,n2,goldfish,0.7500,'
    """
    ids: Any = model.class_names or data.class_names
    descriptions = model.class_descriptions or getattr(data, "class_descriptions", ids)
    samples: list[Any] = getattr(data, "samples", lambda _: [])("test")
    path = folder / "predictions.csv"
    probabilities = torch.cat([p for p in outputs if isinstance(p, torch.Tensor)])
    lines = []
    for i, (p, k) in enumerate(zip(*[t.tolist() for t in probabilities.max(1)])):
        image, label = samples[i] if samples else (i, None)
        known = ids[label] if label is not None else ""
        lines.append((image if isinstance(image, str) else i, ids[k], descriptions[k], f"{p:.4f}", known))
    write_table(lines, path)
    print(f"{len(probabilities)} predictions in {path}")
