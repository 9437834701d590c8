"""Run LightningCLI: silence known warnings, explain failures in one line, say how a stopped run goes on."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from gcpzoo.cli.exits import causes, reader_left
from gcpzoo.cli.generations import SeveralTrainings, fit_generations
from gcpzoo.cli.outputs import OUTPUT
from gcpzoo.cli.parser import Parser
from gcpzoo.cli.resume import RecordConfig
from gcpzoo.cli.untrusted import allowed_packages, untrusted_configs
from gcpzoo.cli.zoo_cli import ZooCLI
from gcpzoo.errors import ZooError
from gcpzoo.training import ClassificationTask

KNOWN_WARNINGS = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Experiment logs directory .* exists and is not empty.*",  # logs are kept
    ".*LeafSpec.*",
    ".*when logging on epoch level in distributed setting.*",  # torchmetrics have gathered these values already
    ".*WeightAveraging callback, but loading a checkpoint outside.*",  # the averaged weights are what is evaluated
    ".*overridden `on_before_batch_transfer` in `LightningModule`.*",  # the data modules override another hook
    ".*Total length of `list` across ranks is zero.*",
)

QUIET_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")
"""Loggers whose notes, such as the seed before an error, tell a user nothing."""


def train(argv: Sequence[str]) -> int:
    """Run fit, validate, test or predict with its arguments, and return the exit code.

    Raises:
        ZooError: for every mistake of the user, also those that the trainer finds.
    """
    silence()
    before, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    try:
        with untrusted_configs(allowed_packages(argv)):
            try:
                _run_once(argv)
            except SeveralTrainings as asked:
                fit_generations(asked.config, argv, _run_once)
    except BaseException as error:
        if (code := _stop_code(error)) is not None:
            print(f"gcpzoo: stopped{_remedy()}", file=sys.stderr)
            return code
        if isinstance(error, ZooError) or (mistake := _mistake(error)) is None:
            raise
        raise ZooError(mistake) from error
    finally:
        sys.argv = before
        _on_sigterm(handler)
        os.environ.pop(OUTPUT, None)
    return 0


def silence() -> None:
    """Keep the libraries' own messages from the user, who gets ours.

    >>> silence()
    """
    for message in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _run_once(argv: Sequence[str]) -> ZooCLI:
    """Run one command of LightningCLI, whose constructor does so."""
    _on_sigterm(_terminate)
    sys.argv = [sys.argv[0], *argv]  # the trainer starts further processes with these
    return ZooCLI(
        ClassificationTask,
        LightningDataModule,
        subclass_mode_data=True,
        parser_class=Parser,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        save_config_callback=RecordConfig,
        trainer_defaults={"max_epochs": 10, "enable_model_summary": False},
    )


def _terminate(*_: object) -> None:
    """End at once where there is no training to be saved first."""
    raise SIGTERMException


def _on_sigterm(handler: Any) -> None:
    """Set what SIGTERM does; only the main thread may."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _mistake(error: BaseException) -> str | None:
    """Say in one line what the user can change about an error of the trainer; ``None`` for a defect of ours."""
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MisconfigurationException):
        return first
    if isinstance(error, TypeError | ValueError | ZeroDivisionError):
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        return f"the trainer refuses its arguments: {first}" if "lightning" in raised_in.parts else None
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        size = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
        return (
            f"out of memory{f' (for {size[1]} more)' if size else ''}: lower data.batch_size, data.image_size or "
            "model.dim, or set model.recompute_head"
        )
    if isinstance(error, AssertionError) and ("size" in first or "height" in first):  # timm's transformers
        return f"the backbone refuses the images: {error} (data.image_size, or backbone_args img_size)"
    return None


def _stop_code(error: BaseException) -> int | None:
    """Return the exit code of Ctrl-C, of a scheduler's SIGTERM and of ``| head``; ``None`` for anything else."""
    if reader_left(error):
        return 128 + signal.SIGPIPE
    for cause in causes(error):  # Lightning raises SystemExit while it handles Ctrl-C
        if isinstance(cause, SIGTERMException):
            return 128 + signal.SIGTERM
        if isinstance(cause, KeyboardInterrupt):
            return 128 + signal.SIGINT
    return None


def _remedy() -> str:
    """Say how to go on, where a checkpoint was written."""
    output = Path(os.environ.get(OUTPUT, ""))
    left = any(any(output.glob(f"{run}checkpoints/last.ckpt")) for run in ("", "generation-*/"))
    return f"; the same command with --resume --output {shlex.quote(str(output))} goes on" if left else ""
