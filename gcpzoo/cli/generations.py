"""``gcpzoo fit --generations N``: trainings one after another, each taught by the one before, and their ensemble."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from gcpzoo.cli.outputs import OUTPUT, output_folder, write_predictions
from gcpzoo.errors import ZooError
from gcpzoo.limits import read_yaml
from gcpzoo.paths import write_text
from gcpzoo.training import DistillationConfig
from gcpzoo.training.generations import evaluate_generations
from gcpzoo.training.options import CONFIG

REPORT = "generations.json"


class SeveralTrainings(Exception):
    """Leaves LightningCLI, whose constructor runs one training, with the options of a command that asks for several."""

    def __init__(self, config: Namespace) -> None:
        self.config = config


def fit_generations(config: Namespace, argv: Sequence[str], fit: Callable[[Sequence[str]], Any]) -> None:
    """Train each generation in its own folder, then evaluate all of them and their ensemble.

    Each is an ordinary ``gcpzoo fit`` with the command's arguments and some more, so ``--resume`` goes on with the one
    that was stopped. The first learns from the config's own teacher, or from none.

    Args:
        config: the parsed options.
        argv: the arguments that they were parsed from.
        fit: trains once by such arguments and returns its ``ZooCLI``.

    Raises:
        ZooError: if an option cannot go with several trainings, and whatever ends one of them.
    """
    output = output_folder(config, "fit")
    _check(config, output)
    count = 1 if config.trainer.fast_dev_run else config.generations  # it leaves no checkpoint to learn from
    runs = [output / f"generation-{i}" for i in range(1, count + 1)]
    cli: Any = None
    for i in range(count):
        rank_zero_only(print)(f"generation {i + 1} of {config.generations}")
        cli = None  # the former network need not stay in memory
        cli = train_apart([*argv, *_options(config, runs, i)], output, fit)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if config.evaluate and cli.trainer.is_global_zero and not config.trainer.fast_dev_run:
        trainer = {key: config.trainer[key] for key in ("accelerator", "precision")}
        report, probabilities = evaluate_generations(runs, cli.datamodule, **trainer)
        write_text(output / REPORT, json.dumps(report, indent=2, default=str, allow_nan=False) + "\n")
        for row in report["evaluations"]:
            print(_line(row))
        write_predictions([probabilities], cli.model.model, cli.datamodule, output)
        print(f"results in {output}")


def _check(config: Namespace, output: Path) -> None:
    if config.generations < 1:
        raise ZooError(f"generations must be at least 1, got {config.generations}")
    if config.resume and not config.output:
        raise ZooError("--resume with --generations needs the folder of the generations: give --output DIR")
    if config.trainer.enable_checkpointing is False:
        raise ZooError("generations learn from checkpoints: leave out trainer.enable_checkpointing=false")
    values = config.model.distillation
    DistillationConfig(**{**values, "teacher": values.teacher or "the generation before"})  # wrong ones fail at once
    if (output / "generation-2" / CONFIG).is_file():  # it has learned from the first, which must stay as it is
        begun = read_yaml(output / "generation-1" / CONFIG)["trainer"]
        for key in ("max_epochs", "max_steps"):
            if begun[key] != config.trainer[key]:
                raise ZooError(
                    f"trainer.{key} must stay {begun[key]} in {output}, got {config.trainer[key]}: a generation that "
                    "has taught cannot be trained on; give another --output"
                )


def _options(config: Namespace, runs: Sequence[Path], i: int) -> list[str]:
    """Give the further arguments of one generation: its folder, its seed, and its teacher."""
    options = ["--generations", "1", "--output", str(runs[i])]
    seed = config.get("seed_everything")
    if isinstance(seed, int) and not isinstance(seed, bool):
        options += ["--seed_everything", str(seed + i)]
    if i:
        options += ["--model.distillation.teacher", str(runs[i - 1])]
    elif not config.model.distillation.teacher:
        for field in dataclasses.fields(DistillationConfig):  # meant for the generations that have a teacher
            options += [f"--model.distillation.{field.name}", json.dumps(field.default)]
    return options


def train_apart(argv: Sequence[str], output: Path, fit: Callable[[Sequence[str]], Any]) -> Any:
    """Train once, and leave the process as it was: its environment, and no group of processes that have ended."""
    before = dict(os.environ)
    try:
        cli = fit(argv)
    except BaseException:
        os.environ[OUTPUT] = str(output)  # what a stopped command goes on with
        raise
    started_others = "LOCAL_RANK" in os.environ and "LOCAL_RANK" not in before
    if started_others and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)
    return cli


def _line(row: dict[str, Any]) -> str:
    """Return the figures of one evaluation in a line.

    >>> test = {"top1": 0.5, "loss": 1.5, "ece": 0.25, "brier": None}
    >>> _line({"name": "ensemble", "test": test, "no_temperature": "a temperature needs …"})
    'ensemble: top-1 50.00 %, loss 1.5000, ECE 25.00 %, brier not finite; a temperature needs …'
    """
    text = f"{row['name']}: {_figures(row['test'], 'top1', 'loss', 'ece', 'brier')}"
    if "temperature" not in row:
        return f"{text}; {row['no_temperature']}"
    scaled = _figures(row["test_at_temperature"], "loss", "ece", "brier")
    return f"{text}; at temperature {row['temperature']:.3f}: {scaled}"


def _figures(values: dict[str, float | None], *names: str) -> str:
    forms = {"top1": "top-1 {:.2%}", "loss": "loss {:.4f}", "ece": "ECE {:.2%}", "brier": "Brier score {:.4f}"}
    texts = [forms[n].format(v) if (v := values[n]) is not None else f"{n} not finite" for n in names]
    return ", ".join(texts).replace("%", " %")
