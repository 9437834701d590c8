"""Config files: found by their path, or by their path in the package, and read with former names refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.limits import read_yaml
from gcpzoo.paths import resource
from gcpzoo.training.former_names import MOVED_CONFIGS, refuse_former_names


def find_config(name: str | Path, kind: str = "config file", under: str = "") -> Path:
    """Find a config file by its path, or by its path in the package.

    Args:
        name: such as ``mine.yaml``, ``pretrain/digits.yaml``, or the same behind ``./`` or ``configs/``.
        kind: what to call it in errors.
        under: folder of the package's configs that this kind is in.

    Raises:
        ZooError: if there is none: the message names the nearest, or what a former name is now.

    >>> find_config("./pretrain/digits.yaml") == resource("configs") / "pretrain" / "digits.yaml"
    True
    >>> find_config("finetune/pictures.yaml")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: config file 'finetune/pictures.yaml' is now 'finetune/images.yaml'
    """
    path, folder = Path(name), resource("configs")
    if path.is_dir():
        raise ZooError(f"{kind} {str(name)!r} is a folder: give a file")
    if path.exists():
        return path
    short = path.as_posix().removeprefix("configs/")
    if short in MOVED_CONFIGS:
        raise ZooError(f"{kind} {short!r} is now {MOVED_CONFIGS[short]!r}")
    known = [p.relative_to(folder).as_posix() for p in (folder / under).rglob("*.yaml") if p.name != "index.yaml"]
    if short not in known:
        raise unknown_name(kind, str(name), known)
    return folder / short


def read_config(path: Path) -> Any:
    """Read a config file.

    Raises:
        ZooError: if it is not YAML in UTF-8, or has options or classes by their former names.

    >>> read_config(find_config("pretrain/digits.yaml"))["model"]["backbone"]
    'resnet18'
    """
    try:
        content = read_yaml(path)
    except UnicodeDecodeError:
        raise ZooError(f"config file {str(path)!r} must be text in UTF-8") from None
    except OSError as error:
        raise ZooError(f"config file {str(path)!r} cannot be read: {error.strerror}") from None
    refuse_former_names(content, where=f"{path}: ")
    return content
