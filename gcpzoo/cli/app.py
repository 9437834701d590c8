"""``gcpzoo app``: a web page that shows what models say of an image."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "app",
        help="a web page to try models on images",
        epilog="Needs the extra app, and explain for Grad-CAM. Nothing is sent anywhere. See docs/app.md.",
    )
    p.add_argument("--model", help="shown first: a model of the zoo, hf-hub:owner/repo, a folder, or a run's .ckpt")
    p.add_argument("--control", metavar="MODEL", help="shown beside --model (the GAP control that its record names)")
    p.add_argument("--embeddings", metavar="FILE", help=".npz of gcpzoo embed: show the nearest of its images")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all of them (127.0.0.1)")
    p.add_argument("--port", type=int, default=7860, help="0: a free one, which is printed (7860)")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Serve the page until the command is stopped."""
    import gradio  # noqa: F401  # where it is missing, an error before a model is read

    from gcpzoo.serve import Viewer, serve_page

    serve_page(Viewer(args.model, args.control, args.embeddings), args.host, args.port)
