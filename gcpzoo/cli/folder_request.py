"""``gcpzoo fit FOLDER``: what its command line asks for, read before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gcpzoo.cli.shortcuts import SWITCHES
from gcpzoo.data.scan import refuse_inside
from gcpzoo.errors import ZooError
from gcpzoo.paths import WEIGHT_FILES

FLAGS = ("--compare",)
VALUES = ("--from", "--folds")
WITHOUT_VALUE = (*FLAGS, *SWITCHES, "--resume", "--best", "--lr_find", "--print_config", "--help", "-h")


@dataclass
class FolderRequest:
    """A folder to train on, and how.

    Attributes:
        folder: class folders, or train, val and test folders.
        source: what ``--from`` names.
        compare: train the control too.
        folds: trainings of a cross-validation; 0: none.
        rest: the other arguments, for the trainer.
        typed: those of them that have names, with their values as typed.

    >>> request = read_request(["fit", os.path.dirname(__file__), "--from", "resnet18_isqrt.cub50", "--model.head=gap"])
    >>> request.source, request.rest, request.typed
    ('resnet18_isqrt.cub50', ['--model.head=gap'], {'model.head': 'gap'})
    """

    folder: str
    source: str | None = None
    compare: bool = False
    folds: int = 0
    rest: list[str] = field(default_factory=list)
    typed: dict[str, str] = field(default_factory=dict)


def read_request(argv: Sequence[str]) -> FolderRequest | None:
    """Read ``fit FOLDER …``; nothing where no folder is given, so that the trainer reads the command itself.

    Raises:
        ZooError: if the folder or the file of weights does not exist, or two options exclude each other.

    >>> read_request(["fit", "--config", "finetune/images.yaml"])
    >>> read_request(["fit", "nowhere"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: there is no folder 'nowhere': give one with a subfolder of images for each class
    """
    request, folders, own = FolderRequest(""), list[str](), dict[str, str]()
    waiting = list(reversed(argv[1:]))
    while waiting:
        argument = waiting.pop()
        key, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            folders.append(argument)
            continue
        follows = not equals and key not in WITHOUT_VALUE and bool(waiting) and not waiting[-1].startswith("--")
        follows |= key == "--resume" and waiting[-1:] in (["true"], ["false"])
        value = waiting.pop() if follows else value if equals else "true"
        if key in (*FLAGS, *VALUES):
            own[key] = value if follows or equals or key in FLAGS else ""
        else:
            request.typed[key.lstrip("-")] = value
            request.rest += [argument, value] if follows else [argument]
    if not folders:
        for key in own:
            raise ZooError(f"{key} belongs to 'gcpzoo fit FOLDER': name the folder of the images")
        return None
    return _check(request, folders, own)


def _check(request: FolderRequest, folders: list[str], own: dict[str, str]) -> FolderRequest:
    if len(folders) > 1:
        raise ZooError(f"fit takes one folder, got {' and '.join(map(repr, folders[:3]))}")
    request.folder, request.source = folders[0], own.get("--from")
    if not os.path.isdir(request.folder):
        raise ZooError(f"there is no folder {request.folder!r}: give one with a subfolder of images for each class")
    for key in ("config", "c"):
        if key in request.typed:
            raise ZooError(
                "FOLDER brings settings of its own, which do not mix with those of --config: give the folder to the "
                "config by --data.root, or single options to FOLDER"
            )
    for key in ("data", "data.root", "generations"):
        if key in request.typed:
            raise ZooError(f"--{key} and FOLDER exclude each other: leave one of them out")
    for key in ("model", "model.checkpoint", "model.backbone_weights", "model.pretrained_backbone"):
        if request.source is not None and key in request.typed:
            raise ZooError(f"--from and --{key} exclude each other: leave one of them out")
    if request.source is not None:
        _check_source(request.source)
    request.compare = "--compare" in own
    if "--folds" in own:
        if not own["--folds"].isdigit() or int(own["--folds"]) < 2:
            raise ZooError(f"--folds must be a whole number of at least 2, got {own['--folds']!r}")
        request.folds = int(own["--folds"])
    several = [key for key in ("--compare", "--folds") if key in own]
    if len(several) > 1:
        raise ZooError(f"{' and '.join(several)} exclude each other: give one of them")
    if several and "lr_find" in request.typed:
        raise ZooError(f"--lr_find and {several[0]} exclude each other: look for the rate first")
    if several and "output" not in request.typed:
        raise ZooError(f"{several[0]} trains several networks: give the folder for them by --output DIR")
    if several and (request.typed.get("evaluate", "true") != "true" or "trainer.fast_dev_run" in request.typed):
        raise ZooError(f"{several[0]} needs the tests: leave out --evaluate and --trainer.fast_dev_run")
    refuse_inside(request.typed.get("output", "runs"), request.folder)
    return request


def _check_source(given: str) -> None:
    """Refuse what cannot exist before torch is imported; the rest is seen when it is opened."""
    if not given:
        raise ZooError("--from must name a model of the zoo, a folder, a run or a file of weights, got nothing")
    if given.startswith("hf-hub:") or Path(given).exists():
        return
    if Path(given).suffix in WEIGHT_FILES or "/" in given:
        raise ZooError(f"--from: there is no file or folder {given!r}")
    from gcpzoo.hub.records import get_record

    get_record(given)
