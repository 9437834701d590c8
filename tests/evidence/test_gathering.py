"""The results of a sweep, condensed into the tables of the evidence: all figures, and nothing of the machine."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from evidence_claim import CLAIM, COMMANDS, SHARES, rows
from sweep_folder import write_sweep

from gcpzoo.errors import ZooError


def test_no_committed_table_holds_a_folder_of_a_machine() -> None:
    from gather_evidence import EVIDENCE, PLACE

    for path in EVIDENCE.glob("*.csv"):
        assert not [cell for row in rows(path) for cell in row.values() if PLACE.search(cell)], path


def test_gathering_keeps_all_figures_and_no_folder_of_the_machine(make: ModuleType, pets: Path, tmp_path: Path) -> None:
    table = rows(pets / "results.csv")
    table[0] |= {"state": "failed", "error": "cannot read '/home/me/data/a b.png': see /tmp/x/log.txt"}
    source = tmp_path / "mine"
    source.mkdir()
    from gather_evidence import write

    write(source / "results.csv", list(table[0]), table)
    write(source / "trials.csv", list(table[0]), table[:1])
    written = make.gather(source, "mine", tmp_path / "evidence")
    assert [path.name for path in written] == ["mine.csv", "mine.trials.csv"]  # no predictions: no differences
    kept = rows(written[0])
    assert kept[0]["error"] == "cannot read 'a b.png': see log.txt"
    assert [r | {"error": ""} for r in kept] == [{k: str(v) for k, v in r.items()} | {"error": ""} for r in table]


def test_gathering_compares_every_pair_of_heads_over_test_images(evidence: Path) -> None:
    found = {(r["head"], r["control"]): r for r in rows(evidence / "pets.differences.csv")}
    assert len(found) == 4 * 3
    assert found["isqrt", "gap"]["mean"] == "0.200000"
    assert found["gap", "isqrt"]["mean"] == "-0.200000"
    assert (found["isqrt", "gap"]["seeds"], found["isqrt", "gap"]["images"]) == ("0 1 2", "200")
    assert 0.1 < float(found["isqrt", "gap"]["low"]) < 0.2 < float(found["isqrt", "gap"]["high"]) < 0.3


def test_heads_of_two_sweeps_are_compared_where_it_is_asked_for(make: ModuleType, pets: Path, tmp_path: Path) -> None:
    other = write_sweep(tmp_path / "roots", {"minimax": {0: 0.95, 1: 0.97, 2: 0.93}})
    make.gather(other, "roots", tmp_path / "alone")
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["roots.csv"]
    make.gather(pets, "pets", tmp_path / "both")
    make.gather(other, "roots", tmp_path / "both", beside=[pets])
    pairs = {(row["head"], row["control"]) for row in rows(tmp_path / "both" / "roots.differences.csv")}
    assert pairs == {pair for head in SHARES for pair in ((head, "minimax"), ("minimax", head))}
    assert {row["head"] for row in rows(tmp_path / "both" / "roots.csv")} == {"minimax"}
    claim = CLAIM | {"results": ["pets", "roots"], "control": "isqrt", "heads": ["minimax"]}
    text, _ = make.page({"commands": COMMANDS, "claims": [claim]}, tmp_path / "both")
    assert "Outcome: **holds in 1 of 1 comparison**." in text


def test_gathering_again_removes_what_the_sweep_has_no_more(make: ModuleType, pets: Path, tmp_path: Path) -> None:
    (tmp_path / "pets.trials.csv").write_text("old")
    make.gather(pets, "pets", tmp_path)
    assert not (tmp_path / "pets.trials.csv").exists()


@pytest.mark.parametrize(
    ("source", "name", "told"),
    [
        ("nowhere", "pets", "holds no results.csv"),
        ("empty", "pets", "holds no results"),
        ("begun", "pets", "is done yet"),
        ("empty", "A b", "--as"),
    ],
)
def test_what_cannot_be_gathered_is_refused(
    source: str, name: str, told: str, make: ModuleType, pets: Path, tmp_path: Path
) -> None:
    lines = (pets / "results.csv").read_text().splitlines(keepends=True)
    for folder, n in (("empty", 1), ("begun", 2)):  # columns alone; a first epoch
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "results.csv").write_text("".join(lines[:n]))
    with pytest.raises(ZooError, match=told):
        make.gather(tmp_path / source, name, tmp_path / "evidence")
    assert not (tmp_path / "evidence").exists()
