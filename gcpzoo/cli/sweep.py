"""``gcpzoo sweep FILE``: train every combination that a file asks for, and keep all results in one table."""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcpzoo.cli.tables import new_console, new_table
from gcpzoo.errors import ZooError, printable

if TYPE_CHECKING:
    from gcpzoo.experiments.sweep import Plan, Progress, Sweep

REFRESH_SECONDS = 1.0


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "sweep",
        help="train heads × backbones × data × settings × seeds, several at a time",
        epilog="The same command goes on with an interrupted sweep. Results: OUTPUT/results.csv; compare them by "
        "gcpzoo report OUTPUT. Exit code 1 if a training failed; the others are not stopped by it. See docs/sweeps.md.",
    )
    p.add_argument("file", metavar="SWEEP.yaml", help="what to train, such as configs/sweep/digits.yaml")
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time, which share the cores (1)")
    p.add_argument("--output", metavar="DIR", help="folder of the results (default: the file's own)")
    p.add_argument("--list", action="store_true", help="print the trainings and whether they are done; train nothing")
    p.add_argument(
        "--allow-import", action="append", default=[], metavar="PACKAGE",
        help="a further package that options may name classes of",
    )  # fmt: skip
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Run the sweep, and return 1 if a training failed."""
    from gcpzoo.experiments.sweep import Sweep, read_plan

    plan = read_plan(args.file, args.output)
    extra = [a for package in args.allow_import for a in ("--allow-import", package)]
    sweep = Sweep(plan, args.jobs, extra)
    _check_options(plan, extra)
    if args.list:
        return _list(plan)
    former = signal.signal(signal.SIGTERM, _terminate)
    try:
        with _display(sweep):
            sweep.run()
    finally:
        signal.signal(signal.SIGTERM, former)
        if sweep.progress.ended:
            _summarize(sweep, plan)
    return int(bool(sweep.progress.failed()))


def _terminate(*_: object) -> None:
    """End as a scheduler asks: the trainings write their checkpoints first."""
    raise SystemExit(128 + signal.SIGTERM)


def _check_options(plan: Plan, extra: list[str]) -> None:
    """Let the parser of ``gcpzoo fit`` read the options of every cell and of a trial, before the first is trained."""
    import yaml

    from gcpzoo.cli.training import train
    from gcpzoo.experiments.sweep import Run
    from gcpzoo.experiments.sweep.plan import trial_in_the_middle

    checked = [("", Run(cell, 0)) for cell in plan.cells]
    if plan.search:
        checked += [("search: ", trial_in_the_middle(cell, plan.search)) for cell in plan.cells]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "options.yaml"
        for what, training in checked:
            path.write_text(yaml.safe_dump(training.options), encoding="utf-8")
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                    train(["fit", "--config", str(path), *extra, "--print_config"])
            except ZooError as error:
                raise ZooError(f"{plan.path}: {what}{' · '.join(training.cell.labels.values())}: {error}") from error


def _list(plan: Plan) -> int:
    """Print the trainings; with a search, its cells, whose trainings are not known yet."""
    from gcpzoo.cli.tables import show
    from gcpzoo.experiments.sweep.execute import RUNS
    from gcpzoo.experiments.sweep.process import find_done

    done = find_done(plan.output / RUNS)
    table = new_table(*plan.axes, "seed", "done", right=["seed"])
    for training in plan.runs():
        state = "after the search" if plan.search else "yes" if training.hash in done else ""
        table.add_row(*map(printable, training.cell.labels.values()), str(training.seed), state)
    show(table)
    return 0


@contextlib.contextmanager
def _display(sweep: Sweep) -> Iterator[None]:
    """Show a live table in a terminal, and a line for each start and end in a log."""
    from rich.live import Live

    console = new_console()
    if not console.is_terminal:
        sweep.changed = lambda training, state: _say(sweep.progress, training, state)
        yield
        return
    start = time.monotonic()
    with Live(
        get_renderable=lambda: _table(sweep.progress, time.monotonic() - start),
        console=console,
        refresh_per_second=1 / REFRESH_SECONDS,
    ):
        yield


def _say(progress: Progress, training: Any, state: Any) -> None:
    name, count = printable(training.name), f"{len(progress.ended)}/{progress.total}"
    if state is None:
        print(f"[{count}] started {name}", flush=True)
        return
    detail = f": {state.error}" if state.error else f" in {_duration(state.seconds)}"
    left = progress.seconds_left()
    rest = f"; about {_duration(left)} left" if left else ""
    print(f"[{count}] {state.state} {name}{detail}{rest}", flush=True)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


def _table(progress: Progress, elapsed: float) -> Any:
    """Draw a row for each cell: what is done, what runs, and the accuracy so far on validation images."""
    from gcpzoo.hub.run_results import read_report

    axes = list(progress.cells[0].labels)
    columns = ("done", "failed", "running", "val/top1 %")
    table = new_table(*axes, *columns, right=columns)
    ended, running = list(progress.ended), list(progress.running.values())
    for cell in progress.cells:
        states = [state.state for r, state, _ in ended if r.cell.name == cell.name]
        lines, values = [], []
        for r, folder, _ in running:
            if r.cell.name == cell.name:
                fit = read_report(folder).get("fit", {})
                kind = f"seed {r.seed}" if r.trial is None else f"trial {r.trial}"
                lines.append(f"{kind}, {fit.get('epochs', 0)} epochs")
                values += [row["val/top1"] for row in fit.get("history", [])[-1:] if row.get("val/top1") is not None]
        count = len(cell.seeds) + progress.trials
        table.add_row(
            *map(printable, cell.labels.values()),
            f"{states.count('done')}/{count}",
            str(states.count("failed") or ""),
            "; ".join(lines),
            ", ".join(f"{100 * value:.1f}" for value in values),
        )
    left = progress.seconds_left()
    rest = "time left not known yet" if left is None else f"about {_duration(left)} left"
    table.caption = f"{len(ended)} of {progress.total} trainings after {_duration(elapsed)}; {rest}"
    return table


def _summarize(sweep: Sweep, plan: Plan) -> None:
    """Say what is done, name what failed, and where the results are."""
    from gcpzoo.experiments.sweep.execute import RESULTS, RUNS

    states = [state.state for _, state, _ in sweep.progress.ended]
    print(f"{states.count('done')} of {sweep.progress.total} trainings are done: {plan.output / RESULTS}")
    for training, state, folder in sweep.progress.failed():
        print(f"gcpzoo: failed: {printable(training.name)}: {state.error} ({folder}/log.txt)", file=sys.stderr)
    known = {folder for _, _, folder in sweep.progress.ended}
    others = {path.parent for path in (plan.output / RUNS).glob("*/run.json")} - known
    if others and len(states) == sweep.progress.total:
        several = len(others) > 1
        what = f"{len(others)} other training{'s' if several else ''} in {plan.output / RUNS}"
        print(f"{what} {'are' if several else 'is'} not of this sweep: kept, not in the table")
