"""The report of trainings: collected, compared, drawn, and written as a page."""

from gcpzoo.experiments.report.collect import Training, collect
from gcpzoo.experiments.report.compare import Block, HeadResult, compare
from gcpzoo.experiments.report.write import THICK_AND_DOTTED, differences, reached, write_report

__all__ = [
    "THICK_AND_DOTTED",
    "Block",
    "HeadResult",
    "Training",
    "collect",
    "compare",
    "differences",
    "reached",
    "write_report",
]
