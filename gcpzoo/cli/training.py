"""Running LightningCLI: its warnings, its failures in one line, and how a stopped run goes on."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from gcpzoo.cli.outputs import OUTPUT
from gcpzoo.cli.parser import Parser
from gcpzoo.cli.zoo_cli import ZooCLI
from gcpzoo.errors import ZooError
from gcpzoo.training import ClassificationTask
from gcpzoo.training.allocator import keep_freed_memory

KNOWN_WARNINGS = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Experiment logs directory .* exists and is not empty.*",  # logs are kept
    ".*LeafSpec.*",
    ".*Total length of `list` across ranks is zero.*",
)


def train(argv: Sequence[str]) -> int:
    """Run fit, validate, test or predict with its arguments, and return the exit code.

    Raises:
        ZooError: for every mistake of the user, also those that the trainer finds.
    """
    keep_freed_memory()
    for message in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    before, sys.argv = sys.argv, [sys.argv[0], *argv]  # further processes of the run take their arguments from there
    try:
        ZooCLI(
            ClassificationTask,
            LightningDataModule,
            subclass_mode_data=True,
            parser_class=Parser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"max_epochs": 10, "enable_model_summary": False},
        )
    except SystemExit as stop:
        return _exit_code(stop)
    except Exception as error:
        if isinstance(error, ZooError) or (mistake := _mistake(error)) is None:
            raise
        raise ZooError(mistake) from error
    finally:
        sys.argv = before
        os.environ.pop(OUTPUT, None)
    return 0


def _mistake(error: Exception) -> str | None:
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


def _exit_code(stop: SystemExit) -> int:
    """Answer Ctrl-C and a scheduler's SIGTERM, after which Lightning raises SystemExit, and say how to go on."""
    terminated = isinstance(stop, SIGTERMException)
    if stop.code != 1 and not terminated:
        raise stop
    last = Path(os.environ.get(OUTPUT, "")) / "checkpoints" / "last.ckpt"
    remedy = f"; the same command with --ckpt_path {last} goes on after its last epoch" if last.is_file() else ""
    print(f"gcpzoo: stopped{remedy}", file=sys.stderr)
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
