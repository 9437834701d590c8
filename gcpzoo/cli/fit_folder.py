"""``gcpzoo fit FOLDER``: choose the settings, say why, train; with ``--compare`` the control too."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from gcpzoo.cli.folder_request import FolderRequest
from gcpzoo.cli.shortcuts import expand_shortcuts
from gcpzoo.cli.training import silence, train
from gcpzoo.errors import ZooError, printable
from gcpzoo.experiments.folder import Choice, FolderSurvey, Source, choose, find_source, survey_folder
from gcpzoo.experiments.folder.advice import BACKBONE, DEFAULT

OTHER_STARTS = ("model", "model.checkpoint")


def fit_folder(request: FolderRequest) -> int:
    """Train on a folder with settings chosen for it, and return the exit code.

    Raises:
        ZooError: for every mistake of the user, before anything is trained where it can be seen.
    """
    silence()
    survey = _survey(request)
    source = _source(request)
    if request.compare:
        from gcpzoo.cli.compare import compare

        return compare(request, survey, source)
    choice = make_choice(request, survey, source, request.typed.get("model.head", DEFAULT))
    if request.folds:
        choice.reasons["folds"] = f"each of {request.folds} parts of all images is the test once, in place of one share"
    say_choice(request.folder, choice)
    if request.folds:
        from gcpzoo.cli.folds import cross_validate

        return cross_validate(request, choice)
    return train_chosen(choice, request.rest)


def make_choice(request: FolderRequest, survey: FolderSurvey, source: Source | None, head: str) -> Choice:
    """Choose the settings for a head on this machine."""
    on_gpu = torch.cuda.is_available() and request.typed.get("trainer.accelerator") != "cpu"
    typed = {("balanced" if key == "model.balanced" else key): value for key, value in request.typed.items()}
    return choose(survey, source, on_gpu, head, typed)


def train_chosen(choice: Choice, arguments: Sequence[str]) -> int:
    """Train by a choice; the arguments of the command line win over it."""
    with tempfile.TemporaryDirectory(prefix="gcpzoo-") as folder:
        config = Path(folder) / "choice.yaml"
        config.write_text(yaml.safe_dump(choice.options, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return train(expand_shortcuts(["fit", "--config", str(config), *arguments]))


def say_choice(folder: str, choice: Choice, title: str = "chosen for") -> None:
    """Print the reasons of a choice, from the first process."""
    if any(os.environ.get(key, "0") != "0" for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        return
    print(f"{title} {printable(folder)} (options win over it; config.yaml of the run has every setting):")
    say_reasons(choice.reasons)


def say_reasons(reasons: Mapping[str, str]) -> None:
    """Print reasons, one a line.

    >>> say_reasons({"epochs": "10"})
      epochs    10
    """
    for topic, reason in reasons.items():
        print(f"  {topic:9} {printable(reason)}", flush=True)


def _survey(request: FolderRequest) -> FolderSurvey:
    shares: dict[str, Any] = {}
    for key in ("test_fraction", "val_fraction"):
        if (value := request.typed.get(f"data.{key}")) is not None:
            try:
                shares[key] = float(value)
            except ValueError:
                raise ZooError(f"data.{key} must be a number, got {value}") from None
    survey = survey_folder(request.folder, **shares)
    if "best" in request.typed and "val" not in survey.images and not survey.val_fraction:
        smallest = list(survey.per_class)[-1]
        raise ZooError(
            f"--best needs validation images, but the classes of {request.folder} are too small to hold some out "
            f"({smallest!r} has {survey.per_class[smallest]} to train on): add images or a val folder, or leave it out"
        )
    return survey


def _source(request: FolderRequest) -> Source | None:
    """Find where the training starts; nothing where the user names a whole model."""
    typed = request.typed
    if any(key in typed for key in OTHER_STARTS):
        return None
    backbone = typed.get("model.backbone")
    if request.source is None and "model.pretrained_backbone" in typed:
        name = backbone or "mobilenet_v2"
        return Source({"backbone": name}, f"{name} with the library's ImageNet weights, as you asked")
    given = request.source or typed.get("model.backbone_weights")
    if given is None and backbone is not None:
        return Source({"backbone": backbone}, f"{backbone} as you asked, with random weights: --from gives it others")
    return find_source(given or BACKBONE, backbone)
