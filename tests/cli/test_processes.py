"""Two processes on one CPU, through the command line, do what one process does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from image_files import draw
from run_files import assert_same_results, read_checkpoint

from gcpzoo.cli.main import main

Cli = Callable[..., tuple[int, str, str]]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
TRACE = """
import json, shutil, sys
from pathlib import Path
from gcpzoo.training import ClassificationTask, RunCheckpoints, RunReport
from gcpzoo.cli.main import main

losses, write, step = [], RunCheckpoints._write, ClassificationTask.training_step

def training_step(self, *arguments):
    loss = step(self, *arguments)
    losses.append(loss.item())
    return loss

def save(report, trainer, pl_module):
    Path(trainer.default_root_dir, f"losses-{trainer.global_rank}.json").write_text(json.dumps(losses))
    root = str(pl_module.model.head.root)
    Path(trainer.default_root_dir, f"root-{trainer.global_rank}").write_text(root)

def copy(self, trainer):  # what a kill in the middle of the second epoch leaves
    write(self, trainer)
    run = Path(trainer.default_root_dir)
    if trainer.is_global_zero and trainer.current_epoch == 1 and not trainer.is_last_batch:
        shutil.copytree(run, run.with_name("left"), dirs_exist_ok=True)

ClassificationTask.training_step, RunReport.on_fit_end, RunCheckpoints._write = training_step, save, copy
sys.exit(main(sys.argv[1:]))
"""
