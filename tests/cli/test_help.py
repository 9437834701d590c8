"""The help pages: examples that can be typed, options that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest

from gcpzoo.cli.help import EXAMPLES, trainer_options
from gcpzoo.cli.main import COMMANDS, TRAINER_COMMANDS, parser
from gcpzoo.data.modules import data_modules
from gcpzoo.training.configs import find_config

Cli = Callable[..., tuple[int, str, str]]


def test_every_command_has_examples_that_its_parser_takes() -> None:
    assert set(EXAMPLES) == {*TRAINER_COMMANDS, *(name.replace("_", "-") for name in COMMANDS)}
    for command, examples in EXAMPLES.items():
        for example in examples:
            assert shlex.split(example)[:2] == ["gcpzoo", command]
            for name in re.findall(r"--config (\S+)", example):
                assert find_config(name).is_file()
            if command not in TRAINER_COMMANDS and "--data.root" not in example:  # those, LightningCLI parses
                parser().parse_args(shlex.split(example)[1:])


def test_help_names_the_data_modules_that_there_are() -> None:
    named = dict(trainer_options("fit"))["--data CLASS"].partition(" or ")[0]
    assert set(named.split(", ")) == set(data_modules())


def test_help_shows_the_examples_before_the_rest(cli: Cli) -> None:
    code, out, _ = cli("shard", "--help")
    assert code == 0
    assert "examples:\n  gcpzoo shard FOLDER SHARDS" in out
    assert "--max-mb" in out


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_short_help_shows_options_that_exist(command: str, cli: Cli) -> None:
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 84
    _, everything, _ = cli(command, "--help-all")
    _, image_folder, _ = cli("fit", "--data.help", "ImageFolder")
    for option in re.findall(r"^  (--[\w.-]+)", out, re.MULTILINE):
        of_folders = ("--from", "--compare", "--folds", "--balanced")
        known = (*of_folders, "--model", "--data", "--skip-corrupt", "--seed_everything")
        assert option in known or f"{option} " in everything + image_folder, option
