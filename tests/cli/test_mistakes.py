"""Mistakes on the command line: one line on stderr that names the nearest, and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gcpzoo.cli.parser import options

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.hed", "gap"], "unknown option 'model.hed': did you mean model.head"),
        (["--model.head", "isqr"], "unknown head 'isqr': did you mean isqrt"),
        (["--model.backbone", "resnet19"], "unknown backbone 'resnet19': did you mean resnet1"),
        (["--model.head_args.iteration", "3"], "did you mean iterations"),
        (["--model.optimizer.name", "sdg"], "unknown optimizer 'sdg'"),
        (["--model.schedule.name", "cosin"], "cosine"),
        (["--model.optimizer.lr", "fast"], "optimizer"),
        (["--model.backbone_weights", "absent.pth"], "no weights file 'absent.pth'"),
        (["--model.backbone_weights", "resnet18_isqrt.digitz"], "unknown model"),
        (["--trainer.max_epohcs", "3"], "did you mean trainer.max_epochs"),
        (["--config", "absent.yaml"], "unknown config file 'absent.yaml'"),
        (["--ckpt_path", "absent.ckpt"], "no checkpoint 'absent.ckpt'"),
        (["--ckpt_path", "last"], "no checkpoint 'last'; give the file"),
        (["--model.dim", "99999999999999"], "limits: 65,536 channels, 16 in a list"),
        (["--model.cutmix_alpha", "1e-300"], "cutmix_alpha must be 0 or at least 0.001"),
        (["--model.optimizer.lrr", "1"], "did you mean model.optimizer.lr"),
        (["--seed_everything", "-5"], "-5 is not in bounds"),
        (["--data.root", "absent"], "there is no folder absent"),
        (["--data.rot", "x"], "unknown option 'data.rot': did you mean data.root"),
        (["--data.augment.crop", "foo"], "augment.crop"),
        (["--data.preprocessing.crp", "3"], "did you mean data.preprocessing.crop"),
        (["--data", "ImageFolders"], "unknown data module 'ImageFolders': did you mean ImageFolder"),
        (["--model", "resnet18_isqrt.digitz"], "unknown model"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    cli: Cli, small_fit: list[str], arguments: list[str], message: str
) -> None:
    code, _, err = cli(*small_fit, *arguments)
    lines = [line for line in err.splitlines() if "error" in line]
    assert code == 2
    assert "Traceback" not in err
    assert len(lines) == 1
    assert message in lines[0]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "invalid choice: 'lst'"),
        (["list", "--foo"], "unrecognized arguments: --foo"),
        (["probe"], "the following arguments are required: --model, --data (see gcpzoo probe --help)"),
        (["list", "xyz*"], "no model matches"),
        (["list", "--heads", "xyz*"], "no name matches 'xyz*'"),
        (["info", "resnt50_isqrt"], "did you mean resnet50"),
        (["predict", "--model", "nothing.here", "x.png"], "no image 'x.png'"),
        (["demo", "--data", "absent"], "there is no folder 'absent'"),
        (["fit"], "--data is missing: give a data module"),
        (["test", "--model", "resnet18_isqrt.digits", "--data.root", "."], "give the data module that has it, such as"),
        (["search-hub"], "the Hub cannot be reached: its name is not known here"),
    ],
)
def test_a_mistake_in_the_zoos_commands_is_one_line_too(
    cli: Cli, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr("gcpzoo.hub.client.getproxies", dict)
    code, _, err = cli(*arguments)
    assert code == 2
    assert message in err
    assert err.startswith("gcpzoo: error: ")
    assert err.count("\n") == 1


def test_an_unknown_key_in_a_config_file_is_named(cli: Cli, small_fit: list[str]) -> None:
    Path("mine.yaml").write_text("model:\n  hed: gap\n")
    code, _, err = cli(*small_fit, "--config", "mine.yaml")
    assert code == 2
    assert "hed" in err
    Path("broken.yaml").write_text("model: [\n")
    code, _, err = cli(*small_fit, "--config", "broken.yaml")
    assert code == 2
    assert "Traceback" not in err


BASE = ["fit", "--data", "ImageFolder", "--data.root", ".", "--model.backbone", "resnet18"]
CALLBACKS = "trainer:\n  callbacks:\n  - class_path: gcpzoo.training.{}\n    init_args: {}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model.hed", "gap"], "unknown option 'model.hed': did you mean model.head"),
        (["--model.optimizer.lr", "fast"], "model.optimizer.lr must be of type float, got fast"),
        (["--evaluate", "maybe"], "evaluate must be of type bool, got maybe"),
        (["--data.views", "x"], "data.views must be one of 'single', 'mirror', 'ten_crop', got x"),
        (["--data.batch_size", "0.5"], "data.batch_size must be of type int, got 0.5"),
        (["--data.augment.crop", "x"], "data.augment.crop must be one of 'random_resized', 'random', 'center', got x"),
        (["--data.preprocessing.crop", "x"], "data.preprocessing.crop must be of type int or null, got x"),
        (["--trainer.max_epochs", "three"], "trainer.max_epochs must be of type int or null, got three"),
        (["--model.dim", "[a]"], "model.dim must be of type int or list[int] or 'auto' or null, got ['a']"),
        (["--data.rot", "x"], "unknown option 'data.rot': did you mean data.root"),
        (["--data.augment.crp", "x"], "unknown option 'data.augment.crp': did you mean data.augment.crop"),
        (["--data.preprocessing.crp", "3"], "unknown option 'data.preprocessing.crp': did you mean data.preprocessing"),
        (["--data", "ImageFolders"], "unknown data module 'ImageFolders': did you mean ImageFolder"),
        (["--data", "gcpzoo.data.Nothing"], "data: gcpzoo.data.Nothing: "),
        (["--trainer.callbacks", "Hybrid"], "trainer.callbacks: no class 'Hybrid'; give its import path"),
        (
            ["--trainer.callbacks", "[{class_path: gcpzoo.training.StagedUnfreezing}]"],
            "--trainer.callbacks.unfreeze_at is missing",
        ),
    ],
)
def test_every_kind_of_message_is_put_into_our_words(cli: Cli, arguments: list[str], expected: str) -> None:
    code, _, err = cli(*BASE, *arguments)
    assert code == 2
    assert err.startswith(f"gcpzoo: error: {expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("model:\n  hed: gap\n", "unknown option 'model.hed': did you mean model.head"),
        ("modle:\n  head: gap\n", "unknown option 'modle.head': did you mean model.head"),
        ("- a\n", "a config file must be a mapping of model, data, trainer …, got something else or nothing"),
        ("", "a config file must be a mapping of model, data, trainer …, got something else or nothing"),
        ("data: {class_path: ImageFolder, init_args: {root: x, rot: 1}}\n", "unknown option 'data.rot': did you mean"),
        (
            "data: {class_path: ImageFolder, init_args: {root: x, augment: {crp: 1}}}\n",
            "unknown option 'data.augment.crp': did you mean data.augment.crop",
        ),
        (
            "data: {class_path: ImageFolder, init_args: {root: x, preprocessing: {crp: 1}}}\n",
            "unknown option 'data.preprocessing.crp': did you mean data.preprocessing",
        ),
        (
            CALLBACKS.format("HybridRoot", "{epok: 1}"),
            "unknown option 'trainer.callbacks.epok': did you mean trainer.callbacks.epoch",
        ),
        (
            CALLBACKS.format("HybridRot", "{}"),
            "trainer.callbacks: gcpzoo.training.HybridRot: No gcpzoo.training attribute HybridRot",
        ),
    ],
)
def test_a_mistake_in_a_config_file_is_put_into_our_words(cli: Cli, content: str, expected: str) -> None:
    Path("mine.yaml").write_text(content)
    code, _, err = cli(*BASE, "--config", "mine.yaml")
    assert code == 2
    assert err.startswith(f"gcpzoo: error: {expected}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit"], "--data is missing: give a data module, such as ImageFolder"),
        (["test", "--data", "CUB200"], "--data.root is missing"),
    ],
)
def test_a_missing_option_is_named_as_it_is_typed(cli: Cli, arguments: list[str], expected: str) -> None:
    code, _, err = cli(*arguments)
    assert (code, err) == (2, f"gcpzoo: error: {expected}\n")


def test_suggestions_are_options_that_exist() -> None:
    assert not {name for name in options() if name.endswith(("kwargs", ".args")) and name != "model.optimizer.args"}
    assert {"data.test_fraction", "model.head_args.iterations", "model.schedule.gamma", "output"} <= set(options())


def test_a_warning_of_ours_is_one_line_without_a_place_in_the_code() -> None:
    command = (
        "import warnings, gcpzoo.errors; from gcpzoo.cli.main import main; main(['list', 'none*']);"
        "warnings.warn_explicit('beware', UserWarning, gcpzoo.errors.__file__, 7);"
        "warnings.warn_explicit('beware', UserWarning, '/elsewhere/other.py', 7)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert "gcpzoo: warning: beware" in lines
    assert "/elsewhere/other.py:7: UserWarning: beware" in lines
