"""``gcpzoo fit FOLDER``: choose the settings, say why, train; with ``--compare`` the control too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcpzoo.cli.chosen import make_choice, say_choice, train_chosen
from gcpzoo.cli.compare import compare
from gcpzoo.cli.folder_request import FolderRequest
from gcpzoo.cli.folds import cross_validate
from gcpzoo.cli.outputs import refuse_run
from gcpzoo.cli.training import silence
from gcpzoo.errors import ZooError
from gcpzoo.experiments.folder import FolderSurvey, Source, find_source, survey_folder
from gcpzoo.experiments.folder.advice import BACKBONE

OTHER_STARTS = ("model", "model.checkpoint")


def fit_folder(request: FolderRequest) -> int:
    """Train on a folder with settings chosen for it, and return the exit code.

    Raises:
        ZooError: for every mistake of the user, before anything is trained where it can be seen.
    """
    silence()
    _refuse_run(request)
    survey = _survey(request)
    source = _source(request)
    if request.compare:
        return compare(request, survey, source)
    choice = make_choice(request, survey, source, request.typed.get("model.head"))
    if request.folds:
        choice.reasons["folds"] = f"each of {request.folds} parts of all images is the test once"
    say_choice(request.folder, choice)
    if request.folds:
        return cross_validate(request, choice)
    return train_chosen(choice, request.rest)


def _refuse_run(request: FolderRequest) -> None:
    """Refuse a folder that holds a run before the heads are tried, which takes a while."""
    several = request.compare or request.folds
    if "output" in request.typed and not several and request.typed.get("resume", "false") == "false":
        refuse_run(Path(request.typed["output"]))


def _survey(request: FolderRequest) -> FolderSurvey:
    shares: dict[str, Any] = {}
    for key in ("test_fraction", "val_fraction"):
        if (value := request.typed.get(f"data.{key}")) is not None:
            try:
                shares[key] = float(value)
            except ValueError:
                raise ZooError(f"data.{key} must be a number, got {value}") from None
    if request.folds:
        shares["test_fraction"] = 1 / request.folds
    survey = survey_folder(request.folder, **shares)
    if "best" in request.typed and "val" not in survey.images and not survey.val_fraction:
        if "val_fraction" in shares:
            raise ZooError("--best needs validation images, and --data.val_fraction 0 holds none out: leave one out")
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
