"""``gcpzoo shard DIR OUT``: pack class folders of images into tar files with an index."""

from __future__ import annotations

import argparse
from typing import Any

from gcpzoo.cli.tables import new_progress
from gcpzoo.data.scan import SPLITS
from gcpzoo.errors import printable


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "shard",
        help="pack folders of images into large tar files, which ImageNet and ImageFolder read",
        epilog="All images are decoded first. OUT then takes the place of DIR: --data.root OUT.",
    )
    p.add_argument("folder", metavar="DIR", help="train, val and test folders of class folders, or some of them")
    p.add_argument("out", metavar="OUT", help="a new or empty folder")
    p.add_argument("--max-mb", type=int, default=1024, metavar="N", help="most MiB of a shard (default: 1024)")
    p.add_argument("--splits", nargs="+", choices=SPLITS, help="the splits to pack (default: all that there are)")
    p.add_argument("--skip-corrupt", action="store_true", help="leave out images that cannot be read, and name them")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Write the shards and say how many."""
    from gcpzoo.data.scan import name_files
    from gcpzoo.data.sharding import pack

    with new_progress() as progress:
        task = progress.add_task("scanning", total=None)
        packed = pack(
            args.folder,
            args.out,
            args.max_mb * 2**20,
            args.splits,
            "skip" if args.skip_corrupt else "stop",
            lambda what, total: progress.reset(task, description=what, total=total),
            lambda n: progress.advance(task, n),
        )
    for split, images in packed.images.items():
        shards = packed.shards[split]
        print(f"{split}: {images:,} images in {shards:,} shard{'s' if shards > 1 else ''}")
    if packed.left_out:
        count = f"{len(packed.left_out):,} image{'s' if len(packed.left_out) > 1 else ''}"
        print(f"left out: {count} that cannot be read: {printable(name_files(packed.left_out, most=10))}")
    print(f"{args.out}: {packed.bytes / 2**20:,.1f} MiB; use it by --data.root {args.out}")
    return 0
