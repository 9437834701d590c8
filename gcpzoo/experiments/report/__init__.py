"""The report of trainings: collected, compared, drawn, and written as a page."""

from gcpzoo.experiments.report.collect import Training, collect
from gcpzoo.experiments.report.compare import Block, HeadResult, compare
from gcpzoo.experiments.report.write import points, write_report

__all__ = ["Block", "HeadResult", "Training", "collect", "compare", "points", "write_report"]
