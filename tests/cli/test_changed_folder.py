"""Class folders that change between a training and what follows: their splits are drawn anew."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from image_files import draw

from gcpzoo.data.seen import number_files
from gcpzoo.hub.run_checkpoint import read_run_checkpoint

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def grown(cli: Cli, folder: Path, small_fit: list[str], tmp_path: Path) -> list[str]:
    """Arguments of a training of class folders that has ended in ``run``; one image more lies there since."""
    shutil.copytree(folder / "train", tmp_path / "photos")
    arguments = [*small_fit, "--data.root", "photos", "--data.val_fraction", "0", "--data.test_fraction", "0.3"]
    arguments += ["--evaluate", "false"]
    code, _, err = cli(*arguments, "--trainer.max_epochs", 1, "--output", "run")
    assert code == 0, err
    draw(tmp_path / "photos" / "north" / "00.png", 0, seed=9)
    return arguments


def test_a_training_does_not_go_on_where_its_splits_would_be_others(cli: Cli, grown: list[str]) -> None:
    code, _, err = cli(*grown, "--output", "run", "--resume")
    assert code == 2
    assert "photos has changed since this run began (12 train, 6 test images then, 13 train, 6 test now)" in err
    Path("photos/north/00.png").unlink()
    code, _, err = cli(*grown, "--output", "run", "--resume")
    assert code == 0, err


def test_a_training_goes_on_with_data_that_have_moved_but_not_with_other_data(cli: Cli, grown: list[str]) -> None:
    shutil.move("photos", "moved")
    arguments = ["moved" if argument == "photos" else argument for argument in grown]
    code, _, err = cli(*arguments, "--trainer.max_epochs", 2, "--output", "run", "--resume")
    assert code == 2
    assert "moved has changed since this run began" in err
    Path("moved/north/00.png").unlink()
    code, _, err = cli(*arguments, "--trainer.max_epochs", 2, "--output", "run", "--resume")
    assert code == 0, err
    assert json.loads(Path("run/metrics.json").read_text())["fit"]["epochs"] == 2


@pytest.mark.parametrize("evaluate", ["false", "true"])
def test_a_training_that_has_ended_is_neither_tested_on_other_data_nor_called_finished_there(
    evaluate: str, cli: Cli, grown: list[str]
) -> None:
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("evaluate: false", f"evaluate: {evaluate}"))  # true: it lacks its test
    arguments = [*grown[:-1], evaluate, "--trainer.max_epochs", 1, "--output", "run", "--resume"]
    code, _, err = cli(*arguments)
    assert code == 2
    assert "photos has changed since this run began" in err
    assert "test" not in json.loads(Path("run/metrics.json").read_text())


def test_images_that_trained_a_model_are_counted_where_it_is_tested_or_trained_on(cli: Cli, grown: list[str]) -> None:
    test = ["test", *grown[1:9], "--data.root", "photos", "--data.test_fraction", "0.3", "--model", "run"]
    fit = [*grown, "--model", "run", "--trainer.max_epochs", 1, "--evaluate", "true", "--output", "next"]
    for command in (test, fit):
        with pytest.warns(UserWarning, match="2 of 6 test images trained the model before"):
            assert cli(*command)[0] == 0
    Path("photos/north/00.png").unlink()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*trained the model before")
        assert cli(*test)[0] == 0


def test_a_class_added_to_a_run_that_goes_on_is_named(cli: Cli, grown: list[str]) -> None:
    shutil.copytree("photos/south", "photos/west")
    code, _, err = cli(*grown, "--output", "run", "--resume")
    assert code == 2
    assert "the data has 4 classes, run/checkpoints/last.ckpt 3" in err


def test_files_are_known_by_their_path_in_the_folder_and_their_size(grown: list[str]) -> None:
    trained = read_run_checkpoint("run/checkpoints/last.ckpt").files["train"]
    assert len(trained) == 12
    path = Path("photos/north/0.png")
    before = number_files([(str(path), 0)], "photos")
    shutil.copytree("photos", "moved")
    assert torch.equal(number_files([("moved/north/0.png", 0)], "moved"), before)
    path.write_bytes(path.read_bytes() + b" ")
    assert not torch.equal(number_files([(str(path), 0)], "photos"), before)
