"""Short forms of the trainer's commands, and options under their former names; torch is not needed yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.paths import resource
from gcpzoo.training.upgrade import MOVED, RENAMED

CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
MOVED_OPTIONS = {
    **{f"model.{old}": "model." + ".".join(new) for old, new in MOVED.items()},
    **{f"model.{old}": f"model.{new}" for old, new in RENAMED.items()},
}
MOVED_CLASSES = {
    "gcpzoo.callbacks.": "gcpzoo.training.",
    "gcpzoo.task.": "gcpzoo.training.",
    "gcpzoo.data.PictureDataModule": "gcpzoo.data.ImageDataModule",
}
MOVED_CONFIGS = {"finetune/pictures.yaml": "finetune/images.yaml"}


def is_on_data(argv: Sequence[str]) -> bool:
    """Say whether ``predict`` is to run on a data module, which LightningCLI answers.

    >>> is_on_data(["predict", "--data", "Digits"]), is_on_data(["predict", "--model", "m", "a.png"])
    (True, False)
    """
    return any(a == "-c" or a.startswith(("--config", "--data")) for a in argv)


def expand_shortcuts(argv: Sequence[str]) -> list[str]:
    """Write out what the trainer's commands take in short, and refuse options under their former names.

    ``--model NAME`` becomes ``--model.checkpoint NAME``; configs of the package are found by their short path.

    Raises:
        ZooError: if a config file does not exist, or an option has moved: the message gives its new name.

    >>> expand_shortcuts(["test", "--model", "resnet18_isqrt.digits"])
    ['test', '--model.checkpoint', 'resnet18_isqrt.digits']
    >>> expand_shortcuts(["fit", "--model.lr", "0.1"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: option 'model.lr' is now 'model.optimizer.lr'
    """
    arguments: list[str] = []
    for i, argument in enumerate(argv):
        key, equals, inline = argument.partition("=")
        value = inline if equals else (argv[i + 1] if i + 1 < len(argv) else "")
        if arguments[-1:] in (["-c"], ["--config"]):
            argument = _config_file(argument)
        elif key == "--config" and equals:
            argument = f"--config={_config_file(inline)}"
        elif key.startswith("--"):
            _refuse_moved_option(key.removeprefix("--"), value)
            _refuse_moved_class(value)
            if key == "--model" and not value.endswith(CONFIG_SUFFIXES):
                argument = f"--model.checkpoint{equals}{inline}"
        arguments.append(argument)
    return arguments


def _config_file(name: str) -> str:
    """Find a config by its path, or by its path in the package, and check it for former names."""
    path = Path(name)
    if not path.exists():
        folder = resource("configs")
        short = name.removeprefix("configs/")
        if short in MOVED_CONFIGS:
            raise ZooError(f"config file {short!r} is now {MOVED_CONFIGS[short]!r}")
        known = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.yaml"))
        if short not in known:
            raise unknown_name("config file", name, known)
        path = folder / short
    if path.is_file():
        _check_config(path)
    return str(path)


def _check_config(path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # the parser says what is wrong with it
    for key, value in _flatten(content):
        _refuse_moved_option(key, value, where=f"{path}: ")
        _refuse_moved_class(value, where=f"{path}: ")


def _flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with their values, mappings included."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield f"{prefix}{key}", value
            yield from _flatten(value, f"{prefix}{key}.")
    elif isinstance(content, list):
        for value in content:
            yield from _flatten(value, prefix)


def _refuse_moved_option(key: str, value: Any, where: str = "") -> None:
    if key in ("model.optimizer", "model.schedule") and not isinstance(value, str):
        return  # the group itself
    if key in ("model.optimizer", "model.schedule") and value.startswith("{"):
        return
    for old, new in MOVED_OPTIONS.items():
        if key == old or (old == "model.optimizer_args" and key.startswith(f"{old}.")):
            raise ZooError(f"{where}option {key!r} is now {key.replace(old, new)!r}")


def _refuse_moved_class(value: Any, where: str = "") -> None:
    for old, new in MOVED_CLASSES.items():
        if isinstance(value, str) and value.startswith(old):
            raise ZooError(f"{where}{value!r} is now {value.replace(old, new)!r}")
