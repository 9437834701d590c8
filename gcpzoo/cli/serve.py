"""``gcpzoo serve``: a model behind an HTTP interface."""

from __future__ import annotations

import argparse
import ipaddress
import sys
from typing import Any

from gcpzoo.errors import ZooError, printable


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "serve",
        help="answer HTTP requests: classes and vectors of images",
        epilog="POST /predict, POST /embed, GET /health, GET /model. See docs/serve.md.",
    )
    p.add_argument("--model", required=True, help="a model of the zoo, hf-hub:owner/repo, a folder, a run or its .ckpt")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    p.add_argument("--port", type=int, default=8000, help="port; 0: a free one, which is printed (8000)")
    p.add_argument("--batch-size", type=int, default=16, metavar="N", help="images in a batch, at most (16)")
    p.add_argument("--max-wait-ms", type=float, default=5, metavar="T", help="wait so long for a batch to fill (5)")
    p.add_argument("--max-queue", type=int, default=64, metavar="N", help="images in work; more are refused (64)")
    p.add_argument("--max-mb", type=float, default=32, metavar="MB", help="length of a request (32)")
    p.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (auto)")
    p.add_argument("--threads", type=int, metavar="N", help="threads of the network on the CPU (all cores)")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Load the model and answer until the process is told to stop."""
    import python_multipart  # noqa: F401  the forms of FastAPI, which asks for it late
    import torch

    from gcpzoo.serve.batching import Batcher
    from gcpzoo.serve.engine import Engine
    from gcpzoo.serve.http import RequestLimits, create_app
    from gcpzoo.serve.predictor import Predictor
    from gcpzoo.serve.server import bind, url
    from gcpzoo.serve.server import run as answer

    if args.threads is not None:
        if not 1 <= args.threads <= 1024:
            raise ZooError(f"threads must be between 1 and 1024, got {args.threads}")
        torch.set_num_threads(args.threads)
    limits = RequestLimits(args.max_mb)
    with bind(args.host, args.port) as found:  # what cannot work is said before the model is loaded
        engine = Engine(Predictor(args.model, device=args.device), args.model)
        batcher = Batcher(engine.compute, args.batch_size, args.max_wait_ms / 1000, args.max_queue)
        try:
            if not ipaddress.ip_address(found.getsockname()[0]).is_loopback:
                print("gcpzoo: warning: whoever reaches this machine can send requests", file=sys.stderr)
            address = f"{printable(args.model)} on {url(found)}"
            answer(create_app(engine, batcher, limits), found, lambda: print(address, flush=True))
        finally:
            batcher.close()
