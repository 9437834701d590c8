"""The checkpoints in the package: they load by name and reproduce their records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub.records import get_record
from gcpzoo.paths import resource

EMBEDDED = [name for name in gcpzoo.list_models() if get_record(name).kind == "embedded"]


def test_there_is_one_of_digits_and_one_of_photographs() -> None:
    assert {"resnet18_isqrt.digits", "resnet18_isqrt.cub50", "mobilenet_v2_isqrt.grocery81"} <= set(EMBEDDED)


@pytest.mark.parametrize("name", EMBEDDED)
def test_it_loads_ready_to_use_with_its_control_beside_it(name: str) -> None:
    model = gcpzoo.load(name)
    record = model.record
    assert not model.training
    ours, theirs = (
        {**config, **config.get("head_args", {}), "head_args": None} for config in (model.config, record.config)
    )
    assert {**ours, **theirs} == ours  # an argument that a head got later has its default
    assert len(model.class_names) == model.num_classes
    assert record.config["head"] == "gap" or record.control["head"] == "gap"
    side = model.preprocessing.crop or model.preprocessing.resize[0]
    x = model.transform(torch.zeros(3, side, side, dtype=torch.uint8))[None]
    assert model(x).isfinite().all()


def test_the_digits_reproduce_their_record_exactly(cli: Callable) -> None:
    name = "resnet18_isqrt.digits"
    code, _, err = cli("test", "--model", name, "--data", "Digits", "--output", "o", "--trainer.accelerator", "cpu")
    assert code == 0, err
    measured = json.loads(Path("o/metrics.json").read_text())["test"]
    recorded = get_record(name).metrics
    assert {k: round(100 * measured[k], 2) for k in recorded} == recorded


def test_a_tampered_file_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "resnet18_isqrt.digits"
    (tmp_path / "records").symlink_to(resource("checkpoints") / "records")
    data = bytearray((resource("checkpoints") / f"{name}.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / f"{name}.safetensors").write_bytes(data)
    monkeypatch.setattr("gcpzoo.hub.records._folder", lambda: tmp_path / "records")
    with pytest.raises(ZooError, match="sha256"):
        gcpzoo.load(name)


def test_the_demonstration_runs_on_ones_own_images(cli: Callable, folder: Path) -> None:
    code, out, err = cli("demo", "--data", folder, "--epochs", 1, "--output", "demo")
    assert code == 0, err
    assert "Same backbone, data, seed and epochs" in out
    names = {p.name for p in Path("demo").iterdir()}
    assert {"training_curves.png", "confusion_matrix.png", "covariance_spectrum.png", "isqrt", "gap"} <= names
    reports = json.loads(Path("demo/demo.json").read_text())["runs"]
    assert reports["isqrt"]["model"]["backbone"] == reports["gap"]["model"]["backbone"] == "mobilenet_v2"
    assert cli("demo", "--data", folder, "--output", folder)[0] == 2  # somebody's own folder is not emptied
