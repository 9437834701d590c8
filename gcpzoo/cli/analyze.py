"""``gcpzoo analyze``: what a trained network does, each measurement as a table and a figure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError, unknown_name

FORMAT = 1
OPTIONS = (
    "data", "root", "only", "control", "images", "val_fraction", "batch_size", "seed", "severities",
    "extra_corruptions", "output",
)  # fmt: skip


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "analyze",
        help="measure a trained network: spectra, roots, calibration, gradients, loss landscape, robustness",
        epilog="Each measurement becomes NAME.csv and NAME.svg, all of them index.html. See docs/analysis.md.",
    )
    p.add_argument("model", help="as for gcpzoo predict: a name, a folder, a run's folder or .ckpt")
    p.add_argument("--data", required=True, help="a folder as gcpzoo fit reads it, Digits, or a data set with --root")
    p.add_argument("--root", metavar="FOLDER", help="folder of a data set that --data names, such as CUB200")
    p.add_argument("--only", metavar="NAMES", help="measurements, separated by commas (all that apply)")
    p.add_argument("--control", metavar="MODEL", help="a network to compare with, trained on the same classes")
    p.add_argument("--images", type=int, metavar="N", help="most images of a split (each measurement's own number)")
    p.add_argument("--val-fraction", type=float, metavar="F", help="hold out this share of the training images, "
                   "which the network must not have seen, to fit a temperature on (as the run did)")  # fmt: skip
    p.add_argument("--batch-size", type=int, default=32, help="images at a time (32)")
    p.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    p.add_argument("--severities", default="1,2,3,4,5", metavar="S", help="of the corruptions (1,2,3,4,5)")
    p.add_argument("--extra-corruptions", action="store_true", help="measure four that the mean does not count, too")
    p.add_argument("--output", default="analysis", metavar="DIR", help="folder of the results (analysis)")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Measure and write; print which files there are."""
    from gcpzoo.analysis.measurements.analyze import analyze, choose

    only = None if args.only is None else [name.strip() for name in args.only.split(",") if name.strip()]
    if only == []:
        raise ZooError("--only must name measurements, separated by commas")
    choose(only)
    for name, least in (("images", 1), ("batch_size", 1), ("seed", 0)):
        if (value := getattr(args, name)) is not None and value < least:
            raise ZooError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    severities = _severities(args.severities)
    subject, about = _subject(args)
    subject.severities, subject.extra_corruptions = severities, args.extra_corruptions
    about |= {"severities": severities, "extra_corruptions": args.extra_corruptions}
    results = analyze(subject, args.output, only, about, tell=lambda name: print(f"{name} …", flush=True))
    for result in results:
        if not result.rows:
            print(f"{result.measurement.name} does not apply to this network or these data")
    _page(args, subject, results)
    print(f"written: {args.output}, to be read from index.html")


def _severities(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part in ("1", "2", "3", "4", "5") for part in parts) or len(set(parts)) < len(parts):
        raise ZooError(f"--severities must be different numbers from 1 to 5, separated by commas, got {text!r}")
    return sorted(map(int, parts))


