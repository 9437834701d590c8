"""Choosing learning rates by Optuna: the same budget for every cell, judged on validation images alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.experiments.sweep.options import get
from gcpzoo.experiments.sweep.plan import Cell, Run
from gcpzoo.experiments.sweep.process import State
from gcpzoo.experiments.sweep.space import Search


class Searcher:
    """The trials of one cell, one after the other: iterate, and tell how each ended before the next.

    The first trial is what the file says, where that lies within the space; the others are Optuna's. A trial is judged
    by ``val/top1`` of its final epoch. It does not evaluate the test images, and is refused where the validation ran
    on them. Everything follows from the seed and the outcomes, so an interrupted search goes on by trying again.

    Args:
        cell: whose options to choose.
        search: the space and the budget.

    Raises:
        ModuleNotFoundError: if Optuna is not installed, an extra.

    >>> cell = Cell({"head": "gap"}, {"model": {"optimizer": {"lr": 0.01}}}, (0,))
    >>> searcher = Searcher(cell, Search({"model.optimizer.lr": (1e-4, 1e-1)}, trials=1))
    >>> [run.chosen for run in searcher]
    [{'model.optimizer.lr': 0.01}]
    """

    def __init__(self, cell: Cell, search: Search) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.cell, self.search = cell, search
        self.study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=4)
        )
        self.outcomes: list[tuple[float, dict[str, float]]] = []
        own = {option: get(cell.options, option) for option in search.space}
        if all(isinstance(own[o], int | float) and a <= own[o] <= b for o, (a, b) in search.space.items()):
            self.study.enqueue_trial({option: float(value) for option, value in own.items()})

    def __iter__(self) -> Iterator[Run]:
        """Give the trials."""
        for number in itertools.islice(itertools.count(), self.search.trials):
            self.trial = self.study.ask()
            chosen = {
                option: float(f"{self.trial.suggest_float(option, a, b, log=True):.4g}")
                for option, (a, b) in self.search.space.items()
            }
            yield Run(self.cell, self.search.seed, chosen, number, self.search.options)

    def tell(self, report: Mapping[str, Any], state: State | None) -> None:
        """Judge the trial by its report.

        Raises:
            ZooError: if there are no validation images, or they are the test images.
        """
        import optuna

        value = _judge(report, " · ".join(self.cell.labels.values())) if state and state.state == "done" else None
        if value is None:
            self.study.tell(self.trial, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(self.trial, value)
            self.outcomes.append((value, dict(self.trial.params)))

    def best(self) -> dict[str, float] | None:
        """Return what was best, the first of equals; nothing where all trials failed."""
        if not self.outcomes:
            return None
        _, values = max(self.outcomes, key=lambda outcome: outcome[0])
        return {option: float(f"{value:.4g}") for option, value in values.items()}


def _judge(report: Mapping[str, Any], cell: str) -> float | None:
    """Return the accuracy on the validation images in the final epoch; nothing where the loss was not finite."""
    if "test" in report:
        raise ZooError(f"{cell}: a trial of the search has seen the test images; remove its folder")
    if report.get("data", {}).get("val_on_test"):
        raise ZooError(
            f"{cell}: the validation images are the test images: a search needs others, see data.val_fraction"
        )
    rows = report.get("fit", {}).get("history", [])
    if not rows or "val/top1" not in rows[-1]:
        raise ZooError(f"{cell}: a search needs validation images: set data.val_fraction")
    value: float | None = rows[-1]["val/top1"]
    return value
