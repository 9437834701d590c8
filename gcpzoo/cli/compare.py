"""``gcpzoo fit FOLDER --compare``: a covariance head and its control, each at its own rates, and which to keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcpzoo.cli.chosen import make_choice, say_choice, train_one_of
from gcpzoo.cli.folder_request import FolderRequest
from gcpzoo.cli.outputs import refuse_training
from gcpzoo.errors import ZooError
from gcpzoo.experiments.folder import FolderSurvey, Source
from gcpzoo.experiments.folder.advice import CONTROL, DEFAULT, HEADS
from gcpzoo.experiments.folder.compare import compare_runs, lines, write_comparison
from gcpzoo.hub.run_results import read_report

OF_THE_HEAD = ("model.head", "model.head_args", "model.fusion", "model.dim")
"""Options that the control does not take over."""


def compare(request: FolderRequest, survey: FolderSurvey, source: Source | None) -> int:
    """Train both into folders below ``--output``, print and write what their test images say.

    Raises:
        ZooError: if the two would not be comparable, and whatever ends one of the trainings.
    """
    head = request.typed.get("model.head", DEFAULT)
    if source is None or head == HEADS[CONTROL].model["head"]:
        raise ZooError(
            "--compare trains a covariance head and its average-pooling control from one backbone: name the backbone's "
            "weights by --from, and leave out --model and --model.head gap"
        )
    output = Path(request.typed["output"])
    runs = {"gcp": output / "gcp", "gap": output / "gap"}
    refuse_training(output, "a comparison")
    rest = without(request.rest, ("output",))
    choices = {
        "gcp": make_choice(request, survey, source, head),
        "gap": make_choice(request, survey, source, CONTROL),
    }
    say_choice(request.folder, choices["gcp"])
    for name, choice in choices.items():
        own = rest if name == "gcp" else without(rest, OF_THE_HEAD)
        print(f"\n{name}: {choice.options['model']['head']}; {choice.reasons['rates']}", flush=True)
        if code := train_one_of(choice, [*own, "--output", str(runs[name])], output):
            return code
    reports = {name: read_report(run) for name, run in runs.items()}
    labels = {name: _label(report["model"]) for name, report in reports.items()}
    verdict = compare_runs(runs)
    about = {
        "data": reports["gcp"]["data"],
        "seed": reports["gcp"]["seed"],
        "runs": {
            name: {"checkpoint": r.get("checkpoint"), "epochs": r["fit"]["epochs"], "seconds": r["fit"]["seconds"]}
            for name, r in reports.items()
        },
        "rates": {name: choice.options["model"]["optimizer"] for name, choice in choices.items()},
    }
    write_comparison(verdict, labels, about, output)
    print()
    for line in lines(verdict, labels):
        print(line)
    print(f"comparison in {output}/comparison.md; the model to keep: {runs[verdict.keep]}")
    return 0


def _label(model: dict[str, object]) -> str:
    return f"{model['head']}{' + mean' if model.get('fusion') else ''}"


def without(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Leave out options with their values.

    >>> without(["--model.head", "isqrt", "--model.head_args.iterations=3", "--data.seed", "1"], ["model.head"])
    ['--model.head_args.iterations=3', '--data.seed', '1']
    """
    kept: list[str] = []
    drop = False
    for argument in arguments:
        key = argument.partition("=")[0]
        if argument.startswith("--"):
            drop = any(key == f"--{name}" or key.startswith(f"--{name}.") for name in names)
        if not drop:
            kept.append(argument)
    return kept
