"""``gcpzoo embed``: vectors of images, for search and for classifiers of other programs."""

from __future__ import annotations

import argparse
import os
from typing import Any

from gcpzoo.cli.predict import add_model_options, progress, report_faults
from gcpzoo.errors import ZooError, printable
from gcpzoo.paths import check_outputs


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "embed",
        help="vectors of images, before the classifier",
        epilog="The file has the arrays vectors (N, D) and paths, for class folders also labels and class_names. "
        "See docs/images.md.",
    )
    p.add_argument("images", nargs="+", help="a folder, or image files")
    add_model_options(p)
    p.add_argument("--output", metavar="FILE", required=True, help="write the vectors here, as .npz")
    p.add_argument("--before-root", action="store_true", help="the covariance, in place of what the head makes of it")
    p.add_argument("--whiten", type=int, metavar="N", help="keep N principal components, each of variance 1")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Write the vectors."""
    from gcpzoo.serve.images import find_images

    if not args.output.endswith(".npz"):
        raise ZooError(f"output must be a file that ends in .npz, got {args.output!r}")
    paths = find_images(args.images)  # a missing file is an error before torch is imported
    check_outputs([args.output], paths)

    from gcpzoo.analysis import embed

    folder = args.images[0] if len(args.images) == 1 and os.path.isdir(args.images[0]) else None
    options = {"batch_size": args.batch_size, "workers": args.workers, "device": args.device}
    with progress(paths) as advance:
        found = embed(
            args.model,
            folder or paths,
            args.before_root,
            args.whiten,
            **options,
            skip_corrupt=True,  # what can be read is written in any case, and the exit code says the rest
            advance=lambda done, total: advance(done, 0),
        )
    found.save(args.output)
    n, d = found.vectors.shape
    classes = f" of {len(found.class_names)} classes" if found.labels is not None else ""
    print(f"{n:,} vectors of {d:,} values{classes} in {printable(args.output)}")
    report_faults([f"{path}: {why}" for path, why in found.faults.items()], len(paths), args.skip_corrupt)
