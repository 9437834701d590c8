"""``gcpzoo fit FOLDER``: settings chosen for the folder, the best epoch kept, and the control beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import yaml
from image_files import draw, truncate, write
from PIL import Image
from run_files import read_checkpoint

import gcpzoo
from gcpzoo.cli.folder_request import read_request
from gcpzoo.errors import ZooError
from gcpzoo.experiments.folder import (
    FolderSurvey,
    FrozenComparison,
    choose,
    compare_frozen,
    find_source,
    survey_folder,
)
from gcpzoo.training import RunCheckpoints

Cli = Callable[..., tuple[int, str, str]]
TINY = [
    "--data.workers", "0", "--data.image_size", "32", "--data.batch_size", "6", "--model.backbone", "resnet18",
    "--model.until", "layer1", "--model.dim", "8", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar",
    "false",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plots and no second log, which other tests look at."""
    monkeypatch.setattr("gcpzoo.training.run_report.plots", MagicMock())
    monkeypatch.setattr("gcpzoo.cli.zoo_cli.find_spec", lambda name: None)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 20, 10 and 2 images."""
    root = tmp_path_factory.mktemp("uneven")
    for label, (name, count) in enumerate((("many", 20), ("some", 10), ("two", 2))):
        for k in range(count):
            draw(root / name / f"{k}.png", label, k, size=40)
    return root


def test_a_folder_alone_is_trained_on_with_settings_that_are_explained_and_recorded(cli: Cli, uneven: Path) -> None:
    arguments = ["fit", uneven, "--output", "run", *TINY[:-2], "--trainer.max_epochs", 1]
    code, out, err = cli(*arguments, "--balanced")
    assert code == 0, err
    assert "Epoch 1/1" in out
    for topic in ("data", "backbone", "head", "rates", "images", "epochs", "balance"):
        assert f"\n  {topic} " in out
    assert "times the images of two: each class weighs the same in the loss, as you asked" in out
    assert "F1" in out
    assert "trying the heads" not in err
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert (config["model"]["fusion"], config["model"]["balanced"], config["model"]["dim"]) == ("sum", True, 8)
    assert config["model"]["optimizer"]["lr_factors"] == {"first_classifier": 5.0}
    code, out, err = cli(*arguments, "--balanced", "--resume")
    assert code == 0, err
    assert "has finished: nothing to do" in out
    code, _, err = cli(*arguments, "--resume")
    assert code == 2
    assert "model.balanced=True" in err


def test_the_head_is_the_one_that_is_ahead_on_the_frozen_backbone_and_stays_when_a_run_goes_on(
    cli: Cli, uneven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [FrozenComparison(0.82, 0.79, 0.01, 0.05, 500)]
    monkeypatch.setattr("gcpzoo.cli.chosen.compare_frozen", lambda *_: answers.pop())
    source = ["--from", "resnet18_isqrt.digits", *(a for a in TINY if a not in ("--model.backbone", "resnet18"))]
    source = [a for a in source if a not in ("--model.until", "layer1", "--model.dim", "8")]
    code, out, err = cli("fit", uneven, "--output", "run", *source, "--trainer.max_epochs", 1)
    assert code == 0, err
    said = "the mean alone 79.0 % (95 % interval of the difference: +1.0 to +5.0): fine-tuning gives back up to 10"
    assert said in " ".join(out.split())
    assert yaml.safe_load(Path("run/config.yaml").read_text())["model"]["head"] == "gap"
    code, out, err = cli("fit", uneven, "--output", "run", *source, "--trainer.max_epochs", 1, "--resume")
    assert code == 0, err  # not measured again
    assert "has finished" in out
    code, _, err = cli("fit", uneven, "--output", "run", *source)
    assert code == 2  # refused before the heads are tried
    assert "'run' holds a run already" in err
    answers.append(None)
    code, out, err = cli("fit", uneven, "--output", "new", *source, "--trainer.max_epochs", "x")
    assert "a trial takes 60 training images and two of each class, so there was none" in " ".join(out.split())


def test_the_frozen_comparison_is_the_same_each_time_and_sees_only_training_images(tmp_path: Path) -> None:
    for label, name in enumerate(("north", "east", "south")):
        for k in range(30):
            draw(tmp_path / "train" / name / f"{k}.png", label, k)
        draw(tmp_path / "test" / name / "0.png", label, 99)
    truncate(tmp_path / "test" / "north" / "0.png")  # would be noticed
    truncate(tmp_path / "train" / "north" / "0.png")
    survey, source = survey_folder(str(tmp_path)), find_source("resnet18_isqrt.digits")
    found = compare_frozen(survey, source, 32)
    assert found is not None
    assert found == compare_frozen(survey, source, 32)
    assert found.images in (80, 81)  # 9 are held out for validation; the broken one may be among them
    assert found.low <= found.gcp - found.gap <= found.high
    assert min(found.gcp, found.gap) > 0.9


def test_the_frozen_comparison_learns_nothing_from_the_same_picture_in_the_next_file(tmp_path: Path) -> None:
    for label, name in enumerate(("one", "other")):
        for k in range(30):
            noise = np.random.default_rng(100 * label + k // 2).integers(0, 256, (32, 32, 3), np.uint8)
            path = tmp_path / "train" / name / f"{k:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(path)
        draw(tmp_path / "test" / name / "0.png", label, 99)
    survey = survey_folder(str(tmp_path), val_fraction=0.0)
    found = compare_frozen(survey, find_source("resnet18_isqrt.digits"), 32)
    assert found is not None
    assert max(found.gcp, found.gap) < 0.8  # noise: nothing to learn but the pairs


def test_the_frozen_comparison_names_a_file_where_none_can_be_read(tmp_path: Path) -> None:
    for name in ("one", "other"):
        for k in range(40):
            draw(tmp_path / "train" / name / f"{k}.png", 0, k)
            truncate(tmp_path / "train" / name / f"{k}.png")
        draw(tmp_path / "test" / name / "0.png", 0, 99)
    survey = replace(survey_folder(str(tmp_path)), shorter_side=32)
    with pytest.raises(ZooError, match="none of 64 training images can be read; the first: cannot read image"):
        compare_frozen(survey, find_source("mobilenet_v2_isqrt.grocery81"), 32)


def test_broken_files_are_refused_by_name_or_left_out(cli: Cli, uneven: Path, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    shutil.copytree(uneven, root)
    truncate(root / "many" / "3.png")
    arguments = ["fit", root, *TINY, "--trainer.max_epochs", 1]
    code, _, err = cli(*arguments, "--output", "a")
    assert code == 2
    assert "3.png" in err
    assert "--skip-corrupt" in err
    code, out, err = cli(*arguments, "--output", "b", "--skip-corrupt")
    assert code == 0, err
    assert "1 unreadable images were left out" in out
    assert list(json.loads(Path("b/metrics.json").read_text())["data"]["left_out"]) == ["many/3.png"]


def test_the_comparison_trains_both_heads_at_their_own_rates_and_says_which_to_keep(cli: Cli, uneven: Path) -> None:
    code, out, err = cli("fit", uneven, "--compare", "--output", "c", *TINY, "--trainer.max_epochs", 1)
    assert code == 0, err
    found = json.loads(Path("c/comparison.json").read_text())
    reports = {name: json.loads(Path("c", name, "metrics.json").read_text()) for name in ("gcp", "gap")}
    assert {name: r["model"]["head"] for name, r in reports.items()} == {"gcp": "isqrt", "gap": "gap"}
    assert reports["gap"]["model"]["dim"] is None
    assert reports["gap"]["data"] == reports["gcp"]["data"]
    assert found["rates"]["gap"]["classifier_lr_factor"] != found["rates"]["gcp"]["classifier_lr_factor"]
    for name, report in reports.items():
        assert abs(found["top1"][name]["mean"] - report["test"]["top1"]) < 1e-6
        assert found["top1"][name]["low"] <= found["top1"][name]["mean"] <= found["top1"][name]["high"]
    difference = reports["gcp"]["test"]["top1"] - reports["gap"]["test"]["top1"]
    assert abs(found["difference"]["mean"] - difference) < 1e-6
    assert found["keep"] == ("gcp" if difference > 0 else "gap")
    assert f"keep {found['keep']}" in out
    assert "gcp − gap" in Path("c/comparison.md").read_text()


def test_the_best_epoch_is_kept_tested_and_loaded_and_the_same_after_a_stop(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["fit", folder, *TINY, "--model.optimizer.lr", "0.3", "--trainer.max_epochs", 4, "--best"]
    code, out, err = cli(*arguments, "--output", "whole")
    assert code == 0, err
    report = json.loads(Path("whole/metrics.json").read_text())
    curve = [row["val/top1"] for row in report["fit"]["history"]]
    kept = report["checkpoint"]
    assert (kept["kept"], kept["metric"], kept["value"]) == ("best", "val/top1", max(curve))
    assert kept["epoch"] == curve.index(max(curve)) + 1 < len(curve)
    assert f"of epoch {kept['epoch']} of 4, the best by val/top1 of validation images" in out
    best = torch.load("whole/checkpoints/best.ckpt", weights_only=True)
    assert best["epoch"] + 1 == kept["epoch"]
    weight = gcpzoo.load("whole").classifier.weight
    assert torch.equal(weight, best["state_dict"]["model.classifier.weight"])
    assert not torch.equal(weight, read_checkpoint(Path("whole"))["state_dict"]["model.classifier.weight"])

    write = RunCheckpoints.on_train_epoch_end

    def stop_after(self: RunCheckpoints, trainer: object, pl_module: object) -> None:
        write(self, trainer, pl_module)
        if trainer.current_epoch == kept["epoch"] - 1:  # the best epoch's last.ckpt is written, best.ckpt is not
            raise KeyboardInterrupt

    monkeypatch.setattr(RunCheckpoints, "on_train_epoch_end", stop_after)
    assert cli(*arguments, "--output", "cut")[0] == 130
    monkeypatch.setattr(RunCheckpoints, "on_train_epoch_end", write)
    code, out, err = cli(*arguments, "--output", "cut", "--resume")
    assert code == 0, err
    again = json.loads(Path("cut/metrics.json").read_text())
    assert again["checkpoint"] == kept
    assert {**again["test"], "seconds": 0} == {**report["test"], "seconds": 0}


def test_the_best_epoch_needs_validation_images_that_are_not_the_test_images(cli: Cli, small_fit: list[str]) -> None:
    arguments = [*small_fit[:4], str(Path(small_fit[4]) / "train"), *small_fit[5:], "--best"]
    for extra, said in (
        (["--data.val_fraction", "0"], "--best needs validation images"),
        (["--data.val_fraction", "0", "--data.val_on_test", "true"], "that are not the test images"),
        (["--data.val_fraction", "0.3", "--trainer.enable_checkpointing", "false"], "leave out trainer.enable_checkp"),
    ):
        code, _, err = cli(*arguments, *extra)
        assert code == 2
        assert said in err


def test_where_to_start_is_found_in_files_models_and_runs(tmp_path: Path) -> None:
    from torchvision import models

    state = models.shufflenet_v2_x0_5().state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("conv5.1")}, tmp_path / "part.pth")
    found = find_source(str(tmp_path / "part.pth")).model
    assert (found["backbone"], found["until"]) == ("shufflenet_v2_x0_5", "stage4")
    torch.save({k.replace("stage2", "stage1"): v for k, v in state.items()}, tmp_path / "other.pth")
    with pytest.raises(ZooError, match="fits no backbone of torchvision.*--model.backbone"):
        find_source(str(tmp_path / "other.pth"))
    assert find_source(str(tmp_path / "other.pth"), "resnet18").model["backbone"] == "resnet18"
    gcpzoo.hub.save_local(gcpzoo.create_model("resnet18", "gap", 2, until="layer1"), tmp_path / "mine")
    found = find_source(str(tmp_path / "mine")).model
    assert found == {"backbone": "resnet18", "until": "layer1", "backbone_weights": str(tmp_path / "mine")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no folder 'nowhere'"),
        ([".", "--from", "net.pth"], "there is no file or folder 'net.pth'"),
        ([".", "--from", "resnet18_isqrt.cub5"], "did you mean resnet18_isqrt.cub50"),
        ([".", "--data", "Digits"], "--data and FOLDER exclude each other"),
        ([".", "--from", "a", "--model", "b"], "--from and --model exclude each other"),
        ([".", "--config", "finetune/images.yaml"], "do not mix with those of --config"),
        ([".", "--compare"], "give the folder for them by --output DIR"),
        ([".", "--folds", "1", "--output", "o"], "--folds must be a whole number of at least 2, got '1'"),
        (["--compare", "--config", "finetune/images.yaml"], "--compare belongs to 'gcpzoo fit FOLDER'"),
        ([".", "also"], "fit takes one folder"),
        (
            [".", "--folds", "2", "--output", "o", "--evaluate", "false"],
            "--folds needs the tests: leave out",
        ),
        ([".", "--compare", "--output", "o", "--trainer.fast_dev_run=true"], "--compare needs the tests"),
        (["."], "output must lie outside of the images in '.', .* got 'runs'"),
        ([".", "--output", "./run"], "output must lie outside of the images"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(arguments: list[str], said: str) -> None:
    with pytest.raises(ZooError, match=said):
        read_request(["fit", *arguments])


def test_the_folder_is_told_from_the_values_of_options() -> None:
    here = str(Path(__file__).parent)
    request = read_request(["fit", "--balanced", "--resume", "true", "--trainer.max_epochs", "3", here, "--best"])
    assert request is not None
    assert request.folder == here
    assert request.rest == ["--balanced", "--resume", "true", "--trainer.max_epochs", "3", "--best"]


def test_folds_test_every_image_once_and_give_the_mean(cli: Cli, folder: Path) -> None:
    arguments = ["fit", folder / "train", "--folds", 2, "--output", "f", *TINY, "--trainer.max_epochs", 1]
    code, out, err = cli(*arguments)
    assert code == 0, err
    found = json.loads(Path("f/folds.json").read_text())
    tops = [test["top1"] for test in found["test"]]
    assert abs(found["top1"]["mean"] - sum(tops) / 2) < 1e-9
    tables = [Path("f", f"fold-{i}", "test_predictions.csv").read_text().splitlines()[1:] for i in (1, 2)]
    images = [line.split(",")[0] for table in tables for line in table]
    assert len(images) == len(set(images)) == 18
    assert "2 folds, every image tested once" in out


def test_the_learning_rate_finder_suggests_a_rate_and_trains_nothing(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcpzoo.cli.callbacks.STEPS", 25)
    code, out, err = cli("fit", folder, "--output", "r", *TINY, "--lr_find")
    assert code == 0, err
    assert "suggested for all parts alike: --model.optimizer.lr " in out
    assert not list(Path("r").rglob("*.ckpt"))
    assert not Path("r/metrics.json").exists()


def test_wandb_is_named_where_it_is_missing(cli: Cli, small_fit: list[str]) -> None:
    logger = ["--trainer.logger", "lightning.pytorch.loggers.WandbLogger", "--trainer.logger.project", "mine"]
    code, _, err = cli(*small_fit, *logger)
    assert code == 2
    assert "pip install 'gcpzoo[wandb]'" in err
    assert len(err.splitlines()) == 1


def test_classes_too_small_to_split_get_a_larger_share_or_a_clear_answer(tmp_path: Path) -> None:
    def lay_out(name: str, counts: dict[str, int]) -> str:
        write(tmp_path / name, [f"{kind}/{k}.png" for kind, count in counts.items() for k in range(count)])
        return str(tmp_path / name)

    many = survey_folder(lay_out("many", {f"c{i}": 3 for i in range(10)}))
    assert (many.test_fraction, many.images) == (0.4, {"train": 18, "test": 12})
    assert many.val_fraction == 0.0  # no share leaves every class in both parts
    uneven = survey_folder(lay_out("uneven", {"a": 30, "b": 12, "c": 2}))
    assert (uneven.test_fraction, uneven.val_fraction) == (0.2, 0.1)
    with pytest.raises(ZooError, match=r"1 of 3 classes have one image only \(c\)"):
        survey_folder(lay_out("one", {"a": 30, "b": 12, "c": 1}))
    write(tmp_path / "split", [f"{split}/{kind}/1.png" for split in ("train", "val") for kind in "ab"])
    with pytest.raises(ZooError, match="no test folder.*rename its val folder to test"):
        survey_folder(str(tmp_path / "split"))


def test_no_validation_images_because_none_were_wanted_is_not_put_on_small_classes(cli: Cli, uneven: Path) -> None:
    survey = survey_folder(str(uneven), val_fraction=0.0)
    assert choose(survey, None).reasons["data"].endswith("none held out for validation, the classes are too small")
    asked = choose(survey, None, typed={"data.val_fraction": "0"}).reasons["data"]
    assert asked.endswith("none held out for validation, as you asked")
    code, _, err = cli("fit", uneven, "--best", "--data.val_fraction", 0)
    assert code == 2
    assert "--best needs validation images, and --data.val_fraction 0 holds none out: leave one out" in err


def test_the_table_of_advice_decides_size_epochs_and_batch() -> None:
    def chosen(images: int, side: float, on_gpu: bool = False) -> tuple[int, int, int]:
        survey = FolderSurvey("x", {"train": images, "test": 9}, {"a": images, "b": images}, side, 0, 0.0, 0.1)
        options = choose(survey, find_source("resnet18_isqrt.cub50"), on_gpu).options
        data = options["data"]["init_args"]
        return data["image_size"], data["batch_size"], options["trainer"]["max_epochs"]

    assert chosen(1_088, 500) == (224, 16, 10)
    assert chosen(100, 100) == (160, 16, 20)
    assert chosen(50_000, 500) == (160, 32, 5)
    assert chosen(50_000, 500, on_gpu=True) == (224, 32, 5)
    assert chosen(1_088, 32) == (128, 16, 10)
