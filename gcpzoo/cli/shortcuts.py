"""Short forms of the trainer's commands; torch is not needed yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.paths import WEIGHT_FILES, run_file
from gcpzoo.training.configs import find_config, read_config
from gcpzoo.training.former_names import CONFIG_SUFFIXES, refuse_former_names

SWITCHES = {"--skip-corrupt": ("--data.on_error", "skip"), "--balanced": ("--model.balanced", "true")}
"""Short forms without a value, and the options that they stand for; these come last, behind ``--data``."""
HELP_ALL = "--help-all"
"""Asks for the parser's help page; :mod:`gcpzoo.cli.help` answers --help."""


def is_on_data(argv: Sequence[str]) -> bool:
    """Say whether ``predict`` is to run on a data module, which LightningCLI answers.

    >>> is_on_data(["predict", "--data", "Digits"]), is_on_data(["predict", "--model", "m", "a.png"])
    (True, False)
    """
    return any(a == "-c" or a.startswith(("--config", "--data")) for a in argv)


def expand_shortcuts(argv: Sequence[str]) -> list[str]:
    """Write out the short forms that the trainer's commands take, and refuse what cannot work before torch is imported.

    ``--model NAME`` becomes ``--model.checkpoint NAME``, ``--skip-corrupt`` becomes ``--data.on_error skip``, and
    ``--balanced`` becomes ``--model.balanced true``. Configs of the package are found by their short path. They come
    first, so that options win wherever they stand.

    Raises:
        ZooError: if a config or checkpoint file does not exist, or an option has moved: the message gives its new name.

    >>> expand_shortcuts(["test", "--model", "resnet18_isqrt.digits"])
    ['test', '--model.checkpoint', 'resnet18_isqrt.digits']
    >>> expand_shortcuts(["fit", "--skip-corrupt", "--data", "ImageFolder"])
    ['fit', '--data', 'ImageFolder', '--data.on_error', 'skip']
    >>> expand_shortcuts(["fit", "--model.lr", "0.1"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: option 'model.lr' is now 'model.optimizer.lr'
    """
    arguments: list[str] = []
    for i, argument in enumerate(argv):
        key, equals, inline = argument.partition("=")
        value = inline if equals else "".join(argv[i + 1 : i + 2])
        if arguments[-1:] in (["-c"], ["--config"]):
            argument = _find_config(argument)
        elif key == "--config" and equals:
            argument = f"--config={_find_config(inline)}"
        elif arguments[-1:] == ["--ckpt_path"]:
            argument = _find_checkpoint(argument)
        elif key == "--ckpt_path" and equals:
            argument = f"--ckpt_path={_find_checkpoint(inline)}"
        elif key == "--ckpt_path" and not value:
            raise ZooError("--ckpt_path needs a file, or the folder of a run")
        elif key.startswith("--"):
            refuse_former_names({key.removeprefix("--"): value})
            if key == "--model" and not value.endswith(CONFIG_SUFFIXES):
                argument = f"--model.checkpoint{equals}{inline}"
        before, _, path = argument.rpartition("=")
        if path.endswith(CONFIG_SUFFIXES) and Path(path).is_file():  # a file, not the attribute yaml of a module
            argument = f"{before}={Path.cwd() / path}" if before else str(Path.cwd() / path)
        arguments.append(argument)
    arguments = ["--help" if argument == HELP_ALL else argument for argument in arguments]
    meant = [part for switch, option in SWITCHES.items() if switch in arguments for part in option]
    return _configs_first([*(argument for argument in arguments if argument not in SWITCHES), *meant])


def refuse_missing_files(argv: Sequence[str]) -> None:
    """Refuse a folder of images and a file of weights that do not exist, before torch is imported.

    To print a config, neither need exist.

    >>> refuse_missing_files(["fit", "--data", "ImageFolder", "--data.root", "/nowhere"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: there is no folder /nowhere; expected train, val and test folders, or class folders
    """
    if any(argument.startswith("--print_config") for argument in argv):
        return
    for i, argument in enumerate(argv):
        key, equals, inline = argument.partition("=")
        value = inline if equals else "".join(argv[i + 1 : i + 2])
        if key == "--data.root" and value and not Path(value).expanduser().exists():
            raise ZooError(f"there is no folder {value}; expected train, val and test folders, or class folders")
        if key == "--model.backbone_weights" and Path(value).suffix in WEIGHT_FILES and not Path(value).is_file():
            raise ZooError(f"no weights file {value!r}")


def _configs_first(arguments: Sequence[str]) -> list[str]:
    """Move config files to the front, behind the command: the parser lets the later of two arguments win.

    >>> _configs_first(["fit", "--model.head", "gap", "--config", "a.yaml"])
    ['fit', '--config', 'a.yaml', '--model.head', 'gap']
    """
    configs: list[str] = []
    rest: list[str] = []
    for argument in arguments[1:]:
        follows = configs[-1:] in (["-c"], ["--config"])
        is_config = argument in ("-c", "--config") or argument.startswith("--config=")
        (configs if follows or is_config else rest).append(argument)
    return [*arguments[:1], *configs, *rest]


def _find_checkpoint(name: str) -> str:
    """Find the checkpoint of ``--ckpt_path``: a file, or a run's folder."""
    path = Path(name) if Path(name).is_file() else run_file(name) if name else None
    if path is None:
        raise ZooError(f"no checkpoint {name!r}; give the file, runs/NAME/checkpoints/last.ckpt, or runs/NAME")
    return str(path)


def _find_config(name: str) -> str:
    """Find a config and check it, so that its mistakes are named before torch is imported."""
    path = find_config(name)
    if path.is_file():  # not a pipe, which can be read but once
        _check_groups(read_config(path), path)
    return str(path)


def _check_groups(content: Any, path: Path) -> None:
    """Refuse a plain value where a config has a group of options."""
    if not isinstance(content, Mapping):
        return  # the parser says so
    model = content.get("model")
    groups = {key: content.get(key) for key in ("model", "trainer")}
    if isinstance(model, Mapping):
        groups |= {f"model.{key}": model.get(key) for key in ("optimizer", "schedule", "distillation")}
    for key, value in groups.items():
        if value is not None and not isinstance(value, Mapping):
            raise ZooError(f"{path}: {key} must be a mapping of options, got {value!r}")
