"""Generations of networks, each of which learned from the one before, and the ensemble of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from torch import Tensor, nn

from gcpzoo import __version__
from gcpzoo.analysis import fit_temperature
from gcpzoo.data import ImageDataModule
from gcpzoo.errors import ZooError
from gcpzoo.hub.loading import load
from gcpzoo.hub.run_checkpoint import read_run_checkpoint
from gcpzoo.hub.run_results import REPORT, read_report
from gcpzoo.models.fingerprint import fingerprint
from gcpzoo.training.checkpoints import FOLDER, LAST
from gcpzoo.training.metrics import evaluation_metrics
from gcpzoo.training.run_report import numbers
from gcpzoo.training.task import Batch, ClassificationTask

FORMAT = 1


class Ensemble(L.LightningModule):
    """Networks whose class probabilities are averaged, to be evaluated by a trainer.

    Source: Furlanello et al., "Born-Again Neural Networks", ICML 2018, section 3.

    >>> one, other = (ClassificationTask(3, backbone="resnet18", until="layer1", dim=8) for _ in range(2))
    >>> first, second, mean = Ensemble([one, other]).eval()(torch.zeros(2, 3, 32, 32)).exp()
    >>> torch.allclose(mean, (first + second) / 2)
    True
    """

    def __init__(self, members: Sequence[ClassificationTask]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.collected: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Compute log-probabilities ``(K + 1, B, num_classes)``: of K members, then of the mean of their probabilities.

        Args:
            x: images ``(B, 3, H, W)``, or ``(B, V, 3, H, W)`` for V views.
        """
        each = torch.stack([member(x) for member in self.members]).float().log_softmax(-1)
        mean = each.logsumexp(0, keepdim=True) - math.log(len(each))
        return torch.cat([each, mean])

    def setup(self, stage: str) -> None:
        """Refuse data of other classes."""
        for member in self.members:
            assert isinstance(member, ClassificationTask)
            member.trainer = self.trainer
            member.setup(stage)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        x, y = batch
        self.collected.append((self(x).cpu(), y.cpu()))

    validation_step = test_step

    def take(self) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities ``(K + 1, N, num_classes)`` and labels of an evaluation, and forget them."""
        answers, labels = zip(*self.collected)
        self.collected = []
        return torch.cat(answers, 1), torch.cat(labels)


def load_run(run: Path) -> ClassificationTask:
    """Load the last checkpoint of a run as it is evaluated, with the classes that it knows.

    Raises:
        ZooError: if there is none.

    >>> load_run(Path("nowhere"))
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: no weights file 'nowhere/checkpoints/last.ckpt'
    """
    path = run / FOLDER / LAST
    names = read_run_checkpoint(path).class_names
    task = ClassificationTask.load_from_checkpoint(path)
    task.model.class_names = names
    return task


def check_teachers(runs: Sequence[Path]) -> None:
    """Check that each run learned from the network that the run before it now holds.

    Raises:
        ZooError: naming the first one that did not, and what to do.

    >>> check_teachers([Path("nowhere"), Path("neither")])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: neither/metrics.json names no teacher, ...
    """
    for before, run in pairwise(runs):
        report = read_report(run)
        remedy = "bring its own back, or start again with another --output"
        if "sha256" not in (report.get("teacher") or {}):
            raise ZooError(f"{run / REPORT} names no teacher, and {run} must have learned from {before}: {remedy}")
        taught, found = report["teacher"]["sha256"], fingerprint(load(before))
        if taught != found:
            raise ZooError(
                f"{run} did not learn from {before} as it is now: its teacher had the sha256 {taught[:12]}…, {before} "
                f"has {found[:12]}…; {remedy}"
            )


def evaluate_generations(runs: Sequence[Path], data: Any, **trainer: Any) -> tuple[dict[str, Any], Tensor]:
    """Evaluate runs, and the ensemble of all of them, on the test split: as they are, and scaled by a temperature.

    The temperature of each, and of the ensemble's mean probabilities, is fitted on the validation split. Where there is
    none, where it is the test split, or where no temperature is the best one, there is only the evaluation as it is.

    Args:
        runs: folders of finished runs on the same data.
        data: their data module.
        trainer: further arguments of Lightning's trainer, which evaluates in one process.

    Returns:
        The report, which ``generations.json`` holds, and the ensemble's probabilities ``(N, num_classes)``.

    Raises:
        ZooError: if a run has no checkpoint, knows other classes, or learned from another network than the run before.

    >>> evaluate_generations([Path("nowhere")], None)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: no weights file 'nowhere/checkpoints/last.ckpt'
    """
    ensemble = Ensemble([load_run(run) for run in runs])
    check_teachers(runs)
    evaluator = L.Trainer(
        devices=1, plugins=[LightningEnvironment()], logger=False, enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False, **trainer,
    )  # fmt: skip
    evaluator.test(ensemble, data, verbose=False)
    answers, labels = ensemble.take()
    note = _no_validation(data)
    known = None
    if note is None:
        evaluator.validate(ensemble, data, verbose=False)
        known = ensemble.take()
    rows = []
    for i, name in enumerate([*(run.name for run in runs), "ensemble"]):
        row: dict[str, Any] = {"name": name, "test": figures(answers[i], labels)}
        if known is not None:
            try:
                temperature = fit_temperature(known[0][i], known[1])
                scaled = figures(answers[i] / temperature, labels)
                row |= {"temperature": round(temperature, 6), "test_at_temperature": scaled}
            except ZooError as error:
                row["no_temperature"] = str(error)
        else:
            row["no_temperature"] = note
        rows.append(row)
    report = {
        "format": FORMAT,
        "gcpzoo": __version__,
        "data": data.record() if hasattr(data, "record") else {"data": type(data).__name__},
        "evaluations": rows,
    }
    return report, answers[-1].exp()


def figures(logits: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Compute the figures of an evaluation from its logits ``(N, num_classes)``, with six decimals.

    >>> figures(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([0]))["loss"]
    0.693147
    """
    metrics = evaluation_metrics(logits.shape[1])
    metrics.update(logits, labels)
    return numbers({"loss": nn.functional.cross_entropy(logits, labels), **metrics.compute()})


def _no_validation(data: Any) -> str | None:
    """Say why no temperature can be fitted; ``None`` where there are validation images that are not tested on."""
    if not isinstance(data, ImageDataModule) or not data.val_dataloader():
        return "a temperature needs validation images, and there are none: set data.val_fraction"
    val, test = ({id(sample) for sample in data.samples(split)} for split in ("val", "test"))
    return "a temperature needs validation images that are not the test images" if val & test else None
