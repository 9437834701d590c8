"""``checkpoints/add.py``: a training of a sweep becomes a checkpoint, or nothing is written."""

from __future__ import annotations

import argparse
import importlib.util
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from sweep_folder import write_sweep

import gcpzoo
from gcpzoo.cli.demo import PRETRAINED
from gcpzoo.errors import ZooError
from gcpzoo.experiments.folder.advice import BACKBONE
from gcpzoo.hub import save_local
from gcpzoo.hub.records import IN_PACKAGE, get_record, parse_record
from gcpzoo.hub.trainings import over_seeds
from gcpzoo.models.preprocessing import Preprocessing

ROOT = Path(__file__).parents[1]
SHARES = {"gap": {0: 0.70, 1: 0.71, 2: 0.69}, "isqrt": {0: 0.80, 1: 0.82, 2: 0.78}}


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("add", ROOT / "checkpoints" / "add.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def sweep(tmp_path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep with the files of its trainings; the network, and what is measured with it, are stood in for."""
    output = write_sweep(tmp_path / "output", SHARES)
    (output / "sweep.json").write_text(json.dumps({"file": "pets.yaml", "control": "gap"}))
    model = {"optimizer": {"name": "AdamW", "lr": 0.001, "classifier_lr_factor": 10.0, "weight_decay": 0.01},
             "schedule": {"name": "cosine"}, "label_smoothing": 0.1, "frozen": ["conv1"]}  # fmt: skip
    data = {"class_path": "gcpzoo.data.ImageFolder", "init_args": {"root": "/data", "batch_size": 16}}
    for run in (output / "runs").iterdir():
        _, head, seed = run.name.split("_")
        share = SHARES[head][int(seed[-1])]
        report = {
            "fit": {"epochs": 3}, "seed": int(seed[-1]), "hardware": "a machine", "model": {"head": head},
            "checkpoint": {"kept": "final", "epoch": 3}, "data": {"images": {"train": 180, "val": 20, "test": 200}},
            "test": {"top1": share, "top5": 1.0, "per_class": share, "images": 200},
        }  # fmt: skip
        (run / "metrics.json").write_text(json.dumps(report))
        config = {"model": model, "data": data, "trainer": {"precision": None, "max_epochs": 3}}
        (run / "config.yaml").write_text(yaml.safe_dump(config))

    def load(path: Path) -> Any:
        head = path.parents[1].name.split("_")[1]
        network = gcpzoo.create_model("resnet18", head, 3, until="layer1", dim=None if head == "gap" else 4)
        network.class_names, network.preprocessing = ["a", "b", "c"], Preprocessing(resize=32, crop=32)
        return network

    monkeypatch.setattr(gcpzoo, "load", load)
    measured = iter([{}, {"top1": 0.801}])  # unrounded as in the run, then in 16 bit
    monkeypatch.setattr(module, "measure", lambda *_: report_of(output, "isqrt")["test"] | next(measured))
    return output


def report_of(output: Path, head: str) -> dict[str, Any]:
    return dict(json.loads((output / "runs" / f"pets_{head}_seed0" / "metrics.json").read_text()))


def arguments(run: Path, **own: Any) -> argparse.Namespace:
    given = {"tag": "pets", "control": None, "root": None, "licence": "MIT", "provenance": "us", "data": "Pets (us)"}
    return argparse.Namespace(run=str(run), **given | {"caveat": [], "dtype": "float16", "replace": False} | own)


def test_a_record_tells_the_sweep_its_control_and_what_16_bit_changed(
    module: ModuleType, sweep: Path, tmp_path: Path
) -> None:
    place = tmp_path / "checkpoints"
    name = module.add(arguments(sweep / "runs" / "pets_isqrt_seed0"), place)
    assert name == "resnet18_isqrt.pets"
    record = parse_record((place / "records" / f"{name}.yaml").read_text(), name)
    assert record.metrics["top1"] == 80.1
    assert record.control == {"head": "gap", "top1": 70.0, "top5": 100.0, "per_class": 70.0}
    assert record.data == "Pets (us): 180 to train, 20 to choose by, 200 test images"
    known = record.trainings
    assert known["unrounded"]["top1"] == 80.0
    assert (known["in_run"]["top1"], known["sweep"], known["weights"]) == (80.0, "pets.yaml", "float16")
    assert known["choice"] == "the first of the seeds 0, 1, 2; not chosen by its accuracy"
    assert known["top1"] == {"mean": 80.0, "low": 75.03, "high": 84.97, "seeds": [0, 1, 2]}
    assert over_seeds(known) == (
        "80.00 (95 % interval 75.03 to 84.97, seeds 0, 1, 2); with gap 70.00 (95 % interval 67.52 to 72.48, "
        "seeds 0, 1, 2); difference +10.00 (95 % interval +7.52 to +12.48, seeds 0, 1, 2)"
    )
    stored = (place / f"{name}.safetensors").read_bytes()
    assert len(stored) == record.size
    with pytest.raises(ZooError, match="--replace"):
        module.add(arguments(sweep / "runs" / "pets_isqrt_seed0"), place)


def test_a_control_can_be_added_too_and_has_none_itself(
    module: ModuleType, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "measure", lambda *_: report_of(sweep, "gap")["test"])
    name = module.add(arguments(sweep / "runs" / "pets_gap_seed0"), tmp_path / "own")
    record = parse_record((tmp_path / "own" / "records" / f"{name}.yaml").read_text(), name)
    assert record.control is None
    assert record.trainings["control"] is None


def test_a_control_that_the_zoo_has_is_named_with_its_figures(
    module: ModuleType, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, reached = get_record("resnet18_gap.tinyimagenet100"), {"top1": 70.0, "top5": 100.0, "per_class": 70.0}
    known = replace(known, metrics={"top1": 69.9}, trainings={"run": "pets_gap_seed0", "in_run": reached})
    monkeypatch.setattr(module.records, "list_models", lambda: ["one"])
    monkeypatch.setattr(module.records, "get_record", {"one": known}.get)
    name = module.add(arguments(sweep / "runs" / "pets_isqrt_seed0"), tmp_path / "own")
    record = parse_record((tmp_path / "own" / "records" / f"{name}.yaml").read_text(), name)
    assert record.control == {"record": known.name, "head": "gap", "top1": 69.9}
    other = replace(known, trainings=known.trainings | {"in_run": reached | {"top1": 71.0}})  # of the same name alone
    monkeypatch.setattr(module.records, "get_record", {"one": other}.get)
    found = module.find_in_sweep((sweep / "runs" / "pets_isqrt_seed0").resolve())
    assert module.control_of(found, None, report_of(sweep, "isqrt")) == {"head": "gap", **reached}


@pytest.mark.parametrize(
    ("head", "seed", "own", "told"),
    [
        ("isqrt", 1, {}, "must be of the first seed, 0"),
        ("isqrt", 0, {"control": "elsewhere"}, "names its own"),
        ("gap", 0, {}, r"before the rounding: top-1 must agree to 1 points .* got 80\.00 % .* for 70\.00 %"),
    ],
)
def test_what_is_refused_writes_nothing(
    head: str, seed: int, own: dict[str, str], told: str, module: ModuleType, sweep: Path, tmp_path: Path
) -> None:
    with pytest.raises(ZooError, match=told):
        module.add(arguments(sweep / "runs" / f"pets_{head}_seed{seed}", **own), tmp_path / "checkpoints")
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"test": None}, "a training with its test, but metrics.json has no test"),
        ({"fit": {"epochs": 2}}, "must have ended, but only 2 of 3 epochs are done"),
        ({"checkpoint": {"kept": "best", "epoch": 2}}, "tested in its best epoch, but the zoo takes the final one"),
    ],
)
def test_a_training_that_does_not_stand_for_its_final_epoch_is_refused(
    change: dict[str, Any], told: str, module: ModuleType, sweep: Path, tmp_path: Path
) -> None:
    run = sweep / "runs" / "pets_isqrt_seed0"
    report = {key: value for key, value in (report_of(sweep, "isqrt") | change).items() if value is not None}
    (run / "metrics.json").write_text(json.dumps(report))
    with pytest.raises(ZooError, match=told):
        module.add(arguments(run), tmp_path / "checkpoints")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "must have the run's seed, 0, got 1"),
        ({"data": {"images": {"test": 9}}}, "must have the run's images, .*, got {'test': 9}"),
        ({"model": {"head": "gap", "backbone": "resnet50"}}, "must have the run's backbone, None, got resnet50"),
    ],
)
def test_a_control_of_other_images_backbone_or_seed_is_refused(
    change: dict[str, Any], told: str, module: ModuleType, sweep: Path, tmp_path: Path
) -> None:
    (sweep / "results.csv").unlink()  # runs outside a sweep
    run, control = (sweep / "runs" / f"pets_{head}_seed0" for head in ("isqrt", "gap"))
    (control / "metrics.json").write_text(json.dumps(report_of(sweep, "gap") | change))
    with pytest.raises(ZooError, match=told):
        module.add(arguments(run, control=str(control)), tmp_path / "checkpoints")


