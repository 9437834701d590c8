"""The report of trainings: what is read, what is compared with what, and the page."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from sweep_folder import read_results, write_predictions, write_sweep

from gcpzoo.errors import ZooError
from gcpzoo.experiments.report import collect, compare, write_report
from gcpzoo.experiments.report.compare import calibration, confusion
from gcpzoo.experiments.report.write import _curve

HEADS = {"gap": {0: 0.60, 1: 0.62, 2: 0.61}, "isqrt": {0: 0.80, 1: 0.82, 2: 0.81}}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep", HEADS)


def test_every_head_is_compared_with_the_control_over_seeds_and_images(sweep: Path) -> None:
    [block] = compare(collect([sweep]))
    gap, isqrt = block.heads
    assert (block.control, gap.over_seeds, gap.over_images) == ("gap", None, None)
    assert gap.test is not None
    assert gap.test.mean == pytest.approx(0.61)
    assert isqrt.over_seeds is not None
    assert isqrt.over_images is not None
    assert (isqrt.over_seeds.n, isqrt.over_images.n) == (3, 200)
    assert isqrt.over_seeds.mean == pytest.approx(isqrt.over_images.mean) == pytest.approx(0.2)
    assert isqrt.over_images.excludes_zero
    assert isqrt.reached == [3, 3, 3]  # two thirds of 0.8 are below 0.6


def test_another_control_turns_the_differences_around(sweep: Path) -> None:
    [block] = compare(collect([sweep]), control="isqrt")
    assert block.heads[0].over_seeds is not None
    assert block.heads[0].over_seeds.mean == pytest.approx(-0.2)
    assert block.heads[0].reached == [None, None, None]
    with pytest.raises(ZooError, match="unknown control 'gapp': did you mean gap"):
        compare(collect([sweep]), control="gapp")


def test_heads_are_compared_on_the_same_data_only(tmp_path: Path) -> None:
    one = write_sweep(tmp_path / "one", HEADS)
    two = write_sweep(tmp_path / "two", {"isqrt": {0: 0.9}}, data="birds")
    pets, birds = compare(collect([one, two]))
    assert (pets.labels["data"], birds.labels["data"]) == ("pets", "birds")
    assert birds.heads[0].over_seeds is None
    assert birds.notes == ["No training of the control 'gap' is done here."]


def test_seeds_that_only_one_head_has_are_left_out_of_the_difference_and_named(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", {"gap": {0: 0.5, 1: 0.9}, "isqrt": {0: 0.6}})
    [block] = compare(collect([folder]))
    assert block.heads[1].over_seeds is not None
    assert block.heads[1].over_seeds.mean == pytest.approx(0.1)
    assert block.heads[1].over_seeds.low is None
    assert "only the seeds [0]" in block.notes[0]


def test_trainings_of_one_name_with_different_options_are_not_averaged(sweep: Path) -> None:
    table = sweep / "results.csv"
    lines = table.read_text().splitlines()
    recipes = ["recipe"] + ["a"] * (len(lines) - 4) + ["b"] * 3
    table.write_text("\n".join(f"{line},{recipe}" for line, recipe in zip(lines, recipes)) + "\n")
    with pytest.raises(ZooError, match=r"isqrt: seed 1 .* and seed 2 .* were trained with different options"):
        compare(collect([sweep]))


def test_other_test_images_are_not_paired(sweep: Path) -> None:
    write_predictions(sweep / "runs" / "pets_isqrt_seed1" / "test_predictions.csv", np.arange(199) < 163)
    [block] = compare(collect([sweep]))
    assert block.heads[1].over_images is None
    assert block.heads[1].over_seeds is not None
    assert "not paired by image" in block.notes[0]


def test_seeds_with_other_test_images_are_not_averaged_by_image(sweep: Path) -> None:
    for head in HEADS:
        path = sweep / "runs" / f"pets_{head}_seed1" / "test_predictions.csv"
        path.write_text(path.read_text().replace(".jpg", "_other.jpg"))
    [block] = compare(collect([sweep]))
    assert block.heads[1].over_images is None
    assert block.notes == ["isqrt: not paired by image, for the test images of one seed are not those of another."]


def test_why_there_is_no_interval_over_images_is_said(sweep: Path) -> None:
    (sweep / "runs" / "pets_gap_seed1" / "test_predictions.csv").unlink()
    [block] = compare(collect([sweep]))
    assert block.notes == ["isqrt: not paired by image, for only 2 of 3 seeds have predictions of both."]


@pytest.mark.parametrize("confidence", ["nan", "9.0", None])
def test_predictions_without_rows_or_probabilities_are_refused(sweep: Path, confidence: str | None) -> None:
    path = sweep / "runs" / "pets_gap_seed0" / "test_predictions.csv"
    text = path.read_text()
    path.write_text(text.replace("0.9000", confidence) if confidence else text.splitlines()[0] + "\n")
    with pytest.raises(ZooError, match="a row for each test image, with a probability from 0 to 1"):
        compare(collect([sweep]))


def test_a_spectrum_that_is_none_is_not_drawn(sweep: Path) -> None:
    path = sweep / "runs" / "pets_gap_seed0" / "spectrum.json"
    path.write_text('{"covariance": "abc", "normalized": [1, null], "other": [1, 0.5]}')
    assert collect([sweep])[0].spectrum() == {"other": [1, 0.5]}


def test_epochs_without_validation_are_counted_and_drawn_as_such(sweep: Path) -> None:
    table = sweep / "results.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    for row in rows[1:]:
        row[5] = "" if row[4] == "0" else row[5]  # as trainer.check_val_every_n_epoch leaves it
    table.write_text("\n".join(",".join(row) for row in rows if row[4] != "1") + "\n")  # and one epoch is lost
    [block] = compare(collect([sweep]))
    gap, isqrt = block.heads
    assert (gap.lengths, isqrt.reached) == ("3", [3, 3, 3])
    assert [row[0] for row in _curve(gap.runs)] == [3]


def test_minutes_are_not_those_of_one_training_that_stood_still(sweep: Path) -> None:
    table = sweep / "results.csv"
    lines = table.read_text().splitlines()
    last = [i for i, line in enumerate(lines) if ",gap,1,2," in line]
    lines[last[0]] = lines[last[0]].replace(",180.0,", ",9000,")
    table.write_text("\n".join(lines) + "\n")
    assert compare(collect([sweep]))[0].heads[0].minutes == "3.0"


def test_a_table_alone_gives_everything_but_what_needs_predictions(sweep: Path, tmp_path: Path) -> None:
    table = tmp_path / "evidence" / "pets.csv"
    table.parent.mkdir()
    table.write_bytes((sweep / "results.csv").read_bytes())
    for place in (table, table.parent):
        [block] = compare(collect([place]))
        assert block.heads[1].over_seeds is not None
        assert block.heads[1].over_images is None
    write_report([table], [tmp_path / "report.html"])
    assert "Calibration" not in (tmp_path / "report.html").read_text()


def test_runs_that_no_sweep_started_are_read(run_folder: Path) -> None:
    for place in (run_folder, run_folder.parent):
        [run] = collect([place])
        assert run.labels == {"data": "ImageFolder", "backbone": "resnet18", "head": "isqrt"}
        assert run.test is not None
        assert run.predictions() is not None
        assert float(run.predictions().right.mean()) == pytest.approx(run.test, abs=1e-6)  # type: ignore[union-attr]
        assert all(value is not None for value in run.curve("seconds"))


def test_what_holds_no_results_and_what_is_there_twice_is_refused(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZooError, match="holds no results"):
        collect([tmp_path / "empty"])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ZooError, match=r"must have the columns data, .* it lacks data"):
        collect([tmp_path / "other.csv"])
    with pytest.raises(ZooError, match="seed 0, is in .*leave one of them out"):
        collect([sweep, sweep / "results.csv"])
    text = (sweep / "results.csv").read_text().replace("pets,resnet18,gap,0,1", "pets,resnet18,gap,zero,1")
    (sweep / "results.csv").write_text(text)
    with pytest.raises(ZooError, match=r"results\.csv, line 3: .*zero"):
        collect([sweep])


def test_a_training_that_two_sweeps_share_counts_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    header = "data,backbone,head,seed,epoch,val/top1,test/top1,hash\n"
    shared = f"{header}pets,resnet18,gap,0,0,0.5,0.5,abc\n"
    one.write_text(f"{shared}pets,resnet18,isqrt,0,0,0.5,0.6,def\n")
    two.write_text(f"{shared}pets,resnet18,mine,0,0,0.5,0.7,fff\n")
    assert [run.labels["head"] for run in collect([one, two])] == ["gap", "isqrt", "mine"]
    for other in ("0.4,abc", "0.5,bcd", "0.5,"):  # another accuracy, other options, unknown ones
        two.write_text(f"{header}pets,resnet18,gap,0,0,0.5,{other}\n")
        with pytest.raises(ZooError, match="leave one of them out"):
            collect([one, two])


def test_calibration_is_the_distance_of_confidence_from_accuracy(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", {"gap": {0: 0.5}})  # right at 0.9, wrong at 0.6: 0.1 and 0.6 off
    measured = calibration(collect([folder]))
    assert measured is not None
    np.testing.assert_allclose(measured[0], [(0.6, 0.0, 100), (0.9, 1.0, 100)])
    assert measured[1] == pytest.approx(0.35)


def test_confusions_are_shares_of_the_true_class(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", {"gap": {0: 0.5}}, images=300)
    share, names = confusion(collect([folder]))  # type: ignore[misc]
    assert names == ["cat", "dog", "eel"]
    np.testing.assert_allclose(share, [[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]])


# --- the page


class Links(HTMLParser):
    """Collects what a page would fetch, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []  # type: ignore[list-item]
        self.fetched += [v for k, v in values.items() if k in ("src", "href", "xlink:href") and v and v[0] != "#"]


