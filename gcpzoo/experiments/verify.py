"""Check a checkpoint: hash, strict load, finite outputs, stored logits, and the accuracy that its record states."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar

from gcpzoo.data.base import ImageDataModule, Index
from gcpzoo.data.folder import scan
from gcpzoo.data.scan import list_folders
from gcpzoo.errors import ZooError
from gcpzoo.hub.convert.common import transpose_triangle
from gcpzoo.hub.loading import load
from gcpzoo.hub.records import Record
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.training import ClassificationTask

TOLERANCE = {"gcpzoo": 0.05, "authors": 0.3}
"""Points of top-1 by which a measurement may differ: ours repeats but for kernels, theirs had another JPEG decoder."""
LOGIT_TOLERANCE = 1e-3
"""Largest relative error of stored logits."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check; ``ok`` is ``None`` where it could not be made, and ``detail`` says why.

    >>> Check("finite", True, "all tensors, and the logits of noise").ok
    True
    """

    name: str
    ok: bool | None
    detail: str


def verify(
    name: str | os.PathLike[str], data: str | os.PathLike[str] | None = None, batch_size: int = 64, device: str = "cpu"
) -> list[Check]:
    """Check a checkpoint.

    Args:
        name: as for :func:`gcpzoo.load`.
        data: a folder of class folders to measure top-1 on; ImageNet's are ``n01440764`` and so on.
        batch_size: images in a batch of the measurement.
        device: ``cpu``, ``cuda`` or another accelerator of Lightning.

    Raises:
        ZooError: if it cannot be loaded at all (a wrong hash among others), or ``data`` has other classes.

    >>> [check.name for check in verify("resnet18_isqrt.digits") if check.ok]
    ['sha256', 'strict load', 'finite']
    """
    model = load(name)
    record = model.record if isinstance(model.record, Record) else None
    return [
        _check_hash(record),
        Check("strict load", True, f"{sum(p.numel() for p in model.parameters()):,} parameters"),
        _check_finite(model),
        _check_logits(model, record),
        _check_accuracy(model, record, data, batch_size, device),
    ]


def _check_hash(record: Record | None) -> Check:
    digest = record.sha256 if record else None
    complete = digest is not None and len(digest) == 64  # the loader compared it
    return Check("sha256", True if complete else None, f"{digest[:12]}…" if digest else "the record states none")


def _check_finite(model: GCPNet) -> Check:
    side = model.preprocessing.crop if model.preprocessing and model.preprocessing.crop else 224
    with torch.inference_mode():
        noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        finite = all(bool(v.isfinite().all()) for v in [*model.state_dict().values(), model(noise)])
    return Check("finite", finite, "all tensors, and the logits of noise" if finite else "NaN or infinite values")


def _check_logits(model: GCPNet, record: Record | None) -> Check:
    if not record or not record.golden:
        return Check("golden logits", None, "the record keeps none")
    expected = record.golden["logits"]
    found = golden_logits(model, record.golden["shape"], record.golden["seed"], len(expected))
    error = max(abs(a - b) for a, b in zip(found, expected)) / max(map(abs, expected))
    return Check("golden logits", error < LOGIT_TOLERANCE, f"relative error {error:.1e}")


def golden_logits(model: GCPNet, shape: Sequence[int], seed: int, count: int = 10) -> list[float]:
    """Compute the first logits for ``torch.randn(shape)`` of a seed, which a record keeps as ``golden``.

    >>> len(golden_logits(load("resnet18_isqrt.digits"), [1, 3, 32, 32], seed=0))
    10
    """
    with torch.inference_mode():
        x = torch.randn(list(shape), generator=torch.Generator().manual_seed(seed))
        return [round(v, 5) for v in model.eval()(x)[0, :count].tolist()]


def _check_accuracy(
    model: GCPNet, record: Record | None, data: str | os.PathLike[str] | None, batch_size: int, device: str
) -> Check:
    stated = record.metrics.get("top1") if record else None
    if data is None:
        return Check("top-1", None, f"give data to measure it{f'; the record states {stated}' if stated else ''}")
    found, count = top1(model, data, batch_size, device)
    detail = f"{found:.2f} % of {count} images"
    if record is None or stated is None or record.measured_by not in TOLERANCE:
        return Check("top-1", None, f"{detail}; the record states none")
    ok = abs(found - stated) <= TOLERANCE[record.measured_by]
    detail += f", the record states {stated}"
    if not ok and found < stated / 2 and model.config["dim"] and not model.config["hidden"]:
        state = model.state_dict()
        transpose_triangle(model.config, state)
        model.load_state_dict(state)
        other, _ = top1(model, data, batch_size, device, limit=2000)
        if other > 2 * found:
            detail += f"; with the classifier's columns in the lower order {other:.2f} %: convert with --triangle lower"
    return Check("top-1", ok, detail)


class TestFolder(ImageDataModule):
    """All images of a folder of class folders, to evaluate one model on: its classes and its preprocessing.

    >>> TestFolder(Path("val"), load("resnet18_isqrt.digits"), batch_size=8).preprocessing.resize
    (32, 32)
    """

    __test__ = False  # not a test of pytest's

    def __init__(self, root: Path, model: GCPNet, batch_size: int, limit: int | None = None) -> None:
        super().__init__(batch_size=batch_size, preprocessing=model.preprocessing or Preprocessing())
        self.root, self.classes, self.limit, self.expected = root, model.class_names, limit, model.num_classes

    def index(self) -> Index:
        found = list_folders(str(self.root))
        if self.classes is None and len(found) != self.expected:
            raise ZooError(f"{self.root} has {len(found)} class folders, the model {self.expected} unnamed classes")
        samples = scan(str(self.root), self.classes or found)
        step = -(-len(samples) // self.limit) if self.limit else 1
        return Index(self.classes or found, {"test": samples[::step]})


def top1(
    model: GCPNet, folder: str | os.PathLike[str], batch_size: int = 64, device: str = "cpu", limit: int | None = None
) -> tuple[float, int]:
    """Measure top-1 accuracy in per cent on a folder of class folders, the way ``gcpzoo test`` does.

    Args:
        model: the network, with its classes and preprocessing.
        folder: holds a folder for each class, named by the class id.
        batch_size: images in a batch.
        device: ``cpu``, ``cuda`` or another accelerator of Lightning.
        limit: take evenly spaced images, about so many.

    Returns:
        The accuracy and the number of images.

    >>> top1(load("resnet18_isqrt.digits"), "nowhere")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: there is no folder 'nowhere'
    """
    if not Path(folder).is_dir():
        raise ZooError(f"there is no folder {str(folder)!r}")
    data = TestFolder(Path(folder), model, batch_size, limit)
    count = len(data.samples("test"))
    task = ClassificationTask(**model.config)
    task.model = model
    trainer = L.Trainer(
        accelerator=device,
        devices=1,
        logger=False,
        callbacks=[RichProgressBar()],
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    values = trainer.test(task, data, verbose=False)[0]
    return 100 * values["test/top1"], count
