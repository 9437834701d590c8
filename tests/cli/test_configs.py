"""Every file in configs/ runs: two steps on tiny images in the data set's own layout.

Of the papers' rows one for each paper runs; ``make configs`` sets GCPZOO_ALL_CONFIGS and runs them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from image_files import draw

import gcpzoo
from gcpzoo.paths import resource

INDEX = yaml.safe_load((resource("configs") / "paper" / "index.yaml").read_text(encoding="utf-8"))
ALL = bool(os.environ.get("GCPZOO_ALL_CONFIGS"))
CONFIGS = sorted(
    str(p.relative_to(resource("configs")))
    for p in resource("configs").rglob("*.yaml")
    if p.name != "index.yaml" and p.parent.name != "sweep"
)
WITHOUT = {
    f"paper/{f}/{n}": r["missing"] for f, p in INDEX["papers"].items() for n, r in p["rows"].items() if "missing" in r
}
ONE_OF_EACH = (
    "bcnn/cub_vgg16", "cbp/cars_vgg16", "deepbdc/cub_resnet18_meta", "dropcov/imagenet_resnet34", "g2denet/cub_vgg16",
    "gcp_optimization/shufflenet_v2_lradju", "gsop/net2_resnet50", "improved_bcnn/aircraft_vgg16", "isice/mit_resnet50",
    "isqrt/cub_resnet50", "moment_probing/cub_vit_b16_plus", "mpn_cov/imagenet_resnet50",
    "riemgcp/aircraft_resnet50_cho_tmlr", "seb/aircraft_resnet50", "svd/hybrid_resnet50_pade",
)  # fmt: skip
SOME = [c for c in CONFIGS if not c.startswith("paper/") or c.removeprefix("paper/")[:-5] in ONE_OF_EACH]
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


def tiny(config: dict[str, Any], roots: dict[str, Path]) -> list[object]:
    """Options that put a row on small images, from random weights."""
    data, backbone = config["data"]["class_path"].rpartition(".")[2], config["model"]["backbone"]
    kind = data if data in roots else "CUB200"  # the others' archives are laid out in the tests of the data modules
    options: list[object] = [] if kind == data else ["--data", kind]
    options += ["--data.root", roots[kind], "--data.workers", 0, "--data.batch_size", 2]
    if not backbone.startswith(("timm:", "sovit_")):  # transformers take images of one size
        options += ["--data.preprocessing", '{"resize": [64, 64], "crop": 64}']
    for key in ("checkpoint", "backbone_weights"):
        options += [f"--model.{key}", "null"]
    return [*options, "--model.pretrained_backbone", "false", "--model.schedule.warmup_epochs", 0]


@pytest.mark.parametrize("name", [c for c in (CONFIGS if ALL else SOME) if "paper/" in c])
def test_a_row_of_a_paper_trains_two_steps(name: str, cli: Callable, roots: dict[str, Path]) -> None:
    config = yaml.safe_load((resource("configs") / name).read_text(encoding="utf-8"))
    arguments = ["--config", name, *tiny(config, roots), "--trainer.fast_dev_run", 2, "--trainer.accelerator", "cpu"]
    if "HybridRoot" in str(config):
        arguments += ["--trainer.callbacks.epoch", 0]  # with the second root at once
    code, _, err = cli("fit", *arguments, "--trainer.enable_model_summary", "false")
    assert code == 0, err


@pytest.mark.parametrize(("name", "reason"), WITHOUT.items())
def test_a_row_without_a_config_says_why(name: str, reason: str) -> None:
    assert not (resource("configs") / f"{name}.yaml").exists()
    assert reason
    if ALL:
        pytest.skip(f"{name} has no config: {reason}")


def test_one_row_of_each_paper_is_run() -> None:
    folders = {name.partition("/")[0] for name in ONE_OF_EACH}
    assert folders == {f for f, p in INDEX["papers"].items() if any("missing" not in r for r in p["rows"].values())}
    assert {f"paper/{name}.yaml" for name in ONE_OF_EACH} <= set(CONFIGS)


@pytest.mark.parametrize("name", [c for c in CONFIGS if "paper/" not in c])
def test_config_runs(
    name: str, cli: Callable, roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load((resource("configs") / name).read_text())
    data = config["data"]["class_path"].split(".")[-1]
    size = 96 if data != "Digits" else config["data"]["init_args"]["image_size"]
    arguments: list[object] = ["--config", name]
    if data != "Digits":
        arguments += ["--data.root", roots[data], "--data.workers", 0, "--data.batch_size", 2]
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
        arguments = ["fit", *arguments, "--trainer.fast_dev_run", 2, "--model.schedule.warmup_epochs", 0]
    code, _, err = cli(*arguments, "--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false")
    assert code == 0, err
