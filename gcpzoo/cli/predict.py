"""``gcpzoo predict --model NAME IMAGE…``; with ``--data`` :mod:`gcpzoo.cli.zoo_cli` answers."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gcpzoo.cli.tables import new_progress, show_json
from gcpzoo.errors import ZooError, printable
from gcpzoo.paths import check_outputs


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "predict",
        help="classify images, or the test images of a data module (--data)",
        epilog="With --output the same command goes on after an interruption. With --data NAME (and its options, as "
        "for fit) the test images of a data module are classified into predictions.csv. See docs/images.md.",
    )
    p.add_argument("images", nargs="+", help="image files or folders")
    add_model_options(p)
    views = p.add_mutually_exclusive_group()
    views.add_argument("--mirror", action="store_true", help="average over each image and its mirror image")
    views.add_argument("--ten-crop", action="store_true", help="average over four corners, center and their mirrors")
    p.add_argument("--top", type=int, default=5, help="classes to show for each image (5)")
    p.add_argument("--output", metavar="FILE", help="write a CSV table, a row for each image")
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(handler=run)


def add_model_options(p: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the options of every command that runs a model over image files."""
    p.add_argument(
        "--model",
        required=required,
        help="a model of the zoo, hf-hub:owner/repo, a folder, a run's folder or its .ckpt",
    )
    p.add_argument("--batch-size", type=int, default=128, help="images at a time, each view counted (128)")
    p.add_argument("--workers", type=int, help="processes that read images (one for each core, at most 8)")
    p.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (auto)")
    p.add_argument("--skip-corrupt", action="store_true", help="name images that cannot be read, but do not fail")


def run(args: argparse.Namespace) -> None:
    """Print the likeliest classes of each image, or write them into a table."""
    from gcpzoo.serve import find_images

    if args.output and args.json:
        raise ZooError("--output writes a CSV table and --json prints: give one of them")
    paths = find_images(args.images)  # a missing file is an error before torch is imported
    if args.output:
        check_outputs([args.output], paths)

    from gcpzoo.serve import Predictor, predict_files

    views = "mirror" if args.mirror else "ten_crop" if args.ten_crop else "single"
    predictor = Predictor(args.model, args.top, views, args.batch_size, args.workers, args.device)
    if args.output:
        try:
            with progress(paths) as advance:
                bad = predict_files(predictor, paths, args.output, advance)
        except KeyboardInterrupt:
            print(f"{printable(args.output)}.part holds what is done: the same command goes on", file=sys.stderr)
            raise
        print(f"{len(set(paths)) - len(bad):,} predictions in {printable(args.output)}")
    else:
        bad = _print(predictor(paths), args.json)
    report_faults([answer.error or "" for answer in bad], len(paths), args.skip_corrupt)


def _print(answers: Iterator[Any], as_json: bool) -> list[Any]:
    """Print the answers as they come, JSON at the end, and return those of files that cannot be read."""
    bad, shown = [], []
    for answer in answers:
        if answer.error is not None:
            bad.append(answer)
        elif as_json:
            shown.append(answer.to_dict())
        else:
            print(printable(answer.path))
            for c in answer.classes:
                print(f"  {100 * c.probability:6.2f} %  {printable(c.description)}")
    if as_json:
        show_json(shown)
    return bad


def report_faults(faults: Sequence[str], total: int, skip: bool) -> None:
    """Count and name the images that cannot be read: an error, unless they are to be skipped."""
    if faults:
        names = "; ".join(fault.removeprefix("cannot read image ") for fault in faults[:10])
        more = f"; and {len(faults) - 10:,} more" if len(faults) > 10 else ""
        line = f"{len(faults):,} of {total:,} images cannot be read: {names}{more}"
        if not skip:
            raise ZooError(line)
        print(f"gcpzoo: {printable(line)}", file=sys.stderr)


@contextmanager
def progress(paths: Sequence[str]) -> Iterator[Callable[[int, int], None]]:
    """Draw a bar on a terminal, and say at the end how many images a second there were.

    Gives a function of the number of images done, and of those that an earlier run had done.
    """
    from rich.progress import TextColumn

    rate = TextColumn("{task.fields[rate]:,.0f} images/s")
    start, total, new = time.perf_counter(), len(set(paths)), 0
    with new_progress(rate) as bar:
        task = bar.add_task("", total=total, rate=0.0)

        def advance(done: int, before: int) -> None:
            nonlocal new
            if before and done == before:
                print(f"going on: {before:,} of {total:,} images are done already", file=sys.stderr)
            new = done - before
            bar.update(task, completed=done, rate=new / (time.perf_counter() - start))

        yield advance
    if new:
        seconds = time.perf_counter() - start
        print(f"{new:,} images in {seconds:.1f} s, {new / seconds:,.0f} images/s", file=sys.stderr)
