"""What a network says of every test image: ``test_predictions.csv``."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from gcpzoo.analysis.prediction_table import write_table
from gcpzoo.models.class_labels import class_labels
from gcpzoo.training.run_report import writes

FILE = "test_predictions.csv"


class TestPredictions(Callback):
    """Write the likeliest class of every test image, its probability and the true class into the run's folder.

    What compares two runs image by image, draws confusions and measures calibration needs no second evaluation.

    >>> TestPredictions().rows
    []
    """

    __test__ = False  # not a test of pytest's

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.table: list[tuple[float, int, int]] = []
        """Of each test image, in order: probability of the likeliest class, that class, and the true one."""

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self.rows, self.table = [], []

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        probability, k = outputs.max(1)
        self.rows.append(torch.stack([probability.double(), k.double(), batch[1].double()], 1).cpu())

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        rows = self.rows
        if trainer.world_size > 1:
            sampler = trainer.test_dataloaders.sampler
            if not hasattr(sampler, "share"):
                rank_zero_warn(f"{FILE} is not written: several processes need one of the zoo's data modules")
                return
            none = torch.empty(0, 3, dtype=torch.float64)
            rows = gather_in_order(trainer, sampler, torch.cat([none, *rows]))
        if not writes(trainer) or not rows:
            return
        probability, k, label = torch.cat(rows).unbind(1)
        self.table = list(zip(probability.tolist(), k.int().tolist(), label.int().tolist()))
        ids, names = class_labels(pl_module.model)
        samples: list[Any] = getattr(trainer.datamodule, "samples", lambda _: [])("test")
        images = [image if isinstance(image, str) else i for i, (image, _) in enumerate(samples)] or range(len(k))
        lines = [(image, ids[c], names[c], f"{p:.4f}", ids[y]) for image, (p, c, y) in zip(images, self.table)]
        write_table(lines, Path(trainer.default_root_dir) / FILE)


def gather_in_order(trainer: Any, sampler: Any, share: Tensor) -> list[Tensor]:
    """Bring rows of all processes into the order of the images, in the first process; the others get nothing.

    Args:
        trainer: a trainer of several processes.
        sampler: the :class:`~gcpzoo.data.loading.EpochSampler` of this process, which knows its share of the images.
        share: a row for each of them.

    >>> from types import SimpleNamespace
    >>> gather_in_order(SimpleNamespace(is_global_zero=True, world_size=1), None, torch.zeros(0, 2))
    []
    """
    if trainer.world_size == 1:
        return [share] if len(share) else []
    gathered: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object((sampler.share(0), share.cpu()), gathered)
    rows = [(i, row) for indices, rows in gathered or () for i, row in zip(indices, rows)]
    return [row[None] for _, row in sorted(rows, key=itemgetter(0))]
