"""Settings that were chosen for a folder: made for this machine, explained, trained with."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import yaml

from gcpzoo.cli.folder_request import FolderRequest
from gcpzoo.cli.generations import train_apart
from gcpzoo.cli.shortcuts import expand_shortcuts
from gcpzoo.cli.training import train
from gcpzoo.errors import printable
from gcpzoo.experiments.folder import Choice, FolderSurvey, Source, choose, compare_frozen, image_size
from gcpzoo.experiments.folder.advice import DEFAULT, HEADS
from gcpzoo.experiments.folder.frozen import IMAGES, LEAST, says_anything
from gcpzoo.limits import read_yaml
from gcpzoo.training.options import CONFIG


def make_choice(request: FolderRequest, survey: FolderSurvey, source: Source | None, head: str | None = None) -> Choice:
    """Choose the settings for a head on this machine; where none is given, for the one that suits the folder."""
    on_gpu = (
        torch.cuda.is_available()
        and torch.cuda.is_bf16_supported()
        and request.typed.get("trainer.accelerator") != "cpu"
    )
    measured, untried = None, False
    if head is None:
        head = _head_of_run(request)
    if head is None and source is not None and "backbone_weights" in source.model:
        size = request.typed.get("data.image_size", "")
        if says_anything(survey):
            print(f"trying the heads on the frozen backbone, with up to {IMAGES:,} training images", file=sys.stderr)
        measured = compare_frozen(survey, source, int(size) if size.isdigit() else image_size(survey, on_gpu))
        head, untried = (measured.keep, False) if measured else (None, True)
    typed = {("balanced" if key == "model.balanced" else key): value for key, value in request.typed.items()}
    choice = choose(survey, source, on_gpu, head or DEFAULT, typed, measured)
    if untried:
        choice.reasons["head"] += f"; a trial takes {LEAST} training images and two of each class, so there was none"
    return choice


def _head_of_run(request: FolderRequest) -> str | None:
    """Find which head a run that goes on was begun with: its choice is not made again."""
    path = Path(request.typed.get("output", ""), CONFIG)
    if request.typed.get("resume", "false") == "false" or not path.is_file():
        return None
    begun = read_yaml(path)
    return next((name for name, advice in HEADS.items() if advice.model["head"] == begun["model"]["head"]), None)


def train_chosen(choice: Choice, arguments: Sequence[str]) -> int:
    """Train by a choice; the arguments of the command line win over it."""
    with tempfile.TemporaryDirectory(prefix="gcpzoo-") as folder:
        config = Path(folder) / "choice.yaml"
        config.write_text(yaml.safe_dump(choice.options, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return train(expand_shortcuts(["fit", "--config", str(config), *arguments]))


def train_one_of(choice: Choice, arguments: Sequence[str], output: Path) -> int:
    """Train one of several networks below ``output``, and leave the process as it was; say how they go on."""
    code: int = train_apart(arguments, output, lambda own: train_chosen(choice, own))
    if code:
        same = f"the same command with --resume --output {shlex.quote(str(output))}"
        print(f"gcpzoo: all of them go on by {same}", file=sys.stderr)
    return code


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
