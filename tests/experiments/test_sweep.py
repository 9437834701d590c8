"""Sweeps: how trainings run side by side, go on, and fail, and the table of their results."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweep_folder import STUB, count_starts, read_results

from gcpzoo.errors import ZooError
from gcpzoo.experiments.sweep import Sweep, execute, process, read_plan

SPACE = {"model.optimizer.lr": [0.001, 0.1]}


def test_the_table_has_validation_every_epoch_and_test_in_the_last(write: Callable, tmp_path: Path) -> None:
    Sweep(read_plan(write(axes={"head": ["gap", "isqrt"]}, seeds=[0, 1])), jobs=2).run()
    rows = read_results(tmp_path / "out")
    assert list(rows[0])[:7] == ["data", "backbone", "head", "seed", "epoch", "val/top1", "test/top1"]
    assert len(rows) == 8
    assert {(r["data"], r["backbone"]) for r in rows} == {("Digits", "resnet18")}
    for row in rows:
        value = 0.81 - 0.01 * int(row["seed"])
        assert float(row["val/top1"]) == pytest.approx(value)
        assert row["test/top1"] == ("" if row["epoch"] == "0" else f"{value - 0.05:.2f}")
        assert (row["state"], row["hardware"], row["parameters"]) == ("done", "a stub", "10")
        assert row["git"]


def test_a_sweep_goes_on_where_it_ended(write: Callable, tmp_path: Path) -> None:
    file = write(axes={"head": ["gap", "isqrt"]})
    Sweep(read_plan(file)).run()
    folders = sorted((tmp_path / "out" / "runs").iterdir())
    process.State("", {}, 0, "stopped").write(folders[1])
    (folders[0]).rename(folders[0].with_name("renamed"))  # found by its hash, not by its name
    ended = Sweep(read_plan(write(axes={"head": ["gap", "isqrt", "bcnn"]}))).run()
    assert [state.state for _, state, _ in ended] == ["done"] * 3
    assert [count_starts(f) for f in sorted((tmp_path / "out" / "runs").iterdir())] == [1, 2, 1]
    assert len(read_results(tmp_path / "out")) == 6


def test_a_sweep_that_grew_never_has_less_in_its_table_than_before(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {"space": SPACE, "trials": 2}
    Sweep(read_plan(write(axes={"head": ["gap", "isqrt"]}, seeds=[0, 1], search=search))).run()
    before = read_results(tmp_path / "out")
    seen: list[list[dict[str, str]]] = []

    def watched(*arguments: Any) -> process.State:
        seen.append(read_results(tmp_path / "out"))
        return process.train(*arguments)

    monkeypatch.setattr(execute, "train", watched)
    axes = {"head": {"bcnn": {}, "gap": {}, "isqrt": {}}}
    Sweep(read_plan(write(axes=axes, seeds=[0, 1], search=search))).run()
    assert len(seen) == 4  # two trials and two trainings of the new head
    assert seen[0] == seen[1] == before
    assert [row["head"] for row in read_results(tmp_path / "out")] == ["bcnn"] * 4 + ["gap"] * 4 + ["isqrt"] * 4


def test_a_start_that_fails_leaves_the_table_as_it_was(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(axes={"head": ["gap"]}, seeds=[0, 1], search={"space": SPACE, "trials": 1})
    Sweep(read_plan(file)).run()
    before = (tmp_path / "out" / "results.csv").read_text()
    writes: list[int] = []
    monkeypatch.setattr(execute, "write_results", lambda path, runs: writes.append(len(runs)))
    Sweep(read_plan(file)).run()
    assert set(writes) == {1, 2}  # the trial and both trainings, never a part of them
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ModuleNotFoundError):
        Sweep(read_plan(file)).run()
    assert (tmp_path / "out" / "results.csv").read_text() == before


def test_a_failed_training_keeps_its_error_and_stops_no_other(write: Callable, tmp_path: Path) -> None:
    heads = {
        "silent": {"model.head": "gap", "model.dim": 1},
        "broken": {"model.head": "gap", "model.dim": 2},
        "gap": {},
    }
    sweep = Sweep(read_plan(write(axes={"head": heads})))
    ended = {run.cell.labels["head"]: state for run, state, _ in sweep.run()}
    assert {name: state.state for name, state in ended.items()} == {
        "silent": "failed", "broken": "failed", "gap": "done"
    }  # fmt: skip
    assert ended["broken"].error == "the head broke"
    assert "without figures" in ended["silent"].error
    rows = {row["head"]: row for row in read_results(tmp_path / "out")}
    assert rows["broken"]["error"] == "the head broke"
    assert rows["broken"]["test/top1"] == rows["broken"]["epoch"] == ""
    assert rows["gap"]["test/top1"]


@pytest.mark.parametrize(
    ("jobs", "asked", "expected"), [(1, None, 6), (2, None, 3), (4, None, 1), (2, "2", 2), (9, None, 1)]
)
def test_trainings_share_the_cores(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, asked: str | None, expected: int
) -> None:
    monkeypatch.setattr(execute, "cores", lambda: 6)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    Sweep(read_plan(write(axes={"head": ["gap"]})), jobs=jobs).run()
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    assert (folder / "starts.txt").read_text() == f"{expected}\n"


def test_trainings_run_side_by_side_and_no_more_than_jobs(write: Callable, tmp_path: Path) -> None:
    heads = {name: {"model.dim": 3} for name in ("gap", "isqrt", "bcnn")}
    sweep = Sweep(read_plan(write(axes={"head": heads})), jobs=2)
    assert Sweep(sweep.plan, jobs=10**9).progress.jobs == 3  # no worker without work
    thread = threading.Thread(target=sweep.run)
    thread.start()
    seen = 0
    until = time.monotonic() + 20
    while time.monotonic() < until and seen < 2:
        seen = len(list((tmp_path / "out" / "runs").glob("*/metrics.json")))
    time.sleep(0.3)
    assert len(list((tmp_path / "out" / "runs").glob("*/starts.txt"))) == len(sweep.progress.running) == 2
    assert sweep.progress.seconds_left() is not None
    (tmp_path / "out" / "go").touch()
    thread.join(30)
    assert [state.state for _, state, _ in sweep.progress.ended] == ["done"] * 3
    assert sweep.progress.seconds_left() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_sweep_stops_its_trainings_and_goes_on_later(
    write: Callable, tmp_path: Path, number: signal.Signals
) -> None:
    file = write(axes={"head": {name: {"model.dim": 3} for name in ("gap", "isqrt")}})
    code = (
        "import signal, sys; from gcpzoo.experiments.sweep import process; from gcpzoo.cli import sweep, main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in the background it is ignored
        f"process.COMMAND = {STUB!r}; sweep._check_options = lambda *_: None\n"
        f"sys.exit(main.main(['sweep', {str(file)!r}]))"
    )
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, until = tmp_path / "out", time.monotonic() + 60
    while time.monotonic() < until and not list(out.glob("runs/*/metrics.json")):
        time.sleep(0.05)
    with pytest.raises(ZooError, match="still runs in"):
        Sweep(read_plan(file)).run()
    command.send_signal(number)
    _, errors = command.communicate(timeout=30)
    assert command.returncode == 128 + number, errors
    (folder,) = out.glob("runs/*")
    state = process.read_state(folder)
    assert state is not None
    assert state.state == "stopped"
    assert {row["test/top1"] for row in read_results(out)} == {""}
    (out / "go").touch()
    assert [s.state for _, s, _ in Sweep(read_plan(file)).run()] == ["done", "done"]


def test_a_training_that_outlives_a_killed_sweep_keeps_the_folder(write: Callable, tmp_path: Path) -> None:
    file = write(axes={"head": {"gap": {"model.dim": 3}}})
    code = (
        "from gcpzoo.experiments.sweep import Sweep, process, read_plan\n"
        f"process.COMMAND = {STUB!r}; Sweep(read_plan({str(file)!r})).run()"
    )
    command = subprocess.Popen([sys.executable, "-c", code])
    out, until = tmp_path / "out", time.monotonic() + 60
    while time.monotonic() < until and not list(out.glob("runs/*/metrics.json")):
        time.sleep(0.05)
    command.kill()
    command.wait()
    with pytest.raises(ZooError, match="a training that a killed one left behind"):
        Sweep(read_plan(file)).run()
    (out / "go").touch()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            ended = Sweep(read_plan(file)).run()
            break
        except ZooError:
            time.sleep(0.05)
    assert [state.state for _, state, _ in ended] == ["done"]


def test_a_folder_that_cannot_be_made_is_named(write: Callable, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "runs").touch()
    with pytest.raises(ZooError, match=r"no training can begin in .*gap_seed0.*: Not a directory"):
        Sweep(read_plan(write(axes={"head": ["gap"]}))).run()