def _subject(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Load the networks and their images; say what was loaded."""
    from gcpzoo import __version__
    from gcpzoo.analysis.measurements.subject import Subject, find_snapshots
    from gcpzoo.experiments.sweep.process import code_version
    from gcpzoo.hub.loading import load
    from gcpzoo.hub.run_results import run_report
    from gcpzoo.models.fingerprint import fingerprint
    from gcpzoo.paths import run_file
    from gcpzoo.training.run_report import hardware

    model = load(args.model)
    report = run_report(args.model, model.config)
    control = load(args.control) if args.control else None
    if control is not None and control.preprocessing != model.preprocessing:
        raise ZooError(f"{args.control} must have the preprocessing of {args.model} to be its control: train it alike")
    if control is not None and (of_control := run_report(args.control, control.config)):
        _refuse_other_images(args, report, of_control)
    data = _data(args, model, report.get("data", {}))
    told = report if run_file(args.model) == Path(args.model).expanduser() / "checkpoints" / "last.ckpt" else {}
    subject = Subject(
        args.model,
        model,
        data,
        control,
        args.control,
        seed=args.seed,
        images=args.images,
        history=told.get("fit", {}).get("history", []),  # of the final epoch, which best.ckpt is not
        snapshots=find_snapshots(args.model) if told else [],
    )
    about = {
        "format": FORMAT,
        "command": _command(args),
        "models": {
            name: {"model": source, "sha256": fingerprint(network), "config": network.config}
            for (name, network), source in zip(subject.networks(), (args.model, args.control))
        },
        "data": data.record(),
        "seed": args.seed,
        "images": args.images,
        "gcpzoo": __version__,
        "git": code_version(),
        "hardware": hardware(),
    }
    return subject, about


def _command(args: argparse.Namespace) -> list[str]:
    """Write the command with all options that were given."""
    command = ["gcpzoo", "analyze", args.model]
    for key in OPTIONS:
        value = getattr(args, key)
        if value is not None and value is not False:  # 0 was given
            command += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
    return command


def _splits(recorded: dict[str, Any]) -> dict[str, Any]:
    """What decides which images a run held out at random; nothing where none were."""
    shares = ("val_fraction", *(("folds", "fold") if recorded.get("folds") else ("test_fraction",)))
    held = {key: recorded[key] for key in shares if recorded.get(key)}
    return held and {**held, "seed": recorded.get("seed", 0)}


def _refuse_other_images(args: argparse.Namespace, report: dict[str, Any], of_control: dict[str, Any]) -> None:
    """Refuse a control that held out other images than the run: it may have learned from those that are measured on."""
    own, other = (_splits(one.get("data", {})) for one in (report, of_control))
    if report and own != other:
        key = next(key for key in (*own, *other) if own.get(key) != other.get(key))
        raise ZooError(
            f"{args.control} must have held out the images of {args.model} to be its control: its {key} is "
            f"{other.get(key)}, not {own.get(key)}; train it alike"
        )


def _data(args: argparse.Namespace, model: Any, recorded: dict[str, Any]) -> Any:
    """Build the data module with the network's preprocessing, and the splits that a run's report names."""
    from gcpzoo.data import Digits, ImageFolder
    from gcpzoo.data.modules import data_modules
    from gcpzoo.data.scan import refuse_inside

    kinds = data_modules()
    if args.data not in kinds and not Path(args.data).is_dir():
        raise unknown_name("folder or data set", args.data, kinds)
    kind, root = kinds.get(args.data, ImageFolder), args.root if args.data in kinds else args.data
    if args.root is not None and (kind is Digits or args.data not in kinds):
        raise ZooError(f"--root is for a data set that --data names by its class, got {args.data}")
    if root is None and kind is not Digits:
        raise ZooError(f"--root must name the folder of {args.data}")
    own: dict[str, Any] = {"batch_size": args.batch_size, "preprocessing": model.preprocessing, "val_fraction": 0.0}
    if recorded.get("data") == kind.__name__:  # what the run held out, it was not trained on
        own |= _splits(recorded)
        own |= {"on_error": "skip"} if "left_out" in recorded else {}
    if args.val_fraction is not None:
        own["val_fraction"] = args.val_fraction
    if kind is not Digits:
        refuse_inside(args.output, root)
        own["root"] = root
    if kind is ImageFolder and model.class_names:
        own["classes"] = model.class_names
    return kind(**own)


def _page(args: argparse.Namespace, subject: Any, results: Any) -> None:
    """Gather the figures in one page."""
    from gcpzoo.experiments.report.document import Document, Figure, Heading, Text

    names = [name for name, _ in subject.networks()]
    document = Document([Heading(f"Analysis of {' and '.join(names)}", 1)])
    document.parts.append(Text(f"Data: {args.data}. Tables: NAME.csv beside this page. Settings: about.json."))
    for result in results:
        if result.rows:
            document.parts += [
                Heading(result.measurement.name),
                Figure(result.measurement.name, result.svg, result.measurement.corresponds_to),
            ]
    document.write(Path(args.output) / "index.html")
