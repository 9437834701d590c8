"""``gcpzoo fit``: what a run leaves behind, how it goes on, and how it is stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

import gcpzoo

Cli = Callable[..., tuple[int, str, str]]


def test_fit_leaves_config_figures_plots_and_checkpoint(run_folder: Path) -> None:
    names = {p.name for p in run_folder.iterdir()}
    assert {"config.yaml", "metrics.json", "metrics.csv", "training_curves.png", "confusion_matrix.png"} <= names
    assert {"covariance_spectrum.png", "spectrum.json", "test_predictions.csv"} <= names
    assert any(n.startswith("events.out.tfevents") for n in names)
    assert (run_folder / "checkpoints" / "last.ckpt").is_file()
    report = json.loads((run_folder / "metrics.json").read_text())
    assert report["fit"]["epochs"] == 2
    assert [row["epoch"] for row in report["fit"]["history"]] == [0, 1]
    assert report["test"]["images"] == 9
    assert set(report["test"]["accuracy_of_class"]) == {"north", "east", "south"}
    assert (report["seed"], report["model"]["head"]) == (0, "isqrt")
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["model"]["dim"] == 8


def test_the_same_seed_gives_the_same_figures(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    cli(*small_fit, "--output", "again")
    first, second = (json.loads((f / "metrics.json").read_text()) for f in (run_folder, run_folder.parent / "again"))
    for row in first["fit"]["history"] + second["fit"]["history"]:
        assert row.pop("seconds") > 0
    assert first["fit"]["history"] == second["fit"]["history"]


def test_a_model_of_the_zoo_is_trained_further_with_other_classes(
    cli: Cli, small_fit: list[str], folder: Path, tmp_path: Path
) -> None:
    gcpzoo.hub.save_local(gcpzoo.create_model("resnet18", "isqrt", 7, dim=8, until="layer1"), tmp_path / "start")
    code, _, err = cli(
        *small_fit[:10], "32", "--model", tmp_path / "start", "--trainer.max_epochs", "1", "--output", "o"
    )
    assert code == 0, err
    assert gcpzoo.load(tmp_path / "o" / "checkpoints" / "last.ckpt").num_classes == 3


def test_a_backbone_is_taken_from_a_model_of_the_zoo(cli: Cli, small_fit: list[str], tmp_path: Path) -> None:
    model = gcpzoo.create_model("resnet18", "gap", 7)
    gcpzoo.hub.save_local(model, tmp_path / "start")
    arguments = [*small_fit, "--model.backbone_weights", tmp_path / "start", "--model.frozen", "[conv1,bn1]"]
    code, _, err = cli(*arguments, "--output", "o")
    assert code == 0, err
    trained = gcpzoo.load(tmp_path / "o" / "checkpoints" / "last.ckpt")
    assert torch.equal(trained.backbone.conv1.weight, model.backbone.conv1.weight)


def test_output_folders_are_numbered_and_never_overwritten(cli: Cli, small_fit: list[str]) -> None:
    quick = [*small_fit, "--trainer.limit_train_batches", "1", "--evaluate", "false"]
    for name in ("resnet18_isqrt", "resnet18_isqrt-2"):
        assert cli(*quick)[0] == 0
        assert Path("runs", name, "metrics.json").is_file()
    code, _, err = cli(*quick, "--output", "runs/resnet18_isqrt")
    assert code == 2
    assert "holds a run already" in err


def test_the_precision_of_the_whole_network_can_be_chosen(cli: Cli, small_fit: list[str]) -> None:
    for precision in ("bf16-true", "64-true"):
        code, _, err = cli(*small_fit, "--trainer.precision", precision, "--output", precision)
        assert code == 0, err


def test_one_position_is_refused_before_anything_is_trained(cli: Cli, small_fit: list[str]) -> None:
    arguments = [a for a in small_fit if a not in ("--model.until", "layer1")]
    code, _, err = cli(*arguments, "--model.last_stride", "2")
    assert code == 2
    assert "one position" in err
