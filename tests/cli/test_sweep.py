"""``gcpzoo sweep`` with trainings of its own: what is refused before the first, what is left at the end."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gcpzoo.cli.sweep import _duration, _table
from gcpzoo.cli.tables import new_table, show
from gcpzoo.experiments.sweep import Progress, read_plan

Cli = Callable[..., tuple[int, str, str]]
BASE = {
    "model": {"backbone": "resnet18", "until": "layer1", "dim": 8},
    "data": {"class_path": "Digits", "init_args": {"image_size": 16, "val_fraction": 0.1}},
    "trainer": {"max_epochs": 1, "limit_train_batches": 2, "accelerator": "cpu"},
}


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def written(**content: object) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"base": BASE, **content}, sort_keys=False))
        return path

    return written


def test_a_sweep_trains_keeps_what_failed_and_trains_nothing_twice(cli: Cli, file: Callable, tmp_path: Path) -> None:
    heads = {"gap": {}, "bad": {"model.head": "isqrt", "model.head_args": {"iterations": -1}}}
    path = file(axes={"head": heads})
    code, out, err = cli("sweep", path, "--jobs", 2)
    assert code == 1
    assert "1 of 2 trainings are done: runs/mine/results.csv" in out
    assert "failed: Digits_resnet18_bad_seed0" in err
    assert "iterations must be" in err
    with (tmp_path / "runs" / "mine" / "results.csv").open(newline="") as results:
        rows = {row["head"]: row for row in csv.DictReader(results)}
    assert 0 <= float(rows["gap"]["val/top1"]) <= 1
    assert 0 <= float(rows["gap"]["test/top1"]) <= 1
    assert float(rows["gap"]["seconds"]) > 0
    assert "iterations must be" in rows["bad"]["error"]
    (folder,) = (tmp_path / "runs" / "mine" / "runs").glob("*gap*")
    lines = (folder / "test_predictions.csv").read_text().splitlines()
    right = [line.split(",")[1] == line.split(",")[4] for line in lines[1:]]
    assert len(right) == 360
    assert sum(right) / 360 == pytest.approx(float(rows["gap"]["test/top1"]), abs=1e-6)
    code, out, _ = cli("sweep", file(axes={"head": ["gap"]}))
    assert code == 0
    assert "started" not in out
    assert "1 other training in runs/mine/runs is not of this sweep" in out
    code, out, _ = cli("sweep", file(axes={"head": heads}), "--list")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines() if "resnet18" in line] == ["yes", "0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model.hed": "gap"}, "Digits · resnet18 · gap: unknown option 'model.hed': did you mean model.head"),
        ({"trainer.max_epochs": "many"}, "trainer.max_epochs must be"),
        ({"data.valfraction": 0.1}, "did you mean data.val_fraction"),
    ],
)
def test_options_are_checked_before_anything_is_trained(
    cli: Cli, file: Callable, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    code, _, err = cli("sweep", file(axes={"head": {"gap": options}}))
    assert code == 2
    assert message in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            {"space": {"model.optimizer.rate": [1, 2]}},
            "search: Digits · resnet18 · gap: unknown option 'model.optim",
        ),
        ({"space": {"model.dim": [4, 16]}}, "model.dim must be of type int"),
        (
            {"space": {"model.optimizer.lr": [1, 2]}, "options": {"trainer.max_epoch": 1}},
            "did you mean trainer.max_epochs",
        ),
    ],
)
def test_the_options_of_a_search_are_checked_before_anything_is_trained(
    cli: Cli, file: Callable, search: dict[str, object], message: str, tmp_path: Path
) -> None:
    code, _, err = cli("sweep", file(axes={"head": ["gap"]}, search=search))
    assert code == 2
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_a_list_refuses_what_the_sweep_would(cli: Cli, file: Callable) -> None:
    code, out, err = cli("sweep", file(axes={"head": {"gap": {"model.hed": 1}}}), "--list")
    assert (code, out) == (2, "")
    assert "unknown option 'model.hed'" in err


def test_jobs_must_be_a_number_of_trainings(cli: Cli, file: Callable) -> None:
    code, _, err = cli("sweep", file(axes={"head": ["gap"]}), "--jobs", 0)
    assert code == 2
    assert "jobs must be at least 1, got 0" in err


def test_the_live_table_has_a_row_for_each_cell_and_says_what_is_left(file: Callable) -> None:
    progress = Progress(read_plan(file(axes={"head": ["gap", "isqrt"]}, seeds=[0, 1])).cells, trials=1, jobs=2)
    table = _table(progress, 5.0)
    assert table.row_count == 2
    assert list(table.columns[3].cells) == ["0/3", "0/3"]
    assert table.caption == "0 of 6 trainings after 5 s; time left not known yet"


@pytest.mark.parametrize(("seconds", "text"), [(59, "59 s"), (150, "2 min"), (5400, "90 min"), (9000, "2.5 h")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_a_name_is_printed_as_it_is_whatever_brackets_and_colons_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("head", title="[b]heads")
    table.add_row("[/b] [red]mine :cat:")
    show(table)
    out = capsys.readouterr().out
    assert "[b]heads" in out
    assert "[/b] [red]mine :cat:" in out
