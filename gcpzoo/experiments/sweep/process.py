"""One training of a sweep: ``gcpzoo fit`` in a process of its own, and what is kept of its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import yaml

import gcpzoo
from gcpzoo.errors import printable
from gcpzoo.experiments.sweep.plan import Run
from gcpzoo.hub.run_results import read_report
from gcpzoo.limits import read_json
from gcpzoo.paths import write_text

STATE, OPTIONS, LOG = "run.json", "options.yaml", "log.txt"
COMMAND = (sys.executable, "-m", "gcpzoo", "fit")
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 300
"""For how long a stopped training may finish its step and write its checkpoint."""


@dataclass
class State:
    """What ``run.json`` says of a training.

    Attributes:
        state: ``running``, ``done``, ``failed``, or ``stopped`` where the sweep was ended.
        error: of a failed one, in one line; ``log.txt`` has everything.
        seconds: wall-clock seconds of its processes.
        git: commit of the code, with ``+changes`` where files differ from it; outside a checkout the version.

    >>> State("0f3a", {"head": "gap"}, 0, "done").state
    'done'
    """

    hash: str
    labels: dict[str, str]
    seed: int
    state: Literal["running", "done", "failed", "stopped"]
    error: str = ""
    seconds: float = 0.0
    git: str = ""
    trial: int | None = None
    chosen: dict[str, float] | None = None

    def write(self, folder: Path) -> None:
        """Write it into the folder of the training."""
        write_text(folder / STATE, json.dumps(asdict(self), indent=1) + "\n")


def read_state(folder: Path) -> State | None:
    """Read what is known of a training; nothing of one that has not begun, or whose file is damaged.

    >>> read_state(Path("nowhere"))
    """
    try:
        return State(**read_json(folder / STATE))
    except (OSError, ValueError, TypeError):
        return None


def find_done(folder: Path) -> dict[str, Path]:
    """Find the trainings that are done, by the hash of their options.

    >>> find_done(Path("nowhere"))
    {}
    """
    found = {}
    for place in sorted(folder.glob(f"*/{STATE}")):
        state = read_state(place.parent)
        if state and state.state == "done" and "fit" in read_report(place.parent):
            found[state.hash] = place.parent
    return found


def code_version() -> str:
    """Name the state of the code: the commit of its checkout, or the version.

    >>> len(code_version()) > 4
    True
    """
    place = Path(gcpzoo.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=place, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a checkout of ours, not of what surrounds an environment
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return f"gcpzoo {gcpzoo.__version__}"


def train(
    run: Run, folder: Path, threads: int, extra: Sequence[str], stop: threading.Event, kept_open: Sequence[int] = ()
) -> State:
    """Train in a process of its own, go on where it stopped, and keep how it ended.

    Args:
        run: what to train.
        folder: of this training; what an earlier attempt left there is gone on with.
        threads: for its computations.
        extra: further arguments of ``gcpzoo fit``.
        stop: when set, the training is asked to end with a checkpoint.
        kept_open: file descriptors that the process inherits.

    >>> train.__name__
    'train'
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = read_state(folder)
    state = State(run.hash, run.cell.labels, run.seed, "running", trial=run.trial, chosen=run.chosen or None)
    state.git, state.seconds = code_version(), before.seconds if before else 0.0
    earlier = state.seconds
    write_text(folder / OPTIONS, yaml.safe_dump(run.options, sort_keys=False, allow_unicode=True))
    state.write(folder)
    command = [*COMMAND, "--config", str(folder / OPTIONS), "--output", str(folder), "--resume"]
    command += ["--trainer.enable_progress_bar", "false", *extra]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.monotonic()
    with (folder / LOG).open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
            pass_fds=tuple(kept_open),
        )  # fmt: skip
        code = _wait(process, stop)
    state.seconds = round(earlier + time.monotonic() - start, 1)
    complete = "test" in read_report(folder) or (run.options.get("evaluate") is False and "fit" in read_report(folder))
    if code == 0 and complete:
        state.state = "done"
    elif stop.is_set():
        state.state = "stopped"
    else:
        state.state, state.error = "failed", _error(folder / LOG, begin, code)
    state.write(folder)
    return state


def _wait(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    """Wait for a process; when the sweep is ended, let it write its checkpoint first."""
    deadline = None
    while process.poll() is None:
        if stop.wait(POLL_SECONDS):
            if deadline is None:
                process.terminate()
                deadline = time.monotonic() + PATIENCE_SECONDS
            elif time.monotonic() > deadline:
                process.kill()
            time.sleep(POLL_SECONDS)
    return process.returncode


def _error(log: Path, begin: int, code: int) -> str:
    """Find the line of a log that says why a training failed."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    told = [line.removeprefix("gcpzoo: error: ") for line in lines if line.startswith("gcpzoo: error: ")]
    last = told[-1] if told else lines[-1] if lines else "nothing was printed"
    if code < 0:
        return printable(f"killed by signal {-code}; the last line was: {last}")[:500]
    return printable(last if code else f"it ended without figures; the last line was: {last}")[:500]
