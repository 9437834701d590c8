"""Gradients, landscape, sharpness and corruptions as measurements of the kit: tables, figures, what they need."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gcpzoo.analysis.measurements import analyze as kit
from gcpzoo.analysis.measurements import corruptions, gradients, landscape, sharpness, subject
from gcpzoo.analysis.measurements.subject import Snapshot, Subject
from gcpzoo.cli.main import main
from gcpzoo.data import Digits
from gcpzoo.models import GCPNet, create_model

Rows = dict[str, list[dict[str, str]]]
PROBES = ("gradients", "landscape", "sharpness", "corruptions")


def network(head: str, seed: int = 0) -> GCPNet:
    torch.manual_seed(seed)
    return create_model("resnet18", head, 10, dim=None if head == "gap" else 4, until="layer1").eval()


def measured(**options: Any) -> Subject:
    data = Digits(image_size=16, batch_size=4)
    return Subject("mine", network("isqrt"), data, images=4, severities=(2,), **options)


@pytest.fixture(scope="module")
def short() -> Iterator[None]:
    """Few steps, positions and corruptions."""
    pytest.importorskip("corrupt_tta", reason="the extra 'analyze' is not installed")
    few: list[tuple[Any, dict[str, Any]]] = [
        (gradients, {"STEM_STEPS": (-64.0,), "WEIGHT_STEPS": (0.1, 0.2)}),
        (landscape, {"LINE": (-1.0, 0.0, 1.0), "PLANE": (-1.0, 0.0, 1.0), "DIRECTIONS": 2, "WIDTH_POINTS": 2}),
        (sharpness, {"RHOS": (0.1, 0.5), "STEPS": 2, "ITERATIONS": 3}),
        (corruptions, {"STANDARD": ("contrast", "gaussian_noise"), "EXTRA": ("saturate",)}),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for module, values in few:
            for name, value in values.items():
                patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def written(short: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    folder = tmp_path_factory.mktemp("analysis")
    both = measured(control=network("gap"), control_name="gap", extra_corruptions=True)
    before = [t.clone() for _, model in both.networks() for t in model.state_dict().values()]
    results = kit.analyze(both, folder, PROBES)
    assert [r.measurement.name for r in results] == list(PROBES)
    after = [t for _, model in both.networks() for t in model.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(module.training for _, model in both.networks() for module in model.modules())
    tables = {}
    for name in PROBES:
        with (folder / f"{name}.csv").open(newline="") as file:
            tables[name] = list(csv.DictReader(file))
    return folder, tables


def test_each_measurement_has_a_table_of_both_networks_and_a_figure(written: tuple[Path, Rows]) -> None:
    folder, tables = written
    for name, rows in tables.items():
        assert {row["model"] for row in rows} == {"mine", "gap"}
        assert {row["images"] for row in rows} == {"4"}
        svg = (folder / f"{name}.svg").read_text()
        assert f'aria-label="{name}: mine, gap"' in svg
        assert ">mine<" in svg


def test_gradients_are_measured_after_the_stem_upwards_and_by_the_weights_downwards(written: Any) -> None:
    mine = [row for row in written[1]["gradients"] if row["model"] == "mine"]
    assert [(row["point"], float(row["eta"])) for row in mine] == [
        ("output of backbone.maxpool", 0.0), ("output of backbone.maxpool", -1.0),  # 64 · 4 of 256 images
        ("weights", 0.0), ("weights", 0.1), ("weights", 0.2),
    ]  # fmt: skip
    assert float(mine[1]["loss"]) > float(mine[0]["loss"]) == pytest.approx(float(mine[2]["loss"]), rel=1e-5)
    for row in mine:
        moved = float(row["eta"]) != 0
        assert bool(row["smoothness"]) == moved
        if moved:
            ratio = float(row["change"]) / float(row["distance"])
            assert float(row["smoothness"]) == pytest.approx(ratio, rel=1e-4)


def test_a_landscape_is_two_lines_with_their_widths_and_a_plane_through_one_point(written: Any) -> None:
    mine = [row for row in written[1]["landscape"] if row["model"] == "gap"]
    kinds = [(row["kind"], row["direction"]) for row in mine]
    for k in ("0", "1"):
        assert kinds.count(("line", k)) == 3
        assert kinds.count(("width at twice the loss", k)) == 1
    plane = {(float(r["a"]), float(r["b"])): float(r["loss"]) for r in mine if r["kind"] == "plane"}
    assert len(plane) == 9
    for k in (0, 1):
        for row in (r for r in mine if (r["kind"], r["direction"]) == ("line", str(k))):
            a = float(row["a"])
            assert float(row["loss"]) == pytest.approx(plane[(a, 0.0) if k == 0 else (0.0, a)], rel=1e-4)


def test_sharpness_is_measured_at_each_radius_and_curvature_once(written: Any) -> None:
    mine = [row for row in written[1]["sharpness"] if row["model"] == "mine"]
    assert [(row["measure"], row["rho"]) for row in mine] == [
        ("adaptive sharpness", "0.1"), ("adaptive sharpness", "0.5"), ("largest eigenvalue of the Hessian", ""),
    ]  # fmt: skip
    assert float(mine[1]["value"]) > float(mine[0]["value"]) > 0
    assert float(mine[2]["value"]) > 0
    assert float(mine[2]["residual"]) > 0


def test_corruptions_are_counted_and_compared_with_the_control(written: Any) -> None:
    rows = written[1]["corruptions"]
    counted = [row for row in rows if row["top1"]]
    expected = [("none", "0"), ("contrast", "2"), ("gaussian_noise", "2"), ("saturate", "2")]
    assert [(r["corruption"], r["severity"]) for r in counted if r["model"] == "mine"] == expected
    errors = {r["corruption"]: r["error_to_control"] for r in rows if not r["top1"]}
    assert list(errors) == ["contrast", "gaussian_noise", "mean"]  # the extra ones do not count
    wrong = {(r["model"], r["corruption"]): 1 - float(r["top1"]) for r in counted}
    for name in ("contrast", "gaussian_noise"):
        ours, theirs = wrong["mine", name], wrong["gap", name]
        assert errors[name] == (f"{100 * ours / theirs:.6g}" if theirs else "")


def test_the_same_seed_gives_the_same_tables(written: Any, tmp_path: Path) -> None:
    for measurement in (sharpness.SHARPNESS, corruptions.CORRUPTIONS):
        kit._write_table(tmp_path / "again.csv", measurement.run(measured(extra_corruptions=True)))
        again = (tmp_path / "again.csv").read_text().splitlines()
        assert len(again) > 3
        assert set(again) <= set((written[0] / f"{measurement.name}.csv").read_text().splitlines())


def test_gradients_are_measured_through_training(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [Snapshot(epoch, 10 * epoch, Path(f"{epoch}.ckpt")) for epoch in (1, 2)]
    monkeypatch.setattr(subject, "load_task_checkpoint", lambda path: network("isqrt", seed=int(path.stem)))
    both = measured(snapshots=kept, history=[{"epoch": 3}], control=network("gap"), control_name="gap")
    rows = gradients.GRADIENTS.run(both)
    found = list(dict.fromkeys((row["model"], row["source"], row["epoch"], row["step"]) for row in rows))
    assert found == [
        ("mine", "checkpoint", 1, 10), ("mine", "checkpoint", 2, 20), ("mine", "final", 3, None),
        ("gap", "final", None, None),
    ]  # fmt: skip
    axis = gradients.GRADIENTS.draw(rows).axes[2]
    assert axis.get_xlabel() == "epoch"
    (line,) = axis.lines
    highest = [
        max(r["loss"] for r in rows if (r["epoch"], r["point"]) == (e, "weights") and r["eta"]) for e in (1, 2, 3)
    ]
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == highest
    assert len(axis.patches) == 1  # the control, whose epoch is not known


def test_the_training_images_count_where_there_are_some() -> None:
    own = measured()
    assert own.loss_split() == "train"
    own.data.samples = lambda split: {"test": [(torch.zeros(1, 8, 8), 0)]}.get(split, [])  # type: ignore[method-assign]
    assert own.loss_split() == "test"


def test_a_measurement_whose_extra_is_missing_stops_all_before_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "corrupt_tta" else find(name, *a))
    arguments = ["analyze", "resnet18_isqrt.digits", "--data", "Digits", "--only", "spectrum,corruptions"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert "corruptions needs the module corrupt_tta, or leave it out by --only" in error
    assert "pip install 'gcpzoo[analyze]'" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", ["0", "6", "1,1", "", "1;2", "two"])
def test_severities_must_be_different_numbers_from_1_to_5(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "resnet18_isqrt.digits", "--data", "Digits", "--severities", bad]) == 2
    assert "--severities must be different numbers from 1 to 5" in capsys.readouterr().err
