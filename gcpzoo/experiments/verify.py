"""Checking a checkpoint: hash, strict load, finite outputs, kept logits, and the accuracy that its record states."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcpzoo.errors import ZooError

if TYPE_CHECKING:
    from gcpzoo.models.gcpnet import GCPNet

TOLERANCE = {"gcpzoo": 0.05, "authors": 0.3}
"""Points of top-1 by which a measurement may differ: ours repeats but for kernels, theirs had another JPEG decoder."""


@dataclass(frozen=True)
class Check:
    """One check: ``ok`` is ``None`` where it could not be made, and ``detail`` says why."""

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
        batch_size, device: of the measurement.

    Raises:
        ZooError: it cannot be loaded at all (a wrong hash among others), or ``data`` does not have the model's classes.
    """
    import torch

    from gcpzoo.hub import load
    from gcpzoo.hub.records import Record

    model = load(name)
    record = model.record if isinstance(model.record, Record) else None
    digest = record.sha256 if record else None
    complete = digest is not None and len(digest) == 64
    checks = [
        Check(
            "sha256", True if complete else None, (digest or "")[:12] + ("…" if digest else "the record states none")
        ),
        Check("strict load", True, f"{sum(p.numel() for p in model.parameters()):,} parameters"),
    ]
    side = model.preprocessing.crop if model.preprocessing and model.preprocessing.crop else 224
    with torch.inference_mode():
        noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        finite = all(bool(v.isfinite().all()) for v in [*model.state_dict().values(), model(noise)])
    checks.append(
        Check("finite", finite, "all tensors, and the logits of noise" if finite else "NaN or infinite values")
    )
    if record and record.golden:
        found = golden_logits(model, record.golden["shape"], record.golden["seed"])
        error = max(abs(a - b) for a, b in zip(found, record.golden["logits"])) / max(map(abs, record.golden["logits"]))
        checks.append(Check("golden logits", error < 1e-3, f"relative error {error:.1e}"))
    else:
        checks.append(Check("golden logits", None, "the record keeps none"))
    checks.append(_accuracy(model, record, data, batch_size, device))
    return checks


def golden_logits(model: GCPNet, shape: list[int], seed: int, count: int = 10) -> list[float]:
    """The first logits for ``torch.randn(shape)`` of a seed: a record keeps them as ``golden``."""
    import torch

    with torch.inference_mode():
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return [round(v, 5) for v in model.eval()(x)[0, :count].tolist()]


def _accuracy(model: GCPNet, record: Any, data: Any, batch_size: int, device: str) -> Check:
    stated = record.metrics.get("top1") if record else None
    if data is None:
        return Check("top-1", None, f"give data to measure it{f'; the record states {stated}' if stated else ''}")
    found, count = top1(model, Path(data), batch_size, device)
    detail = f"{found:.2f} % of {count} images"
    if stated is None:
        return Check("top-1", None, f"{detail}; the record states none")
    ok = abs(found - stated) <= TOLERANCE[record.measured_by]
    detail += f", the record states {stated}"
    if not ok and found < stated / 2 and model.config["dim"] and not model.config["hidden"]:
        from gcpzoo.hub.convert.common import transpose_triangle

        state = model.state_dict()
        transpose_triangle(model.config, state)
        model.load_state_dict(state)
        other, _ = top1(model, Path(data), batch_size, device, limit=2000)
        if other > 2 * found:
            detail += f"; with the classifier's columns in the lower order {other:.2f} %: convert with --triangle lower"
    return Check("top-1", ok, detail)


def top1(
    model: GCPNet, folder: Path, batch_size: int = 64, device: str = "cpu", limit: int | None = None
) -> tuple[float, int]:
    """Top-1 accuracy in per cent on a folder of class folders, and the number of images."""
    import torch
    from torch.utils.data import DataLoader, Subset

    model = model.to(device).eval()
    images: Any = _images(model, folder)
    if limit and limit < len(images):
        images = Subset(images, range(0, len(images), -(-len(images) // limit)))
    correct = 0
    workers = min(8, os.cpu_count() or 1) if len(images) > 1000 else 0
    with torch.inference_mode():
        for x, y in _progress(DataLoader(images, batch_size, num_workers=workers)):
            correct += int((model(x.to(device)).argmax(1).cpu() == y).sum())
    return 100 * correct / len(images), len(images)


def _images(model: GCPNet, folder: Path) -> Any:
    """The data set, its folders matched to the model's classes: by name, or all in sorted order (WordNet ids)."""
    from torchvision.datasets import ImageFolder

    if not folder.is_dir():
        raise ZooError(f"there is no folder {str(folder)!r}")
    try:
        images = ImageFolder(str(folder), transform=model.transform)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ZooError(f"{folder} holds no folders of images, one for each class: {error}") from None
    names, classes = model.class_names or [], len(images.classes)
    if set(images.classes) <= set(names):
        order = {i: names.index(name) for name, i in images.class_to_idx.items()}
        images.target_transform = order.__getitem__
    elif classes != model.config["num_classes"]:
        raise ZooError(
            f"{folder} has {classes} class folders, not named as the model's {model.config['num_classes']} classes are"
        )
    return images


def _progress(loader: Any) -> Iterator[Any]:
    from rich.progress import track

    yield from track(loader, description="top-1", transient=True)
