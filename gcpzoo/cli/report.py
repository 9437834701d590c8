"""``gcpzoo report FOLDER…``: compare trainings, with intervals, in one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.limits import read_json


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "report",
        help="compare trainings in one page: intervals, differences to the control, curves, calibration",
        epilog="The page needs no other file and no network. See docs/sweeps.md.",
    )
    p.add_argument("folders", nargs="+", metavar="FOLDER", help="output of a sweep, runs, or a results.csv")
    p.add_argument(
        "--output", action="append", metavar="FILE", help="report.html or report.md; may be given twice (report.html)"
    )
    p.add_argument("--control", metavar="HEAD", help="the head to compare with (the sweep's own, else gap)")
    p.add_argument("--title", default="Results", help="title of the page")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Write the report and print where it is."""
    from gcpzoo.cli.tables import new_table, show
    from gcpzoo.experiments.report import write_report
    from gcpzoo.experiments.statistics import points

    outputs = args.output or ["report.html"]
    blocks = write_report(args.folders, outputs, args.control or _control(args.folders), args.title)
    table = new_table("head", "seeds", "top-1 %", "to control", right=("seeds", "top-1 %", "to control"))
    for block in blocks:
        for head in block.heads:
            if head.test is not None:
                difference = points(head.over_seeds.mean) if head.over_seeds else ""
                name = f"{block.title} · {head.name}"
                table.add_row(name, str(len(head.runs)), f"{100 * head.test.mean:.2f}", difference)
    show(table)
    print(f"written: {', '.join(map(str, outputs))}")


def _control(folders: list[str]) -> str | None:
    """Read which control the sweeps name."""
    paths = [path for folder in folders if (path := Path(folder) / "sweep.json").is_file()]
    named = {control: path.parent for path in paths if (control := _read(path)) is not None}
    if len(named) > 1:
        told = ", ".join(f"{control} ({folder})" for control, folder in named.items())
        raise ZooError(f"the sweeps name different controls: {told}: choose one by --control, or report them apart")
    return next(iter(named), None)


def _read(path: Path) -> str | None:
    try:
        control = read_json(path).get("control")
    except (ValueError, AttributeError) as error:
        raise ZooError(f"{path} is not what gcpzoo sweep writes ({error}): give --control") from None
    return None if control is None else str(control)
