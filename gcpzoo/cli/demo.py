"""``gcpzoo demo``: list, load by name, evaluate, fine-tune with covariance pooling and its control, learn from few."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from gcpzoo.cli.few_images import few_images
from gcpzoo.cli.tables import new_table, show
from gcpzoo.errors import ZooError
from gcpzoo.hub.records import get_record
from gcpzoo.hub.run_results import read_report
from gcpzoo.paths import write_text

PRETRAINED = "resnet18_isqrt.digits"
HEADS = ("isqrt", "gap")


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("demo", help="every step on real data: load, evaluate, fine-tune with the control, plot")
    p.add_argument("--data", help="folder of your own images, one subfolder a class; default: handwritten digits")
    p.add_argument("--output", default="runs/demo", help="folder of the results (runs/demo)")
    p.add_argument("--epochs", type=int, help="epochs of both fine-tunings")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Run the demonstration; every step is a command that could be typed.

    It stops at the first command that fails or is interrupted, and returns its exit code.
    """
    from rich.markup import escape

    start, folder = time.perf_counter(), _prepare(args.data, args.output)
    results: dict[str, Any] = {}
    for arguments in _commands(args, folder):
        say(f"\n[bold]$ gcpzoo {escape(' '.join(arguments))}[/bold]")
        if code := args.run_command(arguments):
            return code
        if arguments[0] == "test":
            _compare_with_record(folder / PRETRAINED)
    for head in HEADS:
        results[head] = read_report(folder / head)
    _show_results(results, folder)
    content: dict[str, Any] = {"runs": results}
    if args.data is None:
        _say_how_little_it_tells(results)
        content["few_images"] = few_images(folder, say)
    seconds = time.perf_counter() - start
    write_text(folder / "demo.json", json.dumps({"seconds": round(seconds, 1), **content}, indent=2) + "\n")
    say(f"\nDone in {seconds:.0f} s. Plots and figures are in {escape(str(folder))}. What to do next:")
    say(f"  gcpzoo predict --model {escape(str(folder))}/isqrt/checkpoints/last.ckpt IMAGE")
    say("  gcpzoo demo --data FOLDER        the same comparison on your own images, a subfolder for each class")
    say("  gcpzoo sweep sweep/digits.yaml   heads and seeds, for gcpzoo report; docs/evidence.md has what is known")
    return 0


def say(text: str) -> None:
    """Print a line in rich's markup, unwrapped.

    >>> say("[bold]done[/bold]")
    done
    """
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(text)


def _prepare(data: str | None, output: str) -> Path:
    """Empty the folder of a former demonstration; a folder with anything else in it is refused."""
    folder = Path(output)
    if data is not None and not Path(data).is_dir():
        raise ZooError(f"there is no folder {data!r}; give one with a subfolder of images for each class")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "demo.json").exists():
            raise ZooError(f"{output!r} holds something else; give another --output")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "demo.json", "{}\n")
    return folder


def _commands(args: argparse.Namespace, folder: Path) -> list[list[str]]:
    """Return the command lines of the demonstration."""
    commands = [["list", "*.digits"], ["list", "*.grocery81"]]
    if args.data is None:
        commands.append(["test", "--model", PRETRAINED, "--data", "Digits", "--output", str(folder / PRETRAINED)])
    config = "finetune/images.yaml" if args.data else "finetune/digits.yaml"
    options = ["--data", "ImageFolder", "--data.root", args.data] if args.data else []
    options += ["--trainer.max_epochs", str(args.epochs)] if args.epochs is not None else []
    for head in HEADS:
        commands.append(["fit", "--config", config, "--model.head", head, "--output", str(folder / head), *options])
    return commands


def _compare_with_record(folder: Path) -> None:
    measured = 100 * read_report(folder)["test"]["top1"]
    recorded = get_record(PRETRAINED).metrics["top1"]
    same = abs(measured - recorded) < 0.005
    say(
        f"{PRETRAINED}: the record says {recorded:.2f} %, measured {measured:.2f} %: {'equal' if same else 'NOT EQUAL'}"
    )
    if not same:
        raise ZooError(f"{PRETRAINED} does not reproduce its record on this machine")


def _say_how_little_it_tells(reports: dict[str, Any]) -> None:
    """Say by how many test images the two trainings differ: one training of each proves nothing."""
    one, other = (reports[head]["test"] for head in HEADS)
    apart = round((one["top1"] - other["top1"]) * one["images"])
    ahead = "Neither is ahead" if not apart else f"{HEADS[apart < 0]} is ahead by {abs(apart)}"
    say(f"{ahead} of {one['images']:,} test digits, after one training each with all digits: too easy to tell by.")


def _show_results(reports: dict[str, Any], folder: Path) -> None:
    """Show the table of both runs, and draw their training curves and spectra into common plots."""
    from gcpzoo.analysis.drawing import plots

    columns = ("head", "top-1 %", "top-5 %", "mean over classes %", "loss", "parameters", "training s")
    title = "Same backbone, data, seed and epochs; final epoch, test images"
    table = new_table(*columns, right=columns[1:], title=title)
    for head, r in reports.items():
        t = r["test"]
        shares = [f"{100 * t[k]:.2f}" for k in ("top1", "top5", "per_class")]
        table.add_row(head, *shares, f"{t['loss']:.3f}", f"{r['parameters']:,}", f"{r['fit']['seconds']:.0f}")
    show(table)
    histories, loss = {h: r["fit"]["history"] for h, r in reports.items()}, reports[HEADS[0]]["fit"]["loss"]
    plots.training_curves(histories, folder / "training_curves.png", loss)
    spectra = {h: json.loads((folder / h / "spectrum.json").read_text()) for h in reports}
    plots.covariance_spectrum(spectra, folder / "covariance_spectrum.png")
    shutil.copy(folder / HEADS[0] / "confusion_matrix.png", folder / "confusion_matrix.png")