def test_the_page_stands_alone(sweep: Path, tmp_path: Path) -> None:
    write_report([sweep], [tmp_path / "report.html"], title="Cats <and> dogs")
    text = (tmp_path / "report.html").read_text()
    page = Links(text)
    assert "script" not in page.tags
    assert all(link.startswith("data:") for link in page.fetched)
    assert not re.findall(r"url\((?!#)", text)
    assert "Cats &lt;and&gt; dogs" in text
    assert len(page.ids) == len(set(page.ids))
    assert {f"#{i}" for i in page.ids} >= set(re.findall(r'href="(#[^"]+)"', text))
    assert page.tags.count("svg") == page.tags.count("figure") == 6
    for words in ("81.00 ± 2.48", "+20.00 (+20.00 to +20.00)", "three seeds alone prove little", "bootstrap"):
        assert words in text
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
        assert "currentColor" in svg
        assert "#000000" not in svg


def test_names_of_classes_and_heads_cannot_break_the_page(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", {"gap": {0: 0.5}, "$x_<b>": {0: 0.6}}, data="a$&\"'b$^")
    path = folder / "runs" / folder.name
    for path in folder.glob("runs/*/test_predictions.csv"):
        path.write_text(path.read_text().replace("cat", "$\\frac<script>alert(1)</script>"))
    write_report([folder], [tmp_path / "report.html", tmp_path / "report.md"])
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
    assert "<script" not in (tmp_path / "report.md").read_text()


