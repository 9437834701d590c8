"""``gcpzoo card``: write the zoo's pages from its records."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.paths import write_text


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("card", help="write MODEL_CARD.md and a table between marks in README.md")
    p.add_argument("folder", nargs="?", default=".", help="folder that contains MODEL_CARD.md and README.md")
    p.add_argument("--check", action="store_true", help="write nothing; exit with 1 where they are not up to date")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Write the pages, or check whether they are up to date (exit code 1 where they are not)."""
    from gcpzoo.hub.card import BEGIN, update_page, zoo_card

    folder = Path(args.folder)
    card, page = folder / "MODEL_CARD.md", folder / "README.md"
    if not folder.is_dir():
        raise ZooError(f"there is no folder {args.folder!r}")
    stale = not card.is_file() or card.read_text(encoding="utf-8") != zoo_card()
    has_table = page.is_file() and BEGIN in page.read_text(encoding="utf-8")
    if args.check:
        stale = stale or (has_table and update_page(page, write=False))
        print("not up to date: run gcpzoo card" if stale else "up to date")
        return int(stale)
    write_text(card, zoo_card())
    if has_table:
        update_page(page)
    print(f"wrote {card}" + (f" and the table in {page}" if has_table else ""))
    return 0
