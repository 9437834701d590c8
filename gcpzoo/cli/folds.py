"""``gcpzoo fit FOLDER --folds K``: a cross-validation, one training for each part of the images."""

from __future__ import annotations

import json
from pathlib import Path

from gcpzoo.cli.chosen import train_one_of
from gcpzoo.cli.compare import without
from gcpzoo.cli.folder_request import FolderRequest
from gcpzoo.cli.outputs import refuse_training
from gcpzoo.experiments.folder import Choice
from gcpzoo.experiments.statistics import mean_interval, percent
from gcpzoo.hub.run_results import read_report
from gcpzoo.paths import write_text

METRICS = {"top1": "top-1", "per_class": "mean over classes", "f1": "F1"}


def cross_validate(request: FolderRequest, choice: Choice) -> int:
    """Train once for each part, with the others, into ``fold-1`` and so on; print and write mean and interval.

    Raises:
        ZooError: if the folder holds a training, or the images cannot be cut so; and whatever ends a training.
    """
    output = Path(request.typed["output"])
    refuse_training(output, "a cross-validation")
    runs = [output / f"fold-{i + 1}" for i in range(request.folds)]
    for i, run in enumerate(runs):
        print(f"\nfold {i + 1} of {request.folds}", flush=True)
        own = ["--data.folds", str(request.folds), "--data.fold", str(i), "--output", str(run)]
        if code := train_one_of(choice, [*without(request.rest, ("output",)), *own], output):
            return code
    tests = [read_report(run)["test"] for run in runs]
    found = {name: mean_interval([test[name] for test in tests]) for name in METRICS}
    content = {
        "folds": request.folds,
        **{name: {"mean": e.mean, "low": e.low, "high": e.high} for name, e in found.items()},
        "test": [{name: test[name] for name in METRICS} for test in tests],
    }
    write_text(output / "folds.json", json.dumps(content, indent=2) + "\n")
    print(f"\n{request.folds} folds, every image tested once:")
    for name, e in found.items():
        print(f"  {METRICS[name]} {percent(e)} %")
    print("± is a 95 % interval over folds; their training images overlap, so it is somewhat too narrow")
    print(f"results in {output}")
    return 0
