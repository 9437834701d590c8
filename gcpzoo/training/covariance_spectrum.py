"""Watching the covariance's spectrum while a network trains."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from gcpzoo.analysis import covariance_summary


class CovarianceSpectrum(Callback):
    """Log the spectrum of the first validation batch of every epoch, as ``spectrum/effective_rank`` and so on.

    The values are those of :class:`gcpzoo.analysis.SpectrumSummary`.

    >>> from lightning import Trainer
    >>> trainer = Trainer(callbacks=[CovarianceSpectrum()], logger=False, accelerator="cpu", enable_checkpointing=False)
    """

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0 and not trainer.sanity_checking:
            values = covariance_summary(pl_module.model, batch[0]).to_dict()
            pl_module.log_dict({f"spectrum/{k}": v for k, v in values.items()}, batch_size=len(batch[0]))