def test_weights_stay_as_they_were_where_the_record_cannot_be_written(
    module: ModuleType, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "checkpoints"
    place.mkdir()
    (place / "resnet18_isqrt.pets.safetensors").write_bytes(b"of before")
    run = sweep / "runs" / "pets_isqrt_seed0"
    with pytest.raises(ZooError, match="safetensors exists: give another tag, or --replace"):
        module.add(arguments(run), place)
    with pytest.raises(ZooError, match="TAG must be of small letters, digits and _, got '../pets'"):
        module.add(arguments(run, tag="../pets"), place)
    (place / "records").write_text("a file where the folder should be")
    with pytest.raises(ZooError, match="cannot be written"):
        module.add(arguments(run, replace=True), place)
    assert (place / "resnet18_isqrt.pets.safetensors").read_bytes() == b"of before"
    assert not [file for file in place.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("head", ["gap", "isqrt"])
def test_a_cell_with_unfinished_trainings_is_refused(
    head: str, module: ModuleType, sweep: Path, tmp_path: Path
) -> None:
    table = sweep / "results.csv"
    lines = table.read_text().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if line.startswith(f"pets,resnet18,{head},2,2,"))
    table.write_text("".join(lines[:last] + lines[last + 1 :]))
    with pytest.raises(ZooError, match="1 trainings are unfinished: end the sweep first"):
        module.add(arguments(sweep / "runs" / "pets_isqrt_seed0"), tmp_path / "checkpoints")


def test_a_rounding_that_costs_accuracy_is_refused(module: ModuleType) -> None:
    test = {"top1": 0.8, "images": 400}
    module.check_agreement("in float16", test | {"top1": 0.7975}, test, 0.3)  # one image
    with pytest.raises(ZooError, match=r"in float16: top-1 must agree to 0\.3 points"):
        module.check_agreement("in float16", test | {"top1": 0.795}, test, 0.3)
    with pytest.raises(ZooError, match="of 399 images"):
        module.check_agreement("in float16", test | {"images": 399}, test, 0.3)


def test_weights_too_large_alone_or_together_are_refused(module: ModuleType, tmp_path: Path) -> None:
    module.check_size("new", 13_000_000, tmp_path)
    with pytest.raises(ZooError, match=r"at most 13 MB, got 13\.1"):
        module.check_size("new", 13_100_000, tmp_path)
    for name in ("a", "b", "c", "d", "new"):
        with (tmp_path / f"{name}.safetensors").open("wb") as file:
            file.truncate(12_500_000)
    module.check_size("new", 10_000_000, tmp_path)  # it takes the place of the former one
    with pytest.raises(ZooError, match=r"60 MB at most, got 50\.0 \+ 10\.1"):
        module.check_size("new", 10_100_000, tmp_path)


def test_weights_that_16_bit_cannot_hold_are_refused(module: ModuleType) -> None:
    model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
    with torch.no_grad():
        model.classifier.bias[0] = 1e5
    with pytest.raises(ZooError, match=r"classifier\.bias does not fit into float16: give --dtype bfloat16"):
        module.check_weights(model, "float16")
    module.check_weights(model, "bfloat16")


def test_the_package_carries_what_its_first_commands_begin_with_and_the_repository_at_most_60_mb() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    carried = {Path(source).name for source in build["force-include"] if source.endswith(".safetensors")}
    assert carried == {f"{name}.safetensors" for name in IN_PACKAGE}
    assert {BACKBONE, PRETRAINED} <= IN_PACKAGE
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {name for name in gcpzoo.list_models() if name in readme} <= IN_PACKAGE
    embedded = [get_record(n) for n in gcpzoo.list_models() if get_record(n).kind == "embedded"]
    assert {r.availability for r in embedded if r.name in IN_PACKAGE} == {"in the package"}
    assert all(r.availability == "in the repository" for r in embedded if r.name not in IN_PACKAGE)
    sizes = {r.name: (ROOT / "checkpoints" / r.source["file"]).stat().st_size for r in embedded}
    assert sizes == {r.name: r.size for r in embedded}
    assert max(sizes.values()) <= 13_000_000
    assert sum(sizes.values()) <= 60_000_000


def test_weights_of_the_repository_are_found_in_a_clone_or_it_is_said_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gcpzoo.hub import records

    name, place, clone = "resnet18_gap.large", tmp_path / "package" / "records", tmp_path / "clone"
    place.mkdir(parents=True)
    model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
    model.preprocessing = Preprocessing(resize=32, crop=32)
    digest = save_local(model, clone)
    (clone / "model.safetensors").rename(clone / f"{name}.safetensors")
    smaller = ("resnet18_isqrt.digits", "resnet18_isqrt.cub50", "mobilenet_v2_isqrt.grocery81")
    for other in smaller:
        (place / f"{other}.yaml").symlink_to(ROOT / "checkpoints" / "records" / f"{other}.yaml")
    record = {"name": name, "config": model.config, "source": {"file": f"{name}.safetensors"}, "sha256": digest,
              "size": 10**8, "licence": "MIT", "provenance": "", "data": "", "metrics": {},
              "measured_by": "gcpzoo", "preprocessing": model.preprocessing.to_dict(), "class_names": None}  # fmt: skip
    (place / f"{name}.yaml").write_text(yaml.safe_dump(record))
    monkeypatch.setattr(records, "_folder", lambda: place)
    assert get_record(name).availability == "in the repository"
    monkeypatch.delenv("GCPZOO_CHECKPOINTS", raising=False)
    with pytest.raises(ZooError, match=rf"{name}: .*folder checkpoints of gcpzoo's repository.*GCPZOO_CHECKPOINTS"):
        gcpzoo.load(name)
    monkeypatch.setenv("GCPZOO_CHECKPOINTS", str(tmp_path / "nowhere"))
    with pytest.raises(ZooError, match="nowhere' does not hold them"):
        gcpzoo.load(name)
    with pytest.raises(ZooError, match="is missing; install gcpzoo again"):
        gcpzoo.load("resnet18_isqrt.digits")
    monkeypatch.setenv("GCPZOO_CHECKPOINTS", str(clone))
    assert gcpzoo.load(name).num_classes == 2


def test_a_record_with_figures_that_are_none_is_refused() -> None:
    text = (ROOT / "checkpoints" / "records" / "resnet18_isqrt.digits.yaml").read_text()
    with pytest.raises(ZooError, match="trainings"):
        parse_record(f"{text}trainings: {{sweep: x, top1: high}}\n", "resnet18_isqrt.digits")
