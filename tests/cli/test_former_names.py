"""Options, classes and configs of gcpzoo 0.1: each former name is refused with the new one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gcpzoo.training.former_names import MOVED_CLASSES, MOVED_CONFIGS, MOVED_OPTIONS

Cli = Callable[..., tuple[int, str, str]]
VALUES = {"model.optimizer": "AdamW", "model.schedule": "cosine", "model.optimizer_args": '{"momentum": 0.5}'}


def test_the_table_of_options_names_all_that_moved() -> None:
    assert MOVED_OPTIONS == {
        "model.optimizer": "model.optimizer.name",
        "model.optimizer_args": "model.optimizer.args",
        "model.lr": "model.optimizer.lr",
        "model.weight_decay": "model.optimizer.weight_decay",
        "model.classifier_lr_factor": "model.optimizer.classifier_lr_factor",
        "model.head_lr_factor": "model.optimizer.head_lr_factor",
        "model.layer_decay": "model.optimizer.layer_decay",
        "model.decay_norm_and_bias": "model.optimizer.decay_norm_and_bias",
        "model.schedule": "model.schedule.name",
        "model.warmup_epochs": "model.schedule.warmup_epochs",
        "model.milestones": "model.schedule.milestones",
        "model.gamma": "model.schedule.gamma",
        "model.power": "model.schedule.power",
        "model.horizon": "model.schedule.horizon",
        "model.final_factor": "model.schedule.final_factor",
        "model.schedule_interval": "model.schedule.interval",
        "model.frozen_stages": "model.frozen",
    }


@pytest.mark.parametrize(("old", "new"), MOVED_OPTIONS.items())
@pytest.mark.parametrize("way", ["separate", "equals", "file", "file=", "group"])
def test_a_former_option_is_refused_with_its_new_name(old: str, new: str, way: str, cli: Cli) -> None:
    value = VALUES.get(old, "1")
    Path("mine.yaml").write_text(yaml.safe_dump({"model": {old.removeprefix("model."): yaml.safe_load(value)}}))
    arguments = {
        "separate": [f"--{old}", value],
        "equals": [f"--{old}={value}"],
        "file": ["--config", "mine.yaml"],
        "file=": ["--config=mine.yaml"],
        "group": ["--model", json.dumps({old.removeprefix("model."): yaml.safe_load(value)})],
    }[way]
    code, _, err = cli("fit", *arguments)
    assert code == 2
    assert err.endswith(f"option {old!r} is now {new!r}\n")
    assert ("mine.yaml: " in err) == way.startswith("file")


def test_a_part_of_a_former_option_is_refused_with_its_new_name(cli: Cli) -> None:
    code, _, err = cli("fit", "--model.optimizer_args.momentum", "0.5")
    assert code == 2
    assert "option 'model.optimizer_args.momentum' is now 'model.optimizer.args.momentum'" in err


@pytest.mark.parametrize(("old", "new"), MOVED_CLASSES.items())
@pytest.mark.parametrize("way", ["separate", "equals", "list", "file", "item"])
def test_a_former_class_is_refused_with_its_new_path(old: str, new: str, way: str, cli: Cli) -> None:
    old, new = (f"{path}Thing" if path.endswith(".") else path for path in (old, new))
    callbacks = old if way == "item" else {"class_path": old}
    Path("mine.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callbacks]}}))
    arguments = {
        "separate": ["--trainer.callbacks+", old],
        "equals": [f"--data={old}"],
        "list": ["--trainer.callbacks", json.dumps([{"class_path": old}])],
        "file": ["--config", "mine.yaml"],
        "item": ["--config", "mine.yaml"],
    }[way]
    code, _, err = cli("fit", *arguments)
    assert code == 2
    assert err.endswith(f"{old!r} is now {new!r}\n")


@pytest.mark.parametrize(("old", "new"), MOVED_CONFIGS.items())
@pytest.mark.parametrize("way", ["{}", "configs/{}"])
def test_a_former_config_is_refused_with_its_new_path(old: str, new: str, way: str, cli: Cli) -> None:
    for arguments in (["--config", way.format(old)], [f"--config={way.format(old)}"]):
        code, _, err = cli("fit", *arguments)
        assert code == 2
        assert err.endswith(f"config file {old!r} is now {new!r}\n")


def test_groups_of_options_are_not_taken_for_former_names(cli: Cli) -> None:
    Path("optimizer.yaml").write_text("lr: 0.1\n")
    Path("mine.yaml").write_text("model:\n  optimizer:\n    lr: 0.1\n  schedule:\n    name: step\n")
    for arguments in (["--model.optimizer", '{"lr": 0.1}'], ["--model.optimizer=optimizer.yaml"], ["-c", "mine.yaml"]):
        code, _, err = cli("fit", *arguments)
        assert (code, "is now" in err) == (2, False)
        assert "--data is missing" in err
