"""``gcpzoo check-data DIR``: decode every image and say what is broken, doubled, ignored, empty or out of balance."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gcpzoo.cli.tables import new_progress, new_table, show, show_json
from gcpzoo.errors import printable

if TYPE_CHECKING:
    from gcpzoo.data.survey import Survey

SHOWN = 20


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "check-data",
        help="decode all images of a folder; find broken and doubled ones",
        epilog="Exit code 1 for what cannot be read, is in two splits or classes, or is ignored, for an empty class "
        "and for a wrong name; imbalance and duplicates within a class only warn.",
    )
    p.add_argument("folder", metavar="DIR", help="class folders, or train, val and test folders of them")
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print what was found, and return 1 if anything must be put right."""
    from gcpzoo.data.survey import survey

    with new_progress() as progress:
        task = progress.add_task("decoding", total=None)
        report = survey(args.folder, lambda n: progress.update(task, total=n), lambda n: progress.advance(task, n))
    if args.json:
        show_json(report.to_dict())
    else:
        _show(report)
    return int(report.wrong)


def _show(report: Survey) -> None:
    """Print a table of the classes, then a line for each finding."""
    splits = list(report.classes)
    names = list(dict.fromkeys(name for counts in report.classes.values() for name in counts))
    titles = [split or "images" for split in splits]
    table = new_table("class", *titles, right=titles)
    for name in names[:SHOWN]:
        table.add_row(printable(name) or "–", *[f"{report.classes[split].get(name, 0):,}" for split in splits])
    if len(names) > SHOWN:
        table.add_row(f"and {len(names) - SHOWN:,} more", *["…" for _ in splits])
    table.add_row("all", *[f"{sum(report.classes[split].values()):,}" for split in splits])
    show(table)
    for key in ("width", "height"):
        if values := getattr(report, key):
            print(f"{key}: {values[0]:,} to {values[2]:,} pixels, median {values[1]:,}")
    for key in ("modes", "formats"):
        if counts := getattr(report, key):
            print(f"{key}: {', '.join(f'{name} {n:,}' for name, n in counts.items())}")
    for title, reasons in (("cannot be read", report.unreadable), ("ignored", report.ignored)):
        _list(title, [f"{path}: {why}" for path, why in reasons.items()])
    _list("empty classes", report.empty_classes)
    _list("names", report.names)
    for place in ("across_splits", "across_classes", "within"):
        title = {"within": "equal files in one class"}.get(place, f"equal files {place.replace('_', ' ')}")
        _list(title, [" = ".join(group) for group in getattr(report, place)])
    _list("warnings", report.warnings)
    print(f"{report.images:,} images: {'see what is wrong above' if report.wrong else 'nothing is wrong'}")


def _list(title: str, lines: list[str]) -> None:
    """Print a title with the count, and up to ``SHOWN`` lines."""
    if lines:
        print(f"{title}: {len(lines):,}")
        for line in lines[:SHOWN]:
            print(f"  {printable(line)}")
        if len(lines) > SHOWN:
            print(f"  and {len(lines) - SHOWN:,} more (--json lists all)")
