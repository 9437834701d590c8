"""The frame of the analysis kit: which images are drawn, which files come out, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from gcpzoo.analysis.measurements import analyze as kit
from gcpzoo.analysis.measurements.confidence import CALIBRATION
from gcpzoo.analysis.measurements.spectra import CONDITIONING, SPECTRUM
from gcpzoo.analysis.measurements.subject import Measurement, Snapshot, Subject, find_snapshots
from gcpzoo.data import Digits
from gcpzoo.data.base import Index
from gcpzoo.errors import ZooError
from gcpzoo.hub.run_checkpoint import describe_run
from gcpzoo.models import GCPNet, create_model


def network(head: str = "isqrt", seed: int = 0, **options: object) -> GCPNet:
    torch.manual_seed(seed)
    dim = None if head == "gap" else 8
    return create_model("resnet18", head, 10, dim=dim, until="layer1", **options).eval()  # type: ignore[arg-type]


def data(**options: object) -> Digits:
    return Digits(image_size=16, batch_size=50, **options)  # type: ignore[arg-type]


class Mislabeled(Digits):
    """Digits of which every sixth has a wrong label, so that a sure network is wrong there."""

    def index(self) -> Index:
        found = super().index()
        wrong = {
            split: [(image, (label + (i % 6 == 0)) % 10) for i, (image, label) in enumerate(samples)]
            for split, samples in found.splits.items()
        }
        return Index(found.class_names, wrong)


@pytest.fixture(scope="module")
def subject() -> Subject:
    both = data(val_fraction=0.1)
    return Subject("mine", network(), both, control=network("gap"), control_name="gap", images=40)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class TestImages:
    def test_the_seed_draws_the_same_images_for_every_measurement(self) -> None:
        first, again, other = (Subject("a", network(), data(), seed=seed) for seed in (3, 3, 4))
        one, two, three = (torch.cat([x for x, _ in s.pixels("test", 60)]) for s in (first, again, other))
        assert one.dtype == torch.uint8
        assert len(one) == 60
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
        assert torch.equal(one, torch.cat([x for x, _ in first.pixels("test", 60)]))  # from memory

    def test_labels_stay_with_their_images(self) -> None:
        own = data()
        everything, labels = (torch.cat(t) for t in zip(*Subject("a", network(), own).pixels("test")))
        assert labels.tolist() == [label for _, label in own.samples("test")]
        some, few = (torch.cat(t) for t in zip(*Subject("a", network(), own).pixels("test", 20)))
        for image, label in zip(some, few):
            same = (everything == image).flatten(1).all(1)
            assert label in labels[same]

    def test_batches_are_normalized_as_the_model_expects(self) -> None:
        s = Subject("a", network(), data(), precision=torch.float64)
        (pixels, _), (images, _) = next(s.pixels("test", 4)), next(s.batches("test", 4))
        torch.testing.assert_close(images.float(), s.data.preprocessing.normalize(pixels))
        assert images.dtype == torch.float64

    def test_a_network_of_other_classes_or_of_clips_is_refused(self) -> None:
        with pytest.raises(ZooError, match="two knows 2 classes, the data have 10"):
            Subject("two", create_model("resnet18", "gap", 2, until="layer1"), data())
        with pytest.raises(ZooError, match="film reads clips"):
            Subject("film", network("tcp", head_args={"frames": 2}), data())

    def test_a_control_of_the_same_name_stays_apart(self) -> None:
        s = Subject("a", network(), data(), control=network("gap"), control_name="a")
        assert [name for name, _ in s.networks()] == ["a", "a (control)"]


class TestFiles:
    def test_each_measurement_writes_a_table_and_a_figure(self, subject: Subject, tmp_path: Path) -> None:
        told: list[str] = []
        only = ["conditioning", "spectrum"]
        results = kit.analyze(subject, tmp_path / "a", only, {"seed": 0}, tell=told.append)
        assert told == [r.measurement.name for r in results] == ["spectrum", "conditioning"]
        assert {p.name for p in (tmp_path / "a").iterdir()} == {
            "spectrum.csv", "spectrum.svg", "conditioning.csv", "conditioning.svg", "about.json"
        }  # fmt: skip
        about = json.loads((tmp_path / "a" / "about.json").read_text())
        assert about["seed"] == 0
        assert about["measurements"]["spectrum"] == SPECTRUM.corresponds_to
        assert 'aria-label="spectrum: mine, gap"' in (tmp_path / "a" / "spectrum.svg").read_text()
        kit.analyze(subject, tmp_path / "b", ["spectrum"])
        for name in ("spectrum.csv", "spectrum.svg"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_tables_of_other_networks_are_not_left_beside_these(self, subject: Subject, tmp_path: Path) -> None:
        (tmp_path / "roots.csv").write_text("of another network\n")
        (tmp_path / "about.json").write_text('{"models": {"other": 1}}')
        with pytest.raises(ZooError, match=r"holds roots\.csv of other models: give another output"):
            kit.analyze(subject, tmp_path, ["conditioning"], {"models": {"mine": 1}})
        kit.analyze(subject, tmp_path, ["conditioning"], {"models": {"other": 1}})
        assert (tmp_path / "roots.csv").is_file()

    def test_a_measurement_without_rows_writes_nothing(
        self, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        none = Measurement("none", lambda s: [], lambda rows: None, "nothing")
        monkeypatch.setitem(kit.MEASUREMENTS, "none", none)
        (tmp_path / "none.csv").write_text("of another network, analyzed before\n")
        (result,) = kit.analyze(subject, tmp_path, ["none"])
        assert result.rows == []
        assert [p.name for p in tmp_path.iterdir()] == ["about.json"]

    def test_what_is_not_known_is_empty_and_what_is_infinite_says_so(
        self, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [{"a": None, "b": math.inf, "c": 0.123456789, "d": 1234567}]
        draw = SPECTRUM.draw
        monkeypatch.setitem(kit.MEASUREMENTS, "x", Measurement("x", lambda s: rows, lambda _: draw([]), "x"))
        kit.analyze(subject, tmp_path, ["x"])
        assert read(tmp_path / "x.csv") == [{"a": "", "b": "inf", "c": "0.123457", "d": "1234567"}]


class TestSpectra:
    def test_both_networks_stand_in_one_table(self, subject: Subject) -> None:
        rows = SPECTRUM.run(subject)
        kinds = {(row["model"], row["matrix"]) for row in rows}
        assert kinds == {("mine", "covariance"), ("mine", "normalized"), ("gap", "covariance")}
        first = [row for row in rows if row["model"] == "mine" and row["matrix"] == "covariance"]
        assert [row["index"] for row in first] == list(range(1, 9))
        assert first[0]["relative"] == 1
        values = [row["eigenvalue"] for row in first]
        assert values == sorted(values, reverse=True)

    def test_a_root_halves_the_condition_number_in_digits(self) -> None:
        (row, root) = CONDITIONING.run(Subject("a", network("mpn_cov"), data(), images=40))
        assert (row["matrix"], root["matrix"]) == ("covariance", "normalized")
        assert row["matrices"] == 40
        assert root["condition_nonzero"] == pytest.approx(math.sqrt(row["condition_nonzero"]), rel=1e-3)
        bars = CONDITIONING.draw([row, root]).axes[0].patches  # no epoch is known
        assert [bar.get_width() for bar in bars] == [row["condition_nonzero"], root["condition_nonzero"]]

    def test_checkpoints_and_what_the_run_logged_make_the_series(self, tmp_path: Path) -> None:
        for epoch, step in ((1, 20), (0, 10), (1, 20)):
            net = network(seed=epoch)
            state = {f"model.{k}": v for k, v in net.state_dict().items()}
            content = {"state_dict": state, "gcpzoo": describe_run(net, None), "epoch": epoch, "global_step": step}
            path = tmp_path / "checkpoints" / f"{epoch}-{step}.ckpt"
            path.parent.mkdir(exist_ok=True)
            torch.save(content, path)
            torch.save(content, path.with_name("last.ckpt"))
        snapshots = find_snapshots(tmp_path)
        assert snapshots == [Snapshot(e, s, tmp_path / f"checkpoints/{e}-{s}.ckpt") for e, s in ((0, 10), (1, 20))]
        logged = {"spectrum/effective_rank": 3.0, "spectrum/rank": 4.0, "spectrum/condition": None}
        history = [{"epoch": e, **logged, "spectrum/condition_nonzero": 9.0} for e in (0, 1)]
        subject = Subject("a", network(seed=1), data(), images=20, history=history, snapshots=snapshots)
        rows = [row for row in CONDITIONING.run(subject) if row["matrix"] == "covariance"]
        assert [(row["source"], row["epoch"], row["step"]) for row in rows] == [
            ("checkpoint", 0, 10), ("checkpoint", 1, 20), ("final", 1, None),
            ("logged by the run", 0, None), ("logged by the run", 1, None),
        ]  # fmt: skip
        assert rows[0]["effective_rank"] != rows[1]["effective_rank"] == rows[2]["effective_rank"]
        assert rows[3]["condition"] == math.inf
        figure = CONDITIONING.draw(rows)
        assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [[0, 1, 1], [0, 1]]


class TestCalibration:
    def test_the_temperature_comes_from_the_validation_images(self, subject: Subject) -> None:
        rows = CALIBRATION.run(subject)
        whole = {(row["model"], row["scaling"]): row for row in rows if row["bin"] == "all"}
        assert whole.keys() >= {("mine", "as trained"), ("gap", "as trained")}
        for row in whole.values():
            bins = [
                r for r in rows if (r["model"], r["scaling"]) == (row["model"], row["scaling"]) and r["bin"] != "all"
            ]
            assert sum(r["images"] for r in bins) == row["images"] == 40
            error = sum(r["images"] * abs(r["confidence"] - r["accuracy"]) for r in bins) / 40
            assert row["ece"] == pytest.approx(error)

    def test_without_validation_images_there_is_no_temperature(self) -> None:
        for own in (data(), data(val_on_test=True)):
            rows = CALIBRATION.run(Subject("a", network(), own, images=40))
            assert {row["scaling"] for row in rows} == {"as trained"}
            assert rows[0]["note"] == "no validation images to fit a temperature on"

    def test_a_network_that_is_too_sure_is_cooled(self) -> None:
        from gcpzoo.hub.loading import load

        model = load("resnet18_isqrt.digits")
        with torch.no_grad():
            for p in model.classifier.parameters():
                p.mul_(3)
        own = Mislabeled(val_fraction=0.3, batch_size=60, preprocessing=model.preprocessing)
        rows = CALIBRATION.run(Subject("sure", model, own, images=120))
        before, after = (row for row in rows if row["bin"] == "all")
        assert after["temperature"] > 1.5
        assert after["nll"] < before["nll"]
        assert after["accuracy"] == before["accuracy"]
