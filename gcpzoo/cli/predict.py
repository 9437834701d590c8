"""``gcpzoo predict --model NAME IMAGE…``; with ``--data`` :mod:`gcpzoo.cli.zoo_cli` answers."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from gcpzoo.cli.tables import show_json
from gcpzoo.errors import ZooError, printable


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "predict",
        help="classify images, or the test images of a data module (--data)",
        epilog="With --data NAME (and its options, as for fit) the test images of a data module are classified into "
        "predictions.csv.",
    )
    p.add_argument("images", nargs="+", help="image files or folders")
    p.add_argument("--model", required=True, help="a model of the zoo, hf-hub:owner/repo, a folder, or a run's .ckpt")
    p.add_argument("--top", type=int, default=5, help="classes to show for each image (5)")
    p.add_argument("--json", action="store_true", help="as JSON")
    p.add_argument("--skip-corrupt", action="store_true", help="name images that cannot be read, but do not fail")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Print the likeliest classes of each image."""
    from gcpzoo.serve import find_images

    paths = find_images(args.images)  # a missing file is an error before torch is imported

    from gcpzoo.serve import Predictor

    answers = list(Predictor(args.model, args.top)(paths))
    good = [answer for answer in answers if answer.error is None]
    if args.json:
        show_json([answer.to_dict() for answer in good])
    else:
        for answer in good:
            print(printable(answer.path))
            for c in answer.classes:
                print(f"  {100 * c.probability:6.2f} %  {printable(c.description)}")
    bad = [answer.error.removeprefix("cannot read image ") for answer in answers if answer.error is not None]
    if bad:
        line = f"{len(bad)} of {len(answers)} images cannot be read: {'; '.join(bad[:10])}"
        if not args.skip_corrupt:
            raise ZooError(line)
        print(f"gcpzoo: {printable(line)}", file=sys.stderr)
