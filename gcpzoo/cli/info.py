"""``gcpzoo info``: what a model is, how good, how large, how verified, and how to use it."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gcpzoo.cli.list import describe_heads
from gcpzoo.cli.tables import show_json
from gcpzoo.errors import ZooError, printable
from gcpzoo.hub.records import Record, get_record, list_models
from gcpzoo.hub.run_results import run_report
from gcpzoo.paths import run_file

WIDTH, INDENT = 80, 12


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "info",
        help="what a model is, how good, how large, how verified",
    )
    p.add_argument("name", help="a model of the zoo, hf-hub:owner/repo, a folder, a run, or BACKBONE_HEAD")
    p.add_argument("--size", type=int, help="side of the images that multiply-adds are counted for")
    p.add_argument("--json", action="store_true", help="all that is known, as JSON")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Print a page about the model."""
    record, config, size = _look_up(args.name)
    of_run = args.name not in list_models() and run_file(args.name)
    report = run_report(args.name, config) if of_run else {}  # one checkpoint may be of another epoch than the report
    counted = {} if record and record.unsupported else _count(args.name, config, args.size, size)
    if args.json:
        fields = vars(record).items() if record else {"config": config}.items()
        known = {key: value for key, value in fields if key != "name" and value not in (None, [], {}, "")}
        if record:
            known |= {"verification": record.status, "availability": record.availability}
        if report:
            known |= {"report": report}
        show_json({"name": args.name, **known, "complexity": counted})
        return
    print(f"{printable(args.name)}\n")
    known_rows = _measured(report, record) if report else _known(record) if record else ()
    rows = [*_what(config), *known_rows, *_cost(counted), *_usage(args.name, record, config)]
    for label, text in rows:
        lines = textwrap.wrap(
            printable(text), WIDTH, initial_indent=label.ljust(INDENT), subsequent_indent=" " * INDENT
        )
        print("\n".join(lines))


def network(name: str) -> tuple[Any, int]:
    """Build a network by its name and tell the side of its images; a model of the zoo gets new weights."""
    from gcpzoo.models import GCPNet

    record, config, size = _look_up(name)
    if record and record.unsupported:
        raise ZooError(f"{name} cannot be loaded: {record.unsupported}")
    model: Any = GCPNet.from_config(config)
    return model, size or model.backbone.input_size


def with_head(config: Mapping[str, Any], head: str) -> dict[str, Any]:
    """Give a network's configuration another head, without what belonged to its own: no reduction, no fusion.

    >>> with_head({"backbone": "resnet18", "head": "isqrt", "dim": 64}, "gap")["dim"] is None
    True
    """
    return {**config, "head": head, "dim": None, "head_args": {}, "hidden": [], "fusion": None}


def _look_up(name: str) -> tuple[Record | None, Mapping[str, Any], int | None]:
    """Return record, configuration and image size of a model of the zoo, a folder, a repository, or BACKBONE_HEAD."""
    if name in list_models():
        record = get_record(name)
        return record, record.config, _side(record.preprocessing)
    if _is_stored(name):
        from gcpzoo.hub import load

        model = load(name)
        return model.record, model.config, _side(model.preprocessing.to_dict()) if model.preprocessing else None
    for head in sorted(describe_heads(), key=len, reverse=True):
        if name.endswith(f"_{head}"):
            return None, {"backbone": name.removesuffix(f"_{head}"), "head": head, "num_classes": 1000}, None
    get_record(name)  # raises, naming the nearest
    raise ZooError(f"name must be a model of the zoo or BACKBONE_HEAD, got {name!r}")


def _is_stored(name: str) -> bool:
    """Say whether a name stands for weights outside of the zoo: a repository, a folder, a file."""
    return ":" in name.removeprefix("timm:") or Path(name).exists()


def _side(preprocessing: Mapping[str, Any]) -> int | None:
    """Read the side of a network's images from its preprocessing, where it says so."""
    size = preprocessing.get("crop") or preprocessing.get("resize")
    return max(size) if isinstance(size, list | tuple) else size


def _count(name: str, config: Mapping[str, Any], asked: int | None, own: int | None) -> dict[str, Any]:
    """Count parameters and multiply-adds for images of the size asked for, else the model's own."""
    from gcpzoo.models import GCPNet, model_complexity

    model: Any = GCPNet.from_config(config)
    side = asked if asked is not None else own or model.backbone.input_size
    if side < 1:
        raise ZooError(f"size must be at least 1, got {side}")
    try:
        return model_complexity(model, side)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ZooError(f"{name} does not take images of {side} pixels: {reason}") from error


