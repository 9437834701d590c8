"""The whole way in minutes: list, load by name, evaluate, fine-tune with covariance pooling and with its control."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError

PRETRAINED = "resnet18_isqrt.digits"
TRUNK = "mobilenet_v2_isqrt.grocery81"
HEADS = ("isqrt", "gap")


def _say(text: str) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(text)


def _run(*arguments: str) -> None:
    """One command line, shown and run."""
    from gcpzoo.cli.main import run

    _say(f"\n[bold]$ gcpzoo {' '.join(arguments)}[/bold]")
    run(arguments)


def demo(data: str | None = None, output: str = "runs/demo", epochs: int | None = None) -> None:
    """Run the demonstration; every step is a command that could be typed.

    Args:
        data: a folder of one's own images (class folders, or train/val/test); ``None``: scikit-learn's digits.
        output: folder of the results; what a former demonstration left there is replaced.
        epochs: epochs of both fine-tunings.

    Raises:
        ZooError: no such folder, or images that cannot be read.
    """
    start, folder = time.perf_counter(), Path(output)
    if data is not None and not Path(data).is_dir():
        raise ZooError(f"there is no folder {data!r}; give one with a subfolder of images for each class")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "demo.json").exists():
            raise ZooError(f"{output!r} holds something else; give another --output")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.json").write_text("{}\n")

    _run("list", "*.digits")
    _run("list", "*.grocery81")
    if data is None:
        _run("test", "--model", PRETRAINED, "--data", "Digits", "--output", str(folder / PRETRAINED))
        _compare_with_record(folder / PRETRAINED)
    options = ["--data", "ImageFolder", "--data.root", data] if data else []
    config = "finetune/images.yaml" if data else "finetune/digits.yaml"
    reports: dict[str, Any] = {}
    for head in HEADS:
        arguments = ["fit", "--config", config, *options, "--model.head", head, "--output", str(folder / head)]
        if epochs:
            arguments += ["--trainer.max_epochs", str(epochs)]
        _run(*arguments)
        reports[head] = json.loads((folder / head / "metrics.json").read_text())
    _results(reports, folder)
    seconds = time.perf_counter() - start
    (folder / "demo.json").write_text(json.dumps({"seconds": round(seconds, 1), "runs": reports}, indent=2) + "\n")
    _say(f"\nDone in {seconds:.0f} s. Plots and figures are in {folder}; predict with one of the models:")
    _say(
        f"  gcpzoo predict --model {folder}/isqrt/checkpoints/last.ckpt IMAGE",
    )


def _compare_with_record(folder: Path) -> None:
    from gcpzoo.hub.records import get_record

    measured = 100 * json.loads((folder / "metrics.json").read_text())["test"]["top1"]
    recorded = get_record(PRETRAINED).metrics["top1"]
    same = abs(measured - recorded) < 0.005
    _say(
        f"{PRETRAINED}: the record says {recorded:.2f} %, measured {measured:.2f} %: {'equal' if same else 'NOT EQUAL'}"
    )
    if not same:
        raise ZooError(f"{PRETRAINED} does not reproduce its record on this machine")


def _results(reports: dict[str, Any], folder: Path) -> None:
    """The table of both runs, and their training curves and spectra in common plots."""
    from rich import box
    from rich.table import Table

    from gcpzoo.analysis import plots
    from gcpzoo.cli.commands import show

    table = Table(box=box.SIMPLE_HEAD, title="Same backbone, data, seed and epochs; final epoch, test images")
    for column in ("head", "top-1 %", "top-5 %", "mean over classes %", "loss", "parameters", "training s"):
        table.add_column(column, justify="left" if column == "head" else "right")
    for head, r in reports.items():
        t = r["test"]
        shares = [f"{100 * t[k]:.2f}" for k in ("top1", "top5", "per_class")]
        table.add_row(head, *shares, f"{t['loss']:.3f}", f"{r['parameters']:,}", f"{r['fit']['seconds']:.0f}")
    show(table)
    plots.training_curves({h: r["fit"]["history"] for h, r in reports.items()}, folder / "training_curves.png")
    spectra = {h: json.loads((folder / h / "spectrum.json").read_text()) for h in reports}
    plots.covariance_spectrum(spectra, folder / "covariance_spectrum.png")
    shutil.copy(folder / HEADS[0] / "confusion_matrix.png", folder / "confusion_matrix.png")
