"""The zoo's own commands: list, info, predict, demo, and the Hub's. Parsers are made without torch."""

from __future__ import annotations

import argparse
import fnmatch
import json
import shutil
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError


def add_commands(subparsers: Any) -> None:
    """Add every command of the zoo to ``subparsers``."""
    from gcpzoo.cli import hub

    p = subparsers.add_parser("list", help="models of the zoo, heads, backbones")
    p.add_argument("pattern", nargs="?", default="*", help="names to show, e.g. 'resnet50_*'")
    p.add_argument("--heads", action="store_true", help="list the heads instead")
    p.add_argument("--backbones", action="store_true", help="list torchvision's backbones instead")
    p.add_argument("--timm", action="store_true", help="list timm's backbones too")
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(handler=list_command)

    p = subparsers.add_parser("info", help="what is known of a model: record, size, cost")
    p.add_argument("name", help="a model of the zoo, hf-hub:owner/repo, a folder, or BACKBONE_HEAD")
    p.add_argument("--size", type=int, help="side of the images for the counted multiply-adds")
    p.set_defaults(handler=info_command)

    p = subparsers.add_parser(
        "predict",
        help="classify images, or the images of a data module (--data)",
        epilog="With --data NAME (and its options, as for fit) the test images of a data module are classified into "
        "predictions.csv.",
    )
    p.add_argument("images", nargs="+", help="image files or folders")
    p.add_argument(
        "--model", required=True, help="a model of the zoo, hf-hub:owner/repo, a folder, or a .ckpt of a run"
    )
    p.add_argument("--top", type=int, default=5, help="classes to show for each image (5)")
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(handler=predict_command)

    p = subparsers.add_parser(
        "demo", help="the whole way on real data: load, evaluate, fine-tune with the control, plot"
    )
    p.add_argument("--data", help="folder of your own images, one subfolder a class; default: handwritten digits")
    p.add_argument("--output", default="runs/demo", help="folder of the results (runs/demo)")
    p.add_argument("--epochs", type=int, help="epochs of both fine-tunings")
    p.set_defaults(handler=demo_command)
    hub.add_commands(subparsers)


def show(table: Any) -> None:
    """Print a table of rich."""
    import sys

    from rich.console import Console

    # A pipe gets whole lines; a terminal its own width.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def list_command(args: argparse.Namespace) -> None:
    """``gcpzoo list``."""
    if args.heads:
        from gcpzoo.heads import list_heads

        names = list_heads()
    elif args.backbones or args.timm:
        from gcpzoo.models.backbones import list_backbones

        names = list_backbones(args.timm)
    else:
        return _list_models(args)
    names = fnmatch.filter(names, args.pattern)
    if not names:
        raise ZooError(f"no name matches {args.pattern!r}")
    print(json.dumps(names) if args.json else "\n".join(names))


def _list_models(args: argparse.Namespace) -> None:
    from gcpzoo.hub.records import get_record, list_models

    records = [get_record(name) for name in list_models(args.pattern)]
    if not records:
        raise ZooError(f"no model matches {args.pattern!r}; 'gcpzoo list' shows all")
    if args.json:
        rows = [{"name": r.name, "metrics": r.metrics, "size": r.size, "licence": r.licence} for r in records]
        more = [{"availability": r.availability, "verification": r.status} for r in records]
        print(json.dumps([row | extra for row, extra in zip(rows, more)], indent=2))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ["model", "top-1 %", "MB", "weights", "verification", "licence", "data"]
    columns = columns[: 7 if shutil.get_terminal_size((200, 24)).columns >= 120 else 5]
    for column in columns:
        numeric = column in ("top-1 %", "MB")
        table.add_column(column, justify="right" if numeric else "left", no_wrap=column not in ("data", "verification"))
    for r in sorted(records, key=lambda r: (r.kind != "embedded", r.name)):
        top1 = f"{r.metrics['top1']:.2f}" if "top1" in r.metrics else "–"
        size = f"{r.size / 1e6:.1f}" if r.size else "–"
        cells = [r.name, top1, size, r.availability, r.status, r.licence, r.data.split(":")[0]]
        table.add_row(*cells[: len(columns)])
    show(table)


def info_command(args: argparse.Namespace) -> None:
    """``gcpzoo info NAME``: the record, then parameters and multiply-adds counted on the network itself."""
    import yaml

    from gcpzoo.hub.records import list_models

    config: dict[str, Any]
    if args.name in list_models():
        from gcpzoo.hub.records import get_record

        record = get_record(args.name)
        known = {k: v for k, v in vars(record).items() if v not in (None, [], {}, "") and k != "class_names"}
        known["verification"] = record.status
        print(yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=110))
        if record.unsupported:
            return
        config, size = record.config, record.preprocessing.get("crop")
    else:
        config, size = _config_of(args.name)
    from gcpzoo.models.complexity import model_complexity
    from gcpzoo.models.gcpnet import GCPNet

    model: Any = GCPNet.from_config(config)
    counted = model_complexity(model, args.size or size or model.backbone.input_size)
    show(counted)


def _config_of(name: str) -> tuple[dict[str, Any], int | None]:
    """Configuration and image size of a folder or Hub repository, or of a plain ``BACKBONE_HEAD``."""
    from gcpzoo.heads import list_heads

    if ":" in name.removeprefix("timm:") or Path(name).exists():
        from gcpzoo.hub import load

        model = load(name)
        crop = model.preprocessing.crop if model.preprocessing else None
        return model.config, crop
    for head in sorted(list_heads(), key=len, reverse=True):
        if name.endswith(f"_{head}"):
            return {"backbone": name.removesuffix(f"_{head}"), "head": head}, None
    from gcpzoo.hub.records import get_record

    get_record(name)  # raises, naming the nearest
    raise ZooError(f"{name!r} is neither a model of the zoo nor BACKBONE_HEAD")


def predict_command(args: argparse.Namespace) -> None:
    """``gcpzoo predict --model NAME image…``."""
    from PIL import Image

    images = _images(args.images)
    from gcpzoo.hub import load

    model = load(args.model)
    import torch

    names = model.class_names or [str(i) for i in range(model.num_classes)]
    transform = model.transform
    results: list[dict[str, Any]] = []
    unreadable: list[str] = []
    for path in images:
        try:
            with Image.open(path) as image:
                x = transform(image)
        except OSError as error:
            unreadable.append(f"{path} ({error})" if str(path) not in str(error) else str(error))
            continue
        with torch.inference_mode():
            p, k = model(x[None]).softmax(1)[0].topk(min(max(args.top, 1), len(names)))
        classes = [{"class": names[i], "probability": round(v, 4)} for v, i in zip(p.tolist(), k.tolist())]
        results.append({"image": str(path), "classes": classes})
    if args.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        for result in results:
            print(result["image"])
            for c in result["classes"]:
                print(f"  {100 * c['probability']:6.2f} %  {c['class']}")
    if unreadable:
        raise ZooError(f"{len(unreadable)} of {len(images)} images cannot be read: {'; '.join(unreadable[:10])}")


def _images(paths: list[str]) -> list[Path]:
    from PIL import Image

    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in Image.registered_extensions())
            if not inside:
                raise ZooError(f"no image in folder {str(path)!r}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ZooError(f"no image {str(path)!r}")
    return found


def demo_command(args: argparse.Namespace) -> None:
    """``gcpzoo demo``."""
    from gcpzoo.cli.demo import demo

    demo(args.data, args.output, args.epochs)
