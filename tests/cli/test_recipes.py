"""Every config states its recipe: what the trainer's parser makes of each file, against the papers' numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml

import gcpzoo.data
from gcpzoo.data import ImageDataModule
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.paths import resource
from gcpzoo.training import OptimizerConfig, ScheduleConfig

CONFIGS = sorted(
    name
    for name in (str(p.relative_to(resource("configs"))) for p in resource("configs").rglob("*.yaml"))
    if not name.startswith(("paper/", "sweep/"))  # the former are in test_papers.py
)
SGD = {"name": "SGD", "layer_decay": None, "head_lr_factor": 1, "decay_norm_and_bias": True, "args": None}
ADAMW = {**SGD, "name": "AdamW", "weight_decay": 0.01}
SMALL_IMAGES = {"schedule": {"name": "cosine", "interval": "step", "warmup_epochs": 0}}

RECIPES: dict[str, dict[str, Any]] = {
    # Ours, as the records of the models trained by them say.
    "pretrain/digits.yaml": {
        **SMALL_IMAGES,
        "class": "Digits",
        "model": {"backbone": "resnet18", "until": "layer2", "head": "isqrt", "dim": 64, "label_smoothing": 0.1},
        "optimizer": {**SGD, "lr": 0.05, "weight_decay": 5e-4, "classifier_lr_factor": 5},
        "data": {"batch_size": 32, "augment": {"crop": "random", "flip": 0}},
        "side": 32,
        "trainer": {"max_epochs": 15},
    },
    "pretrain/digits_born_again.yaml": {
        **SMALL_IMAGES,
        "class": "Digits",
        "model": {"backbone": "resnet18", "until": "layer2", "head": "isqrt", "dim": 64, "label_smoothing": 0},
        "optimizer": {**SGD, "lr": 0.05, "weight_decay": 5e-4, "classifier_lr_factor": 5},
        "data": {"batch_size": 32, "val_fraction": 0.2, "augment": {"crop": "random", "flip": 0}},
        "side": 32,
        "trainer": {"max_epochs": 15},
    },
    "pretrain/tinyimagenet100.yaml": {
        **SMALL_IMAGES,
        "class": "ImageFolder",
        "model": {"backbone": "resnet18", "until": "layer2", "head": "isqrt", "label_smoothing": 0.1},
        "optimizer": {**SGD, "lr": 0.05, "weight_decay": 5e-4, "classifier_lr_factor": 5},
        "data": {"batch_size": 64, "augment": {"crop": "random_resized", "scale": [0.4, 1.0]}},
        "side": 64,
        "resize": 64,
        "trainer": {"max_epochs": 12},
    },
    "finetune/digits.yaml": {
        **SMALL_IMAGES,
        "class": "Digits",
        "model": {
            "backbone": "mobilenet_v2", "until": "features.13", "head": "isqrt", "dim": None,
            "backbone_weights": "mobilenet_v2_isqrt.grocery81",
        },
        "optimizer": {**ADAMW, "lr": 3e-4, "classifier_lr_factor": 10},
        "data": {"batch_size": 32, "val_fraction": 0.1},
        "side": 96,
        "trainer": {"max_epochs": 3},
    },
    "finetune/images.yaml": {
        **SMALL_IMAGES,
        "class": "ImageFolder",
        "model": {
            "backbone": "mobilenet_v2", "head": "isqrt", "dim": "auto", "label_smoothing": 0.1,
            "backbone_weights": "mobilenet_v2_isqrt.grocery81",
        },
        "optimizer": {**ADAMW, "lr": 2e-4, "head_lr_factor": 10, "classifier_lr_factor": 10},
        "data": {"batch_size": 16, "val_fraction": 0.1},
        "side": 160,
        "trainer": {"max_epochs": 4},
    },
    "finetune/grocery81.yaml": {
        **SMALL_IMAGES,
        "class": "ImageFolder",
        "model": {"backbone": "mobilenet_v2", "head": "isqrt", "dim": 128, "label_smoothing": 0.1},
        "optimizer": {**ADAMW, "lr": 5e-4, "classifier_lr_factor": 10},
        "data": {"batch_size": 16, "augment": {"crop": "random_resized", "scale": [0.3, 1.0]}},
        "side": 160,
        "resize": 160,
        "trainer": {"max_epochs": 12},
    },
    "finetune/cub50.yaml": {
        **SMALL_IMAGES,
        "class": "ImageFolder",
        "model": {
            "backbone": "resnet18", "until": "layer3", "head": "isqrt", "dim": None, "label_smoothing": 0.1,
            "frozen": ["conv1", "bn1", "layer1"],
        },
        "optimizer": {**ADAMW, "lr": 2e-4, "classifier_lr_factor": 50},
        "data": {"batch_size": 16, "val_fraction": 0, "augment": {"crop": "random"}},
        "side": 224,
        "resize": 227,
        "trainer": {"max_epochs": 10},
    },
    "evaluate/imagenet.yaml": {"class": "ImageNet", "data": {"batch_size": 64, "views": "single"}, "side": 224},
    "evaluate/finegrained.yaml": {"class": "CUB200", "data": {"batch_size": 16, "views": "mirror"}, "side": 448},
}  # fmt: skip


@pytest.fixture
def resolve(cli: Callable) -> Callable[..., dict[str, Any]]:
    """What the parser makes of a command line, as a nested dictionary."""

    def resolved(command: str, *arguments: object) -> dict[str, Any]:
        code, out, err = cli(command, *arguments, "--data.root", "absent", "--print_config")
        if "data.root" in err:  # a data set that is part of a library
            code, out, err = cli(command, *arguments, "--print_config")
        assert code == 0, err
        return yaml.safe_load(out)

    return resolved


def rates(values: dict[str, Any], epochs: int) -> list[float]:
    """Factor of the learning rate in every epoch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = ScheduleConfig(**values).create(optimizer, epochs)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def contains(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        if isinstance(value, dict) and key == "augment":
            contains(found[key], value)
        else:
            assert found[key] == value, key


def preprocessing(data: dict[str, Any]) -> Preprocessing:
    """The preprocessing of a resolved data module, without its files."""
    kind = getattr(gcpzoo.data, data["class_path"].rpartition(".")[2])
    given = data["init_args"].get("preprocessing")
    if given:
        return Preprocessing(**given)
    assert issubclass(kind, ImageDataModule)
    return kind.rule(data["init_args"]["image_size"] or kind.default_size)


def test_every_config_has_a_recipe_here() -> None:
    assert sorted(RECIPES) == CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_states_its_recipe(name: str, resolve: Callable) -> None:
    recipe = RECIPES[name]
    config = resolve("test" if name.startswith("evaluate") else "fit", "--config", name)
    assert config["data"]["class_path"] == f"gcpzoo.data.{recipe['class']}"
    contains(config["data"]["init_args"], recipe["data"])
    rule = preprocessing(config["data"])
    assert rule.crop == recipe["side"] or rule.resize == (recipe["side"],) * 2
    if "resize" in recipe:
        assert rule.resize == recipe["resize"]
    if name.startswith("evaluate"):
        return
    assert config["seed_everything"] == 0
    contains(config["model"], recipe["model"])
    contains(config["model"]["optimizer"], recipe["optimizer"])
    contains(config["model"]["schedule"], recipe.get("schedule", {}))
    contains(config["trainer"], recipe["trainer"])
    found = rates(config["model"]["schedule"], recipe["trainer"]["max_epochs"])
    assert {e: found[e] for e in recipe.get("rates", {})} == pytest.approx(recipe.get("rates", {}), rel=1e-3, abs=1e-12)
    given = {c["class_path"]: c.get("init_args", {}) for c in config["trainer"]["callbacks"] or []}
    assert set(given) == set(recipe.get("callbacks", {}))
    for callback, arguments in recipe.get("callbacks", {}).items():
        contains(given[callback], arguments)
    optimizer = OptimizerConfig(**config["model"]["optimizer"]).create(gcpzoo.create_model("resnet18", "gap", 2))
    if optimizer.param_groups[0].get("momentum") is not None:
        assert optimizer.param_groups[0]["momentum"] == 0.9
