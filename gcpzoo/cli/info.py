"""``gcpzoo info``: what is known of a model, and what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gcpzoo.cli.list import describe_heads
from gcpzoo.cli.tables import show
from gcpzoo.errors import ZooError
from gcpzoo.hub.records import get_record, list_models


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("info", help="what is known of a model: record, size, cost")
    p.add_argument("name", help="a model of the zoo, hf-hub:owner/repo, a folder, a run's folder, or BACKBONE_HEAD")
    p.add_argument("--size", type=int, help="side of the images that multiply-adds are counted for")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Print the record, then the parameters and multiply-adds of the network."""
    config: dict[str, Any]
    if args.name in list_models():
        import yaml

        record = get_record(args.name)
        known = {k: v for k, v in vars(record).items() if v not in (None, [], {}, "") and k != "class_names"}
        known["verification"] = record.status
        print(yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=110))
        if record.unsupported:
            return
        config, size = record.config, record.preprocessing.get("crop")
    else:
        config, size = _config_of(args.name)
    from gcpzoo.models import GCPNet, model_complexity

    model: Any = GCPNet.from_config(config)
    side = args.size if args.size is not None else size or model.backbone.input_size
    if side < 1:
        raise ZooError(f"size must be at least 1, got {side}")
    try:
        counted = model_complexity(model, side)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ZooError(f"{args.name} does not take images of {side} pixels: {reason}") from error
    show(counted)


def _config_of(name: str) -> tuple[dict[str, Any], int | None]:
    """Return configuration and image size of a folder, a Hub repository, or a plain ``BACKBONE_HEAD``."""
    if ":" in name.removeprefix("timm:") or Path(name).exists():
        from gcpzoo.hub import load

        model = load(name)
        return model.config, model.preprocessing.crop if model.preprocessing else None
    for head in sorted(describe_heads(), key=len, reverse=True):
        if name.endswith(f"_{head}"):
            return {"backbone": name.removesuffix(f"_{head}"), "head": head, "num_classes": 1000}, None
    get_record(name)  # raises, naming the nearest
    raise ZooError(f"name must be a model of the zoo or BACKBONE_HEAD, got {name!r}")
