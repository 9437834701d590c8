"""Short forms of the trainer's commands; torch is not needed yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcpzoo.cli.former_names import CONFIG_SUFFIXES, MOVED_CONFIGS, refuse_former_names
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.limits import load_yaml, read_text
from gcpzoo.paths import resource

FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
SWITCHES = {"--skip-corrupt": ("--data.on_error", "skip"), "--balanced": ("--model.balanced", "true")}
"""Short forms without a value, and the options that they stand for; these come last, behind ``--data``."""


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
        elif key == "--ckpt_path" and not Path(value).is_file():
            raise ZooError(f"no checkpoint {value!r}; give the file, runs/NAME/checkpoints/last.ckpt")
        elif key.startswith("--"):
            refuse_former_names({key.removeprefix("--"): value})
            if key == "--model" and not value.endswith(CONFIG_SUFFIXES):
                argument = f"--model.checkpoint{equals}{inline}"
        before, _, path = argument.rpartition("=")
        if path.endswith(CONFIG_SUFFIXES) and Path(path).is_file():  # a file, not the attribute yaml of a module
            argument = f"{before}={Path.cwd() / path}" if before else str(Path.cwd() / path)
        arguments.append(argument)
    meant = [part for switch, option in SWITCHES.items() if switch in arguments for part in option]
    return _configs_first([*(argument for argument in arguments if argument not in SWITCHES), *meant])


def refuse_missing_files(argv: Sequence[str]) -> None:
    """Refuse a folder of images and a file of weights that do not exist, before torch is imported.

    >>> refuse_missing_files(["fit", "--data", "ImageFolder", "--data.root", "/nowhere"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: there is no folder /nowhere; expected train, val and test folders, or class folders
    """
    for i, argument in enumerate(argv):
        key, equals, inline = argument.partition("=")
        value = inline if equals else "".join(argv[i + 1 : i + 2])
        if key == "--data.root" and value and not Path(value).expanduser().exists():
            raise ZooError(f"there is no folder {value}; expected train, val and test folders, or class folders")
        if key == "--model.backbone_weights" and Path(value).suffix in FILES and not Path(value).is_file():
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


def _find_config(name: str) -> str:
    """Find a config by its path, or by its path in the package, and check it for former names."""
    path = Path(name)
    if not path.exists():
        folder = resource("configs")
        short = name.removeprefix("configs/")
        if short in MOVED_CONFIGS:
            raise ZooError(f"config file {short!r} is now {MOVED_CONFIGS[short]!r}")
        known = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.yaml") if p.name != "index.yaml")
        if short not in known:
            raise unknown_name("config file", name, known)
        path = folder / short
    if path.is_file():
        try:
            content = load_yaml(read_text(path, str(path)), str(path))
        except UnicodeDecodeError:
            raise ZooError(f"config file {name!r} must be text in UTF-8") from None
        refuse_former_names(content, where=f"{path}: ")
        _check_groups(content, path)
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
