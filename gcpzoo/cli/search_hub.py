"""``gcpzoo search-hub``: find models of this library on the Hub."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("search-hub", help="models on the Hub that this library loads")
    p.add_argument("query", nargs="?", help="part of the name")
    p.add_argument("--author", help="a user or an organization")
    p.add_argument("--limit", type=int, default=50, help="most models to show (50)")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the models found."""
    from gcpzoo.hub import search_hub

    found = search_hub(args.query, args.author, args.limit)
    for m in found:
        print(f"{m['repo']:50} {m['downloads']:>9} downloads {m['likes']:>5} likes  {m['updated']}")
    if not found:
        print("no such model on the Hub")
    return 0
