"""The trials of own images: their table on the page is the one that the command writes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def docs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")


def test_the_table_of_the_trial_is_the_one_that_the_command_writes() -> None:
    import make_trial

    page = (ROOT / "docs" / "own_images.md").read_text(encoding="utf-8")
    assert page.partition(make_trial.BEGIN)[2].partition(make_trial.END)[0].strip() == make_trial.table()


def test_the_trial_is_right_where_it_names_the_head_that_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import make_trial

    monkeypatch.setattr(make_trial, "CSV", tmp_path / "trial.csv")
    rows = [
        ("birds", "net", 90, 0.9, 0.7, 0.18, 0.22, 0.05, 8, 1, ""),
        ("cloth", "net", 90, 0.9, 0.85, 0.03, 0.07, -0.01, 8, 1, ""),
        ("cars", "net", 90, 0.9, 0.85, 0.03, 0.07, 0.02, 8, 1, ""),
    ]
    with make_trial.CSV.open("w", newline="") as file:
        csv.writer(file).writerows([make_trial.COLUMNS, *rows])
    table = make_trial.table()
    assert [line.split("|")[-2].strip() for line in table.splitlines()[2:5]] == ["yes", "yes", "no"]
    assert "Right in 2 of 3; without the margin of 10 points it would be 2." in table
