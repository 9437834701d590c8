"""``gcpzoo list``: models, heads, backbones. Only backbones need torch."""

from __future__ import annotations

import argparse
import ast
import fnmatch
import json
import re
import shutil
from importlib.resources import files
from typing import Any

from gcpzoo.cli.tables import new_table, show
from gcpzoo.errors import ZooError
from gcpzoo.hub.records import get_record, list_models

COLUMNS = ("model", "top-1 %", "MB", "weights", "verification", "licence", "data")


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("list", help="models of the zoo, heads, backbones")
    p.add_argument("pattern", nargs="?", default="*", help="names to show, e.g. 'resnet50_*'")
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
        print(json.dumps([{"name": name, **heads[name]} for name in names], indent=2, ensure_ascii=False))
        return
    table = new_table("head", "what it is", "paper")
    for name in names:
        table.add_row(name, heads[name]["description"], heads[name]["paper"])
    show(table)


def _list_models(args: argparse.Namespace) -> None:
    records = [get_record(name) for name in list_models(args.pattern)]
    if not records:
        raise ZooError(f"no model matches {args.pattern!r}; 'gcpzoo list' shows all")
    if args.json:
        rows = [{"name": r.name, "metrics": r.metrics, "size": r.size, "licence": r.licence} for r in records]
        more = [{"availability": r.availability, "verification": r.status} for r in records]
        print(json.dumps([row | extra for row, extra in zip(rows, more)], indent=2))
        return
    columns = COLUMNS[: 7 if shutil.get_terminal_size((200, 24)).columns >= 120 else 5]
    table = new_table(*columns, right=("top-1 %", "MB"))
    for r in sorted(records, key=lambda r: (r.kind != "embedded", r.name)):
        top1 = f"{r.metrics['top1']:.2f}" if "top1" in r.metrics else "–"
        size = f"{r.size / 1e6:.1f}" if r.size else "–"
        cells = [r.name, top1, size, r.availability, r.status, r.licence, r.data.split(":")[0]]
        table.add_row(*cells[: len(columns)])
    show(table)
