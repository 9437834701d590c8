"""Searches of a sweep: the same budget for all, and never a look at the test images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import yaml
from sweep_folder import BASE, count_starts, read_results

from gcpzoo.data import Digits, ImageFolder, ImageNet
from gcpzoo.errors import ZooError
from gcpzoo.experiments.sweep import Sweep, read_plan
from gcpzoo.experiments.sweep.plan import Run
from gcpzoo.experiments.sweep.process import State

SPACE = {"model.optimizer.lr": [0.001, 0.1]}


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
    assert {row["chosen"] for row in read_results(tmp_path / "out")} == {json.dumps({"model.optimizer.lr": nearest})}
    assert len(read_results(tmp_path / "out")) == 8


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
    assert [count_starts(folder) for folder in (tmp_path / "out").glob("*/*/")] == [1] * 4


def test_a_training_begins_when_its_own_rates_are_known_not_those_of_all(write: Callable, tmp_path: Path) -> None:
    heads = {"slow": {"model.head": "isqrt", "model.dim": 3}, "gap": {}}  # a trial of slow waits for the file go
    file = write(axes={"head": heads}, search={"space": SPACE, "trials": 1})
    rescue = Timer(30, (tmp_path / "out" / "go").touch)

    def changed(run: Run, state: State | None) -> None:
        if state and (run.cell.labels["head"], run.trial) == ("gap", None):
            (tmp_path / "out" / "go").touch()

    rescue.start()
    ended = [(run.cell.labels["head"], run.trial) for run, *_ in Sweep(read_plan(file), jobs=2, changed=changed).run()]
    rescue.cancel()
    assert ended == [("gap", 0), ("gap", None), ("slow", 0), ("slow", None)]


def test_a_cell_whose_trials_all_fail_is_left_out_and_named(write: Callable, tmp_path: Path) -> None:
    heads = {"gap": {}, "isqrt": {"model.dim": 2}}
    sweep = Sweep(read_plan(write(axes={"head": heads}, search={"space": SPACE, "trials": 2})))
    sweep.run()
    assert {run.cell.labels["head"] for run, *_ in sweep.progress.failed()} == {"isqrt"}
    assert {row["head"] for row in read_results(tmp_path / "out")} == {"gap"}
