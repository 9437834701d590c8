"""Sweeps: what a file asks for, how trainings run side by side, go on, and fail; searches; the table of results."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gcpzoo.data import Digits, ImageFolder, ImageNet
from gcpzoo.errors import ZooError
from gcpzoo.experiments.sweep import Run, Sweep, execute, plan, process, read_plan
from gcpzoo.experiments.sweep.options import lay_over, read_options
from gcpzoo.experiments.sweep.results import ABOUT, FIGURES

STUB = (sys.executable, str(Path(__file__).with_name("stub_fit.py")))
SPACE = {"model.optimizer.lr": [0.001, 0.1]}
BASE = {"model.backbone": "resnet18", "data": "Digits", "data.val_fraction": 0.1}


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", STUB)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(**content: Any) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({"output": str(tmp_path / "out"), "base": BASE, **content}, sort_keys=False))
        return path

    return written


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def starts(folder: Path) -> int:
    return len((folder / "starts.txt").read_text().split())


# --- what a file asks for


def test_every_combination_is_a_training(write: Callable) -> None:
    axes = {
        "data": ["Digits"],
        "head": ["gap", "isqrt"],
        "dim": {"small": {"model.dim": 8}, "large": {"model.dim": 64}},
    }
    asked = read_plan(write(axes=axes, seeds=[0, 7]))
    assert asked.axes == ("data", "backbone", "head", "dim")
    found = [(r.cell.labels["head"], r.cell.labels["dim"], r.seed, r.options["model"]["dim"]) for r in asked.runs()]
    assert found == [(h, n, s, d) for s in (0, 7) for h in ("gap", "isqrt") for n, d in (("small", 8), ("large", 64))]
    assert {r.options["seed_everything"] for r in asked.runs()} == {0, 7}
    assert len({r.hash for r in asked.runs()}) == len({r.name for r in asked.runs()}) == 8


def test_overrides_change_options_and_seeds_of_some_cells_and_leave_others_out(write: Callable) -> None:
    rules = [
        {"when": {"head": "gap"}, "options": {"model.optimizer.lr": 0.3}},
        {"when": {"head": ["isqrt", "bcnn"]}, "seeds": [5]},
        {"when": {"head": "cbp", "data": "Digits"}, "skip": True},
    ]
    asked = read_plan(write(axes={"head": ["gap", "isqrt", "bcnn", "cbp"]}, seeds=[0, 1], overrides=rules))
    assert [(r.cell.labels["head"], r.seed) for r in asked.runs()] == [
        ("gap", 0), ("gap", 1), ("isqrt", 5), ("bcnn", 5)
    ]  # fmt: skip
    assert [c.options["model"].get("optimizer") for c in asked.cells] == [{"lr": 0.3}, None, None]


def test_the_hash_is_that_of_the_options_not_of_their_order_or_names(write: Callable) -> None:
    one = read_plan(write(axes={"head": {"gap": {"model": {"dim": 8, "until": "layer2"}}}})).runs()[0]
    other = read_plan(write(axes={"head": {"mean": {"model.until": "layer2", "model.head": "gap", "model.dim": 8}}}))
    assert one.hash == other.runs()[0].hash
    changed = read_plan(write(axes={"head": {"gap": {"model": {"dim": 9, "until": "layer2"}}}})).runs()[0]
    assert changed.hash != one.hash
    assert changed.recipe != one.recipe
    assert Run(one.cell, 1).recipe == one.recipe
    assert Run(one.cell, 1).hash != one.hash


def test_a_change_of_a_config_file_is_a_change_of_the_training(write: Callable, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    hashes = []
    for dim in (8, 9):
        config.write_text(f"model: {{backbone: resnet18, dim: {dim}}}\ndata: {{class_path: gcpzoo.data.Digits}}\n")
        hashes.append(read_plan(write(base={"config": str(config)}, axes={"head": ["gap"]})).runs()[0].hash)
    assert hashes[0] != hashes[1]


def test_no_axis_can_take_the_name_of_another_column() -> None:
    assert set(plan.RESERVED) == {"seed", "epoch", *(name for name in (*FIGURES, *ABOUT) if "/" not in name)}


def test_a_replaced_name_takes_its_arguments_along() -> None:
    below = read_options({"model": {"head": "isqrt", "head_args": {"iterations": 3}}, "data": "Digits"}, "a")
    below = lay_over(below, read_options({"data.image_size": 16}, "b"))
    kept = lay_over(below, read_options({"model.head": "isqrt", "model.head_args.dim": 4, "data": "Digits"}, "c"))
    assert kept["model"]["head_args"] == {"iterations": 3, "dim": 4}
    assert kept["data"]["init_args"] == {"image_size": 16}
    other = lay_over(below, read_options({"model.head": "gap", "data": "ImageFolder", "data.root": "x"}, "c"))
    assert "head_args" not in other["model"]
    assert other["data"] == {"class_path": "gcpzoo.data.ImageFolder", "init_args": {"root": "x"}}
    assert below["model"]["head_args"] == {"iterations": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"axes": {"head": ["gapp"]}}, "gapp.*did you mean gap"),
        ({"axes": {"head": ["gap"]}, "seed": [0]}, "unknown key 'seed': did you mean seeds"),
        ({"axes": {"data": ["Digits"]}}, "at least the axis head"),
        ({"axes": {"head": []}}, "axes.head must be"),
        ({"axes": {"head": ["gap"], "seed": {"a": {}}}}, "axes.seed: the name must be"),
        ({"axes": {"head": ["gap"]}, "seeds": [0, 0]}, "different whole numbers"),
        ({"axes": {"head": ["gap"]}, "seeds": 3}, "different whole numbers"),
        ({"axes": {"head": ["gap"]}, "control": "gab"}, "unknown control 'gab'"),
        ({"axes": {"head": {"a": {"model.head": "gap"}, "gap": {}}}}, "a and .*gap are the same training"),
        ({"axes": {"head": ["gap"]}, "overrides": [{"when": {"head": "isqrt"}}]}, "unknown head 'isqrt'"),
        ({"axes": {"head": ["gap"]}, "overrides": [{"when": {"heads": "gap"}}]}, "unknown axis 'heads'"),
        ({"axes": {"head": ["gap"]}, "overrides": [{"when": {}, "skip": True}]}, "skip every cell"),
        ({"axes": {"head": ["gap"]}, "base": {"model.backbone": "resnet18"}}, "no data"),
        ({"axes": {"head": ["gap"]}, "base": {**BASE, "output": "x"}}, "output is set by the sweep"),
        ({"axes": {"head": ["gap"]}, "base": {**BASE, "generations": 3}}, "set generations to 1"),
        ({"axes": {"head": ["gap"]}, "base": {**BASE, "model": {"backbone": "x"}}}, "must be given once"),
        ({"axes": {"head": ["gap"]}, "base": {"config": "pretrain/digit.yaml"}}, "did you mean pretrain/digits.yaml"),
        ({"axes": {"head": ["gap"]}, "search": {"space": {}}}, "space must map"),
        ({"axes": {"head": ["gap"]}, "search": {"space": {"a": [1, 2]}, "trials": 7}}, "from 1 to 6, got 7"),
        ({"axes": {"head": ["gap"]}, "search": {"space": {"model.optimizer.lr": [0.1, 0.01]}}}, "both above 0"),
        ({"axes": {"head": ["gap"]}, "search": {"space": {"data.seed": [1, 2]}}}, "of the model or the trainer"),
        (
            {"axes": {"head": ["gap"]}, "base": {**BASE, "data.val_on_test": True}, "search": {"space": {"a": [1, 2]}}},
            "must not see the test images",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(write: Callable, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        read_plan(write(**content))


# --- how trainings run


def test_the_table_has_validation_every_epoch_and_test_in_the_last(write: Callable, tmp_path: Path) -> None:
    Sweep(read_plan(write(axes={"head": ["gap", "isqrt"]}, seeds=[0, 1])), jobs=2).run()
    rows = table(tmp_path / "out")
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
    assert [starts(f) for f in sorted((tmp_path / "out" / "runs").iterdir())] == [1, 2, 1]
    assert len(table(tmp_path / "out")) == 6


def test_a_sweep_that_grew_never_has_less_in_its_table_than_before(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {"space": SPACE, "trials": 2}
    Sweep(read_plan(write(axes={"head": ["gap", "isqrt"]}, seeds=[0, 1], search=search))).run()
    before = table(tmp_path / "out")
    seen: list[list[dict[str, str]]] = []

    def watched(*arguments: Any) -> process.State:
        seen.append(table(tmp_path / "out"))
        return process.train(*arguments)

    monkeypatch.setattr(execute, "train", watched)
    axes = {"head": {"bcnn": {}, "gap": {}, "isqrt": {}}}
    Sweep(read_plan(write(axes=axes, seeds=[0, 1], search=search))).run()
    assert len(seen) == 4  # two trials and two trainings of the new head
    assert seen[0] == seen[1] == before
    assert [row["head"] for row in table(tmp_path / "out")] == ["bcnn"] * 4 + ["gap"] * 4 + ["isqrt"] * 4


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
    rows = {row["head"]: row for row in table(tmp_path / "out")}
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
    assert {row["test/top1"] for row in table(out)} == {""}
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


# --- searches


def test_a_search_gives_every_head_the_same_budget_and_its_best_rate(write: Callable, tmp_path: Path) -> None:
    search = {"space": SPACE, "trials": 4, "options": {"trainer.max_epochs": 1}}
    base = {**BASE, "model.optimizer.lr": 0.02}
    asked = read_plan(write(axes={"head": ["gap", "isqrt"]}, base=base, seeds=[0, 1], search=search))
    sweep = Sweep(asked, jobs=2)
    ended = sweep.run()
    assert sweep.progress.total == len(ended) == 12
    for head in ("gap", "isqrt"):
        trials = [run for run, *_ in ended if run.trial is not None and run.cell.labels["head"] == head]
        assert [run.trial for run in trials] == [0, 1, 2, 3]
        assert trials[0].chosen == {"model.optimizer.lr": 0.02}
        assert all(run.options["trainer"] == {"max_epochs": 1} for run in trials)
        nearest = min((run.chosen["model.optimizer.lr"] for run in trials), key=lambda rate: abs(rate - 0.01))
        final = [run for run, *_ in ended if run.trial is None and run.cell.labels["head"] == head]
        assert [run.options["model"]["optimizer"]["lr"] for run in final] == [nearest, nearest]
        assert all("trainer" not in run.options for run in final)
    assert {row["chosen"] for row in table(tmp_path / "out")} == {json.dumps({"model.optimizer.lr": nearest})}
    assert len(table(tmp_path / "out")) == 8


def test_no_trial_of_a_search_evaluates_the_test_images(write: Callable, tmp_path: Path) -> None:
    Sweep(read_plan(write(axes={"head": ["gap"]}, search={"space": SPACE, "trials": 2}))).run()
    folders = list((tmp_path / "out" / "trials").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert yaml.safe_load((folder / "options.yaml").read_text())["evaluate"] is False
        assert "test" not in json.loads((folder / "metrics.json").read_text())
    with (tmp_path / "out" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["trial"] for row in rows} == {"0", "1"}
    assert all(row["val/top1"] and row["chosen"] and not row["test/top1"] for row in rows)
    for folder in folders:
        report = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps({**report, "test": {"top1": 1.0}}))
    with pytest.raises(ZooError, match="has seen the test images"):
        Sweep(read_plan(tmp_path / "sweep.yaml")).run()


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({**BASE, "data.views": "mirror"}, "the validation images are the test images"),  # the stub's sign for it
        ({**BASE, "data.val_fraction": 0}, "set data.val_fraction"),
    ],
)
def test_a_search_without_validation_images_of_its_own_is_refused(
    write: Callable, base: dict[str, Any], message: str
) -> None:
    with pytest.raises(ZooError, match=message):
        Sweep(read_plan(write(axes={"head": ["gap"]}, base=base, search={"space": SPACE, "trials": 1}))).run()


def test_the_report_of_a_training_says_whether_the_validation_images_are_the_test_images(folder: Path) -> None:
    assert ImageNet(str(folder)).record()["val_on_test"] is True  # its official validation images serve as both
    assert ImageFolder(str(folder)).record()["val_on_test"] is False
    assert Digits(val_on_test=True).record()["val_on_test"] is True
    assert Digits(val_fraction=0.1).record()["val_on_test"] is False
    assert Digits().record()["val_on_test"] is False


def test_an_interrupted_search_tries_nothing_twice(write: Callable, tmp_path: Path) -> None:
    file = write(axes={"head": ["gap"]}, search={"space": SPACE, "trials": 3})
    first = [run.options for run, *_ in Sweep(read_plan(file)).run()]
    again = [run.options for run, *_ in Sweep(read_plan(file)).run()]
    assert again == first
    assert [starts(folder) for folder in (tmp_path / "out").glob("*/*/")] == [1] * 4


def test_a_cell_whose_trials_all_fail_is_left_out_and_named(write: Callable, tmp_path: Path) -> None:
    heads = {"gap": {}, "isqrt": {"model.dim": 2}}
    sweep = Sweep(read_plan(write(axes={"head": heads}, search={"space": SPACE, "trials": 2})))
    sweep.run()
    assert {run.cell.labels["head"] for run, *_ in sweep.progress.failed()} == {"isqrt"}
    assert {row["head"] for row in table(tmp_path / "out")} == {"gap"}


def test_a_run_is_told_apart_by_its_seed(write: Callable) -> None:
    cell = read_plan(write(axes={"head": ["gap"]})).cells[0]
    assert Run(cell, 0).hash != Run(cell, 1).hash
    assert os.sep not in Run(cell, 0).name
