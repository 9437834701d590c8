"""Every file in configs/ runs: one batch of tiny images in the data set's own layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from image_files import draw

import gcpzoo
from gcpzoo.paths import resource

FOLDER = resource("configs")
CONFIGS = sorted(str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*.yaml") if p.parent.name != "sweep")
CLASSES = ("n01440764", "n01443537")


def cub(root: Path) -> None:
    names = [f"{c:03d}.Bird/{c}_{k}.jpg" for c in (1, 2) for k in range(4)]
    base = root / "CUB_200_2011"
    for i, name in enumerate(names):
        draw(base / "images" / name, i // 4, i)
    numbered = list(enumerate(names, 1))
    lists = {
        "images.txt": [f"{i} {n}" for i, n in numbered],
        "image_class_labels.txt": [f"{i} {1 + (i > 4)}" for i, _ in numbered],
        "train_test_split.txt": [f"{i} {i % 2}" for i, _ in numbered],
        "classes.txt": ["1 001.Bird", "2 002.Bird"],
    }
    for name, lines in lists.items():
        (base / name).write_text("\n".join(lines) + "\n")


def folders(root: Path) -> None:
    for split in ("train", "val", "test"):
        for label, name in enumerate(CLASSES):
            for k in range(4):
                draw(root / split / name / f"{k}.jpg", label, k)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    cub(root / "cub")
    folders(root / "folders")
    return {"CUB200": root / "cub", "ImageNet": root / "folders", "ImageFolder": root / "folders"}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_runs(
    name: str, cli: Callable, roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load((resource("configs") / name).read_text())
    data = config["data"]["class_path"].split(".")[-1]
    size = 96 if data != "Digits" else config["data"]["init_args"]["image_size"]
    arguments: list[object] = ["--config", name]
    if data in ("FGVCAircraft", "StanfordCars"):  # their archives are laid out in the tests of the data modules
        arguments += ["--data", "CUB200"]
        data = "CUB200"
    if data != "Digits":
        arguments += ["--data.root", roots[data], "--data.workers", 0, "--data.batch_size", 2]
        if "deit" not in name:
            arguments += ["--data.preprocessing.resize", f"[{size},{size}]", "--data.preprocessing.crop", size]
    model = config.get("model", {})
    if name.startswith("evaluate"):
        classes = 1000 if data == "ImageNet" else 2
        start = gcpzoo.create_model("resnet18", "gap", classes, until="layer1")
        gcpzoo.hub.save_local(start, tmp_path / "model")
        arguments = ["test", *arguments, "--model", tmp_path / "model", "--trainer.limit_test_batches", 1]
    else:
        if model.get("backbone_weights") or model.get("pretrained_backbone") or name.startswith("finetune"):
            trunk = gcpzoo.create_model(model["backbone"], "gap", 2).backbone.state_dict()
            torch.save(trunk, tmp_path / "trunk.pth")
            arguments += ["--model.backbone_weights", tmp_path / "trunk.pth", "--model.pretrained_backbone", "false"]
        arguments = ["fit", *arguments, "--trainer.fast_dev_run", 1, "--model.schedule.warmup_epochs", 0]
    code, _, err = cli(*arguments, "--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false")
    assert code == 0, err
