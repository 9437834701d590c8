"""``gcpzoo list``: models, heads, backbones. Only backbones need torch."""

from __future__ import annotations

import argparse
import ast
import fnmatch
import json
import re
import shutil
from functools import cache
from importlib.resources import files
from typing import Any

from gcpzoo.cli.tables import new_table, show, show_json
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.hub.records import Record, get_record, list_models

COLUMNS = ("model", "top-1", "GAP", "MB", "weights", "verification", "licence", "data")
NARROW = 5
"""Columns that fit a terminal of 80 characters."""
FILTERS = ("head", "data", "licence", "max_size")
WHERE = {"embedded": "package", "hub": "Hub", "authors": "authors"}


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "list",
        help="models of the zoo, heads, backbones",
        epilog="GAP: the top-1 accuracy of the control, the same network with average pooling; MB: size "
        "of the file; weights: where they come from, none if they cannot be loaded.",
    )
    p.add_argument("pattern", nargs="?", default="*", help="names to show, e.g. 'resnet50_*'")
    only = p.add_argument_group("models, of those that match")
    only.add_argument("--head", metavar="NAME", help="with this head")
    only.add_argument("--data", metavar="TEXT", help="whose training data, or name, has this text")
    only.add_argument("--licence", metavar="TEXT", help="whose licence has this text, e.g. MIT")
    only.add_argument("--loadable", action="store_true", help="that gcpzoo.load takes")
    only.add_argument("--max-size", type=float, metavar="MB", help="whose file is known to be no larger")
    only.add_argument("--wide", action="store_true", help="show all columns, as in a wide terminal")
    p.add_argument("--heads", action="store_true", help="list the heads instead, with their papers")
    p.add_argument("--backbones", action="store_true", help="list torchvision's and the zoo's own backbones instead")
    p.add_argument("--timm", action="store_true", help="list timm's backbones too")
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Print what matches the pattern."""
    if args.heads:
        _list_heads(args)
    elif args.backbones or args.timm:
        from gcpzoo.models.backbones import list_backbones

        names = _matching(list_backbones(args.timm), args.pattern)
        print(json.dumps(names) if args.json else "\n".join(names))
    else:
        _list_models(args)


def _matching(names: list[str], pattern: str) -> list[str]:
    found = fnmatch.filter(names, pattern)
    if not found:
        raise ZooError(f"no name matches {pattern!r}")
    return found


@cache
def describe_heads() -> dict[str, dict[str, str]]:
    """Describe every head in a line, with its paper, read from the source files of :mod:`gcpzoo.heads`.

    >>> describe_heads()["isqrt"]["paper"]
    'Li et al., ... CVPR 2018...'
    """
    heads: dict[str, dict[str, str]] = {}
    for path in sorted((files("gcpzoo") / "heads").iterdir(), key=lambda p: p.name):
        if not path.name.endswith(".py"):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and (name := _registered_name(node)):
                doc = ast.get_docstring(node) or ""
                source = re.search(r"Source: (.*?)(?:\n\n|$)", doc, re.DOTALL)
                paper = " ".join(source[1].split()).rstrip(".") if source else ""
                heads[name] = {"description": doc.split("\n\n")[0].replace("\n", " "), "paper": paper}
    return dict(sorted(heads.items()))


def _registered_name(node: ast.ClassDef) -> str | None:
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "register":
            return str(ast.literal_eval(call.args[0]))
    return None


def _list_heads(args: argparse.Namespace) -> None:
    heads = describe_heads()
    names = _matching(list(heads), args.pattern)
    if args.json:
        show_json([{"name": name, **heads[name]} for name in names])
        return
    table = new_table("head", "what it is", "paper")
    for name in names:
        table.add_row(name, heads[name]["description"], heads[name]["paper"])
    show(table)


def _list_models(args: argparse.Namespace) -> None:
    records = [r for r in map(get_record, list_models(args.pattern)) if _is_asked_for(r, args)]
    if not records:
        raise ZooError(f"no model matches {_asked(args)}; 'gcpzoo list' shows all")
    records.sort(key=lambda r: (r.kind != "embedded", r.name))
    if args.json:
        show_json([_describe(r) for r in records])
        return
    wide = args.wide or shutil.get_terminal_size((80, 24)).columns >= 160
    columns = COLUMNS if wide else COLUMNS[:NARROW]
    table = new_table(*columns, right=("top-1", "GAP", "MB"))
    for r in records:
        top1, control = (f"{m['top1']:.2f}" if m and "top1" in m else "–" for m in (r.metrics, r.control))
        size = f"{r.size / 1e6:.1f}" if r.size else "–"
        where = "none" if r.unsupported else WHERE[r.kind]
        cells = [r.name, top1, control, size, where, r.status, r.licence, r.data.split(":")[0]]
        table.add_row(*cells[: len(columns)])
    show(table)


def _is_asked_for(record: Record, args: argparse.Namespace) -> bool:
    """Say whether a record passes the filters."""
    if args.head is not None and args.head not in (heads := describe_heads()):
        raise unknown_name("head", args.head, list(heads))
    return (
        args.head in (None, record.config["head"])
        and (args.data or "").lower() in f"{record.name} {record.data}".lower()
        and (args.licence or "").lower() in record.licence.lower()
        and not (args.loadable and record.unsupported)
        and (args.max_size is None or (record.size is not None and record.size <= 1e6 * args.max_size))
    )


def _asked(args: argparse.Namespace) -> str:
    """Repeat what was asked for."""
    filters = [f"--{key.replace('_', '-')} {value}" for key in FILTERS if (value := getattr(args, key)) is not None]
    return " ".join([repr(args.pattern), *filters, *(["--loadable"] if args.loadable else [])])


def _describe(record: Record) -> dict[str, Any]:
    """Collect what the table shows, and the configuration, as plain values."""
    keys = ("name", "metrics", "size", "licence", "availability", "control", "data")
    return {key: getattr(record, key) for key in keys} | {
        "verification": record.status,
        "loadable": record.unsupported is None,
        "head": record.config["head"],
        "backbone": record.config["backbone"],
    }