def _what(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    until = f" up to {config['until']}" if config.get("until") else ""
    dim = f", reduced to {config['dim']} channels" if config.get("dim") else ""
    fusion = f", fused with the mean ({config['fusion']})" if config.get("fusion") else ""
    yield "network", f"{config['backbone']}{until}{dim}, head {config['head']}{fusion}, {config['num_classes']} classes"
    yield "", describe_heads()[config["head"]]["description"]


def _measured(report: dict[str, Any], record: Record | None) -> Iterator[tuple[str, str]]:
    """Lay out the report of a run, and the licence of what it started from, where there is one."""
    from gcpzoo.cli.outputs import summary_line

    if start := report.get("start"):
        yield "from", str(start)
    if data := report.get("data"):
        yield "data", f"{data['data']}: {', '.join(f'{n:,} {split}' for split, n in data['images'].items())} images"
    if "test" in report:
        yield "accuracy", summary_line("test", report)
    elif "fit" in report:
        epochs = report["fit"]["epochs"]
        yield "accuracy", f"not tested; {epochs} epoch{'' if epochs == 1 else 's'} trained"
    if record:
        yield "licence", record.licence


def _known(record: Record) -> Iterator[tuple[str, str]]:
    """Lay out what a record says."""
    if record.provenance:
        yield "from", record.provenance
    if record.data:
        yield "data", record.data
    if record.metrics:
        numbers = ", ".join(f"{key.replace('_', ' ')} {value:.2f} %" for key, value in record.metrics.items())
        seeds = f"; seeds {', '.join(map(str, record.seeds))}" if record.seeds else ""
        yield "accuracy", f"{numbers} (measured by {record.measured_by}{seeds})"
    if control := record.control:
        what = control.get("record") or control.get("head") or control.get("note") or "average pooling"
        gain = record.metrics.get("top1", 0) - control["top1"] if "top1" in control else None
        yield "control", f"top1 {control['top1']:.2f} %, {what}: {gain:+.2f}" if gain is not None else str(what)
    if record.recipe:
        yield "recipe", record.recipe
    if record.hardware:
        yield "hardware", record.hardware
    if p := record.preprocessing:
        crop = f", crop {p['crop']}" if p.get("crop") else ""
        yield "images", f"resize {p.get('resize')}{crop} pixels, {p.get('interpolation', 'bilinear')}"
    size = f", {record.size / 1e6:.1f} MB" if record.size else ""
    yield "weights", f"{record.availability}{size}; {record.status}"
    yield "licence", record.licence
    for caveat in record.caveats:
        yield "note", caveat
    if record.unsupported:
        yield "cannot be loaded", record.unsupported


def _cost(counted: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Lay out sizes and counts."""
    if not counted:
        return
    parts = ("backbone", "head", "classifier")
    of = {key: ", ".join(f"{part} {counted[key][part] / 1e6:,.2f}" for part in parts) for key in (
        "parameters", "multiply_adds",
    )}  # fmt: skip
    yield "parameters", f"{counted['parameters']['total'] / 1e6:,.2f} million ({of['parameters']})"
    total, side = counted["multiply_adds"]["total"], counted["image"][0]
    yield "cost", f"{total / 1e6:,.0f} million multiply-adds at {side} pixels ({of['multiply_adds']})"
    yield "vector", f"{counted['num_features']:,} numbers from a map of {' × '.join(map(str, counted['feature_map']))}"


def _usage(name: str, record: Record | None, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Say how to load, fine-tune and cite."""
    if record is None and not _is_stored(name):
        yield "build", f'gcpzoo.create_model("{config["backbone"]}", head="{config["head"]}", num_classes=N)'
    elif record is None or not record.unsupported:
        yield "load", f'gcpzoo.load("{name}")'
        yield "classify", f"gcpzoo predict --model {shlex.quote(name)} IMAGE…"
        yield "fine-tune", f"gcpzoo fit FOLDER --from {shlex.quote(name)}"
    if paper := describe_heads()[config["head"]]["paper"]:
        yield "cite", paper
