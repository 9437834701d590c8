"""``gcpzoo convert``: bring the authors' weights into our format."""

from __future__ import annotations

import argparse
from typing import Any

from gcpzoo.hub.convert import SOURCES, TRIANGLES


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("convert", help="convert the authors' weights into our format")
    p.add_argument("file", help="their file (.pth, .pth.tar, .safetensors)")
    p.add_argument("--source", required=True, choices=SOURCES, help="their repository")
    p.add_argument("--arch", required=True, help="their name of the model, e.g. mpncovresnet50")
    p.add_argument("--output", required=True, help="the folder to write")
    p.add_argument("--triangle", choices=TRIANGLES, default="auto", help="order of the classifier's columns")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and print what the file held."""
    from gcpzoo.hub import convert

    model = convert(args.file, args.source, args.arch, args.output, args.triangle)
    c = model.config
    print(f"{c['backbone']} with {c['head']} (dim {c['dim']}), {c['num_classes']} classes")
    print(f'load it with: gcpzoo.load("local-dir:{args.output}")')
    return 0
