"""The evidence is judged by rule, and the pages are what the command writes from it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import pytest
from evidence_claim import CLAIM, COMMANDS, rows

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.experiments.report import Block, HeadResult, Training
from gcpzoo.experiments.statistics import Estimate
from gcpzoo.hub.records import get_record

ROOT = Path(__file__).parents[2]


def test_the_committed_pages_are_what_the_command_writes(make: ModuleType) -> None:
    from evidence_tables import check_records

    check_records([get_record(name) for name in gcpzoo.list_models()], make.EVIDENCE)
    claims = make.load_claims()
    text, drawings = make.page(claims)
    table, drawings["gain.svg"] = make.chosen_table(claims["readme"])
    assert text == (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8"), "run python docs/make_evidence.py"
    choosing = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    assert f"{make.BEGIN}\n{table}\n{make.END}" in choosing, "run python docs/make_evidence.py"
    assert {path.name for path in make.EVIDENCE.glob("*.svg")} == set(drawings)
    if f"matplotlib=={matplotlib.__version__}\n" in (ROOT / "constraints.txt").read_text():
        for name, drawing in drawings.items():
            assert (make.EVIDENCE / name).read_text(encoding="utf-8") == drawing, name


@pytest.mark.parametrize(
    ("seeds", "images", "margin", "verdict"),
    [
        ((0.01, 0.03, 3), (0.01, 0.03), 0.0, "holds"),
        ((-0.03, -0.01, 3), (-0.03, -0.01), 0.0, "does not hold"),
        ((-0.01, 0.03, 3), (0.01, 0.03), 0.0, "not decided"),
        ((0.01, 0.03, 3), (-0.01, 0.03), 0.0, "not decided"),
        ((0.01, 0.03, 2), (0.01, 0.03), 0.0, "not decided"),  # fewer than three seeds
        ((None, None, 1), (0.01, 0.03), 0.0, "not decided"),
        ((0.01, 0.03, 3), None, 0.0, "not decided"),
        ((-0.004, 0.03, 3), (-0.003, 0.03), 0.005, "holds"),
        ((-0.006, 0.03, 3), (-0.003, 0.03), 0.005, "not decided"),
        ((-0.03, -0.006, 3), (-0.03, -0.004), 0.005, "not decided"),
        ((-0.03, -0.006, 3), (-0.03, -0.006), 0.005, "does not hold"),
    ],
)
def test_a_verdict_needs_both_intervals(seeds: Any, images: Any, margin: float, verdict: str) -> None:
    from evidence_tables import judge

    over_images = Estimate(0.0, *images, 200) if images else None
    assert judge(Estimate(0.0, *seeds), over_images, margin) == verdict


def test_a_claim_shows_its_losses_as_plainly_as_its_gains(make: ModuleType, evidence: Path) -> None:
    text, drawings = make.page({"commands": COMMANDS, "claims": [CLAIM]}, evidence)
    told = {cells[1]: cells[-1] for row in text.splitlines() if len(cells := row.strip(" |").split(" | ")) > 8}
    told = {head: verdict for head, verdict in told.items() if head in ("`isqrt`", "`worse`", "`close`")}
    assert told == {"`isqrt`": "holds", "`worse`": "does not hold", "`close`": "not decided"}
    assert "+20.00 (+17.52 to +22.48)" in text
    assert "Outcome: **holds in 1, does not hold in 1, not decided in 1 of 3 comparisons**." in text
    assert "```bash\ngcpzoo sweep pets.yaml\n```" in text
    assert set(drawings) == {"claim-1.svg"}
    assert "prefers-color-scheme:dark" in drawings["claim-1.svg"]


def test_what_was_not_measured_is_said(make: ModuleType, evidence: Path) -> None:
    claims = [
        CLAIM | {"results": ["textures"]},
        CLAIM | {"control": "bdc"},
        CLAIM | {"results": ["pets", "roots"], "heads": ["isqrt", "bdc"], "where": {"data": ["pets", "cars"]}},
    ]
    text, _ = make.page({"commands": COMMANDS, "claims": claims}, evidence)
    assert text.count("Outcome: **not measured**.") == 2
    assert "Not measured: pets: `bdc`; cars: `gap`, `isqrt`, `bdc`; `roots.csv`." in text


def test_differences_of_other_trainings_are_refused(make: ModuleType, evidence: Path) -> None:
    path = evidence / "pets.csv"
    path.write_text(path.read_text().replace(",0.9,0.5,", ",0.8,0.5,"))
    with pytest.raises(ZooError, match="gather again"):
        make.page({"commands": COMMANDS, "claims": [CLAIM]}, evidence)


def test_a_table_without_a_command_and_an_unknown_key_are_refused(make: ModuleType, evidence: Path) -> None:
    (evidence / "claims.yaml").write_text("commands: {}\nclaims: []\n")
    with pytest.raises(ZooError, match=r"commands must name the command behind pets\.csv"):
        make.load_claims(evidence)
    (evidence / "claims.yaml").write_text("commands: {pets: x}\nclaims: [{claim: a, sorce: b}]\n")
    with pytest.raises(ZooError, match="sorce"):
        make.load_claims(evidence)
    (evidence / "claims.yaml").write_text("commands: {pets: x}\nclaims: [{results: [pet]}]\n")
    with pytest.raises(ZooError, match="unknown table of a claim 'pet'.*pets"):
        make.load_claims(evidence)


def block(data: str, low: float, high: float, n: int = 3) -> Block:
    runs = [Training({"data": data, "head": "isqrt"}, 0, [{"test/top1": 0.5}], {})]
    gain = Estimate((low + high) / 2, low, high, n)
    return Block({"data": data}, "gap", [HeadResult("isqrt", runs, 0, gain, gain)])


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ((0.05, 0.06), (0.01, 0.02), "holds"),
        ((0.01, 0.02), (0.05, 0.06), "does not hold"),
        ((0.01, 0.04), (0.03, 0.06), "not decided"),
        ((0.05, 0.06, 2), (0.01, 0.02), "not decided"),
    ],
)
def test_a_larger_gain_needs_intervals_that_lie_apart(one: Any, other: Any, verdict: str) -> None:
    from evidence_tables import more_on

    text, verdicts = more_on([block("textures", *one), block("pets", *other)], "textures")
    assert verdicts == [verdict]
    assert text.splitlines()[2].startswith("| `isqrt` | textures | ")


def test_a_table_of_another_command_is_judged_over_seeds_by_its_better_side(evidence: Path) -> None:
    from evidence_tables import measured_table

    lines = [
        f"{head},{seed},{value + seed / 100}" for head, value in (("gap", 0.5), ("isqrt", 0.3)) for seed in range(3)
    ]
    (evidence / "noise.csv").write_text("\n".join(["head,seed,mce", *lines]) + "\n")
    table = {"table": "noise", "text": "Errors.", "columns": ["head", "mce"], "value": "mce", "control": "gap"}
    text, verdicts = measured_table(table | {"better": "lower"}, evidence)
    assert verdicts == ["holds"]
    assert "| isqrt | 0.31 |" in text
    assert measured_table(table | {"better": "higher"}, evidence)[1] == ["does not hold"]
    (evidence / "noise.csv").write_text("network,mce,kind\ngap,0.5,fog\nmine,0.3,fog\ngap,0.4,snow\nmine,0.6,snow\n")
    table |= {"columns": ["network", "mce"], "by": "network", "better": "lower"}
    with pytest.raises(ZooError, match="tell them apart by group or where"):
        measured_table(table, evidence)
    text, verdicts = measured_table(table | {"group": ["kind"]}, evidence)
    assert verdicts == ["not decided"]  # rows of one network are no comparisons of their own
    assert "`mine`: `mce` is lower than with `gap` in 1 of 2 rows, which are one comparison, over 1 seed: not" in text


def test_networks_of_a_table_are_paired_by_the_seed_in_their_names(evidence: Path) -> None:
    from evidence_tables import measured_table

    rows = [f"dtd_{head}_seed{s},{value + s}" for head, value in (("gap", 0.5), ("isqrt", 0.4)) for s in range(3)]
    (evidence / "noise.csv").write_text("\n".join(["model,mce", *rows]) + "\n")
    table = {"table": "noise", "text": "Errors.", "columns": ["model", "mce"], "value": "mce", "better": "lower"}
    text, verdicts = measured_table(table | {"by": "model", "control": "dtd_gap_seed0"}, evidence)
    assert verdicts == ["holds"]
    assert "`dtd_isqrt`: `mce` is lower than with `dtd_gap` in 1 of 1 rows" in text
    assert "over 3 seeds" in text


def test_how_rates_were_found_stands_below_the_table_and_how_close_the_search_was_beside_them(
    make: ModuleType, evidence: Path
) -> None:
    from gather_evidence import write

    table = rows(evidence / "pets.csv")
    chosen = json.dumps({"model.optimizer.lr": 0.01})
    claims = {"commands": COMMANDS, "claims": [CLAIM, CLAIM | {"results": ["textures"]}]}
    assert "Learning rates: as given, without a search, in `pets.csv`." in make.page(claims, evidence)[0]
    write(evidence / "textures.csv", [*table[0], "chosen"], [row | {"chosen": chosen} for row in table])
    tried = [row | {"trial": t, "val/top1": 0.5 + t / 10} for row in table if row["seed"] == "0" for t in range(2)]
    write(evidence / "textures.trials.csv", [*table[0], "trial"], tried)
    text, _ = make.page(claims, evidence)
    assert "the best of 2 trials of 3 epochs for each head, on validation images, in `textures.csv`" in text
    assert "| pets · resnet18 | `close` | `lr` 0.01 | 50.00, 60.00 |" in text


def test_a_note_takes_its_figures_from_the_tables(make: ModuleType, evidence: Path) -> None:
    claim = CLAIM | {"note": "The control has [[pets pets resnet18 gap]]."}
    assert "The control has 70.00 ± 2.48." in make.page({"commands": COMMANDS, "claims": [claim]}, evidence)[0]


def test_differences_of_a_further_axis_are_not_those_of_the_same_data_without_it(
    make: ModuleType, evidence: Path
) -> None:
    text, _ = make.page({"commands": COMMANDS, "claims": [CLAIM]}, evidence)
    for name in ("pets.csv", "pets.differences.csv"):
        lines = (evidence / name).read_text().splitlines()
        longer = [f"settings,{lines[0]}", *(f"long,{line}" for line in lines[1:])]
        (evidence / name.replace("pets", "textures")).write_text("\n".join(longer).replace("0.200000", "0.100000"))
    path = evidence / "textures.csv"
    path.write_text(path.read_text().replace("isqrt", "bdc"))  # differences alone are of isqrt
    both, _ = make.page({"commands": COMMANDS, "claims": [CLAIM | {"results": ["pets", "textures"]}]}, evidence)
    row = next(line for line in text.splitlines() if "`isqrt`" in line)
    assert row in both.splitlines()


def test_differences_of_fewer_seeds_than_the_results_are_refused(make: ModuleType, evidence: Path) -> None:
    path = evidence / "pets.differences.csv"
    path.write_text(path.read_text().replace("0 1 2", "0 1"))
    with pytest.raises(ZooError, match="gather again"):
        make.page({"commands": COMMANDS, "claims": [CLAIM]}, evidence)


def test_advice_takes_its_figures_from_the_tables_or_is_refused(evidence: Path) -> None:
    from evidence_tables import fill_in

    assert re.fullmatch(r"90\.00 ± 4\.97 beats \+20\.00 \(.*\)", fill_in(
        "[[pets pets resnet18 isqrt]] beats [[pets pets resnet18 isqrt - gap]]", evidence
    ))  # fmt: skip
    for wrong in ("[[pets pets resnet18 bdc]]", "[[pets cars resnet18 isqrt]]", "[[pets isqrt]]"):
        with pytest.raises(ZooError, match="claims.yaml"):
            fill_in(wrong, evidence)
    path = evidence / "pets.csv"
    lines = path.read_text().splitlines()
    both = [f"{name},{line}" for name in ("short", "long") for line in lines[1:]]
    path.write_text("\n".join([f"settings,{lines[0]}", *both]))
    with pytest.raises(ZooError, match="stands for 2 rows"):
        fill_in("[[pets pets resnet18 isqrt]]", evidence)


def test_a_training_in_two_tables_is_counted_once(make: ModuleType, evidence: Path) -> None:
    lines = (evidence / "pets.csv").read_text().splitlines()
    again = [f"settings,{lines[0]}", *(f"again,{line}" for line in lines[1:] if ",gap," in line or ",close," in line)]
    (evidence / "textures.csv").write_text("\n".join(again))
    text, _ = make.page({"commands": COMMANDS, "claims": [CLAIM | {"results": ["pets", "textures"]}]}, evidence)
    assert "12 trainings (6 of them in two tables), final epoch" in text


def test_records_of_trainings_must_agree_with_the_tables(evidence: Path) -> None:
    from evidence_tables import check_records

    known = {"run": "pets_isqrt_seed0", "top1": {"mean": 90.0, "seeds": [0, 1, 2]}}
    record = replace(get_record("resnet18_isqrt.digits"), trainings=known)
    lines = (evidence / "pets.csv").read_text().splitlines()
    one_seed = [lines[0], *(line for line in lines if "isqrt_seed1" in line or "isqrt_seed0" in line)]
    (evidence / "textures.csv").write_text("\n".join(one_seed))  # the same training, in another sweep with fewer seeds
    check_records([record, get_record("resnet18_isqrt.cub50")], evidence)
    with pytest.raises(ZooError, match=r"resnet18_isqrt\.digits: .* says 91\.0, docs/evidence 90\.00"):
        check_records([replace(record, trainings=known | {"top1": known["top1"] | {"mean": 91.0}})], evidence)
    with pytest.raises(ZooError, match="gather its sweep"):
        check_records([replace(record, trainings=known | {"run": "other"})], evidence)
