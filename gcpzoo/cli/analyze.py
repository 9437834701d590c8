"""``gcpzoo analyze``: what a trained network does, each measurement as a table and a figure."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.limits import load_json, read_text

FORMAT = 1


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
    p.add_argument("--val-fraction", type=float, metavar="F", help="hold out training images (as the run did)")
    p.add_argument("--batch-size", type=int, default=32, help="images at a time (32)")
    p.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    p.add_argument("--severities", default="1,2,3,4,5", metavar="S", help="of the corruptions (1,2,3,4,5)")
    p.add_argument("--extra-corruptions", action="store_true", help="measure four that the mean does not count, too")
    p.add_argument("--output", default="analysis", metavar="DIR", help="folder of the results (analysis)")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Measure and write; print which files there are."""
    from gcpzoo.analysis.kit import analyze, choose

    only = None if args.only is None else [name.strip() for name in args.only.split(",") if name.strip()]
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
    from gcpzoo.analysis.subject import Subject, find_snapshots
    from gcpzoo.experiments.sweep.process import code_version
    from gcpzoo.hub.loading import load_stored
    from gcpzoo.training.run_report import hardware

    loaded = {name: load_stored(name) for name in (args.model, args.control) if name}
    (model, _), report = loaded[args.model], _report(args.model)
    control = loaded[args.control][0] if args.control else None
    if control is not None and (control.preprocessing, control.class_names) != (model.preprocessing, model.class_names):
        raise ZooError(f"{args.control} must have the preprocessing and the classes of {args.model} to be its control")
    data = _data(args, model, report.get("data", {}))
    subject = Subject(
        args.model,
        model,
        data,
        control,
        args.control,
        seed=args.seed,
        images=args.images,
        history=report.get("fit", {}).get("history", []),
        snapshots=find_snapshots(args.model) if report else [],
    )
    about = {
        "format": FORMAT,
        "command": ["gcpzoo", "analyze", args.model, "--data", args.data, "--seed", str(args.seed)],
        "models": {name: {"sha256": _digest(m), "config": m.config} for name, (m, _) in loaded.items()},
        "data": data.record(),
        "seed": args.seed,
        "images": args.images,
        "gcpzoo": __version__,
        "git": code_version(),
        "hardware": hardware(),
    }
    return subject, about


def _report(name: str) -> dict[str, Any]:
    """Read the report of a run's folder; empty for any other model."""
    path = Path(name) / "metrics.json"
    if not path.is_file():
        return {}
    report = load_json(read_text(path, str(path)), str(path))
    return report if isinstance(report, dict) else {}


def _data(args: argparse.Namespace, model: Any, recorded: dict[str, Any]) -> Any:
    """Build the data module with the network's preprocessing, and the splits that a run's report names."""
    import gcpzoo.data
    from gcpzoo.data import Digits, ImageFolder

    own: dict[str, Any] = {"batch_size": args.batch_size, "preprocessing": model.preprocessing}
    named = sorted(name for name in gcpzoo.data.__all__ if hasattr(getattr(gcpzoo.data, name), "index"))
    if args.data in named:
        kind = getattr(gcpzoo.data, args.data)
    elif Path(args.data).is_dir():
        kind = ImageFolder
    else:
        raise unknown_name("folder or data set", args.data, named)
    if recorded.get("data") == kind.__name__:  # what the run held out, it was not trained on
        own |= {key: recorded[key] for key in ("seed", "val_fraction") if key in recorded}
    elif kind is ImageFolder:
        own["val_fraction"] = 0.0
    if args.val_fraction is not None:
        own["val_fraction"] = args.val_fraction
    if kind is not Digits:
        own["root"] = args.data if kind is ImageFolder and args.data != "ImageFolder" else args.root
        if own["root"] is None:
            raise ZooError(f"--root must name the folder of {args.data}")
    if kind is ImageFolder and model.class_names:
        own["classes"] = model.class_names
    data = kind(**own)
    if model.class_names and list(data.class_names) != model.class_names:
        raise ZooError(f"{args.model} knows other classes than {args.data}: {', '.join(data.class_names[:3])} …")
    return data


def _digest(model: Any) -> str:
    """Hash a network's tensors: the same weights give the same, whichever file they come from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


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
