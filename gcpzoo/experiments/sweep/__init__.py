"""Sweeps: heads × backbones × data × settings × seeds from one file, each run in its own process and folder."""

from gcpzoo.experiments.sweep.execute import Progress, Sweep
from gcpzoo.experiments.sweep.plan import Cell, Plan, Run, read_plan

__all__ = ["Cell", "Plan", "Progress", "Run", "Sweep", "read_plan"]