def test_markdown_has_its_figures_beside_it(sweep: Path, tmp_path: Path) -> None:
    write_report([sweep], [tmp_path / "report.md"])
    text = (tmp_path / "report.md").read_text()
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(links) == 6
    for link in links:
        svg = (tmp_path / link).read_text()
        ElementTree.fromstring(svg)
        assert "prefers-color-scheme" in svg
    assert "| pets · resnet18 | isqrt | 3 | 81.00 ± 2.48 |" in text


def test_unfinished_trainings_are_listed_not_counted(sweep: Path, tmp_path: Path) -> None:
    with (sweep / "results.csv").open("a") as file:
        file.write("pets,resnet18,bcnn,0,,,,,,failed,the head broke,,,x\n")
    [block] = write_report([sweep], [tmp_path / "report.html"])
    assert [head.unfinished for head in block.heads] == [0, 0, 1]
    text = (tmp_path / "report.html").read_text()
    assert "the head broke" in text
    assert "6 of 7 trainings are done" in text


def test_nothing_done_and_other_formats_are_refused(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", {"gap": {0: 0.5}})
    with pytest.raises(ZooError, match=r"must end in \.html or \.md"):
        write_report([folder], [tmp_path / "report.pdf"])
    lines = (folder / "results.csv").read_text().splitlines()
    (folder / "results.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ZooError, match="no training is done yet"):
        write_report([folder], [tmp_path / "report.html"])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("test/top1", "82", "line 19: test/top1 must be a share, from 0 to 1, got 82"),
        ("test/top1", "nan", "line 19: test/top1 must be a finite number, got nan"),
        ("epoch", "1", r"line 19: epoch 1 of pets · resnet18 · isqrt, seed 2, stands there twice"),
        ("epoch", "-1", "line 19: epoch must be a whole number of at least 0, got -1"),
        ("test/top1", "0.99", r"seed2/test_predictions\.csv has 0\.8100 right, .*results\.csv test/top1 0\.9900"),
    ],
)
def test_a_table_that_no_training_wrote_is_refused(sweep: Path, column: str, value: str, message: str) -> None:
    rows = read_results(sweep)
    rows[-1][column] = value
    with (sweep / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ZooError, match=message):
        compare(collect([sweep]))


def test_a_table_that_lost_the_end_of_a_row_is_refused_and_a_mark_before_its_text_is_read(sweep: Path) -> None:
    table = sweep / "results.csv"
    text = table.read_text()
    table.write_text(text, encoding="utf-8-sig")
    assert len(collect([sweep])) == 6
    table.write_text(text.rstrip().rpartition(",")[0])
    with pytest.raises(ZooError, match="must have as many cells as the first line"):
        collect([sweep])


def test_a_control_that_was_trained_for_other_epochs_is_named(tmp_path: Path) -> None:
    one = write_sweep(tmp_path / "one", {"gap": {0: 0.6}})
    other = write_sweep(tmp_path / "other", {"isqrt": {0: 0.7}}, epochs=9)
    [block] = compare(collect([one, other]))
    assert block.notes == ["isqrt: trained for 9 epochs, the control for 3."]
