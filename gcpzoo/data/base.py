"""What all data modules share: splits, loaders, checks, and the normalization on the device."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gcpzoo.data.images import check_images, read_image, read_pixels
from gcpzoo.data.transforms import Augment, output_size
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.preprocessing import VIEWS, Preprocessing

Sample = tuple[Any, int]
Batch = tuple[Tensor, Tensor]
STAGES = {"fit": "train", "validate": "val", "test": "test", "predict": "test"}


@dataclass
class Index:
    """Which images there are: names of the classes in label order, and ``(path, label)`` for each split."""

    class_names: list[str]
    splits: dict[str, list[Sample]]


class Images(Dataset[tuple[Tensor, int]]):
    """``(path, label)`` to ``(uint8 tensor, label)``: ``transform(read(path))``."""

    def __init__(
        self, samples: Sequence[Sample], read: Callable[[Any], Any], transform: Callable[[Any], Tensor]
    ) -> None:
        self.samples, self.read, self.transform = samples, read, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        path, label = self.samples[i]
        return self.transform(self.read(path)), label


class ImageDataModule(LightningDataModule):
    """Batches ``(images, labels)``: float32 ``(B, 3, h, w)``, or ``(B, V, 3, h, w)`` for V views, and int64 ``(B,)``.

    The loaders deliver uint8; :meth:`on_after_batch_transfer` normalizes on the device. A data set says what it has by
    :meth:`index` and :meth:`rule`. ``class_names``, ``num_classes`` and ``preprocessing`` are known before ``setup``.

    Args:
        batch_size: images in a batch, on each device.
        workers: processes that read images; null: one for each core, at most 8.
        image_size: side in pixels of what the network sees; the data set's own rule follows from it.
        preprocessing: instead of that rule, e.g. the preprocessing of a loaded model.
        augment: what training images go through.
        views: of the test images: ``single``; ``mirror``: crop and mirrored crop; ``ten_crop``. Logits are averaged.
        val_fraction: where the data set has no validation split: share of the training images, stratified, that is
            held out as one. With 0 there is no validation.
        val_on_test: validate on the test images, for curves only: who chooses by them has no test set any more.
        seed: of the random splits.
        check: look at every image file before the start, and name those that are missing or truncated.

    Raises:
        ZooError: a value that cannot work, or missing files (at the first use of ``class_names``, or in ``setup``).
    """

    root: Path | None = None
    remedy = "replace or delete them"

    def __init__(
        self,
        batch_size: int = 32,
        workers: int | None = None,
        image_size: int = 224,
        preprocessing: Preprocessing | None = None,
        augment: Augment = Augment(),  # noqa: B008 (frozen)
        views: Literal["single", "mirror", "ten_crop"] = "single",
        val_fraction: float = 0.0,
        val_on_test: bool = False,
        seed: int = 0,
        check: bool = True,
    ) -> None:
        super().__init__()
        self.name: str = type(self).__name__
        for name, value, least, most in (
            ("batch_size", batch_size, 1, 2**31),
            ("workers", workers or 0, 0, 1024),
            ("image_size", image_size, 1, 8192),
        ):
            if not least <= value <= most:
                raise ZooError(f"{name} must lie between {least} and {most}, got {value}")
        if views not in VIEWS:
            raise unknown_name("views", views, VIEWS)
        if not 0 <= val_fraction < 1:
            raise ZooError(f"val_fraction must be a share, 0 <= val_fraction < 1, got {val_fraction}")
        if val_fraction and val_on_test:
            raise ZooError("val_fraction and val_on_test exclude each other: set one of them")
        self.batch_size, self.views, self.seed, self.check = batch_size, views, seed, check
        self.workers = min(8, len(os.sched_getaffinity(0))) if workers is None else workers
        self.preprocessing = preprocessing or self.rule(image_size)
        self.augment = augment
        self.val_fraction, self.val_on_test = val_fraction, val_on_test
        self._checked: set[str] = set()
        self.preprocessing.pixels(views)  # refuses ten_crop without a crop
        output_size(self.preprocessing)  # refuses images that cannot form a batch

    # --- what a data set says of itself

    def index(self) -> Index:
        """Reads the data set's lists or folders."""
        raise NotImplementedError

    @staticmethod
    def rule(size: int) -> Preprocessing:
        """The data set's customary resize and crop for images of ``size`` pixels."""
        return Preprocessing(resize=round(size * 8 / 7), crop=size)  # 256 and 224

    def reader(self, train: bool) -> Callable[[Any], Any]:
        """Path to a image: fast to a tensor for training, exact to a Pillow image for evaluation."""
        return read_pixels if train else read_image

    # --- what everybody may ask

    @cached_property
    def _index(self) -> Index:
        index = self.index()
        splits = index.splits
        self._held_out = 0.0
        if "val" not in splits and self.val_on_test and "test" in splits:
            rank_zero_info(f"{self.name}: validation runs on the test images; choose nothing by its figures")
            splits["val"] = splits["test"]
        elif "val" not in splits and self.val_fraction and "train" in splits:
            total = len(splits["train"])
            splits["train"], splits["val"] = hold_out(splits["train"], index.class_names, self.val_fraction, self.seed)
            self._held_out = self.val_fraction
            held = len(splits["val"])
            rank_zero_info(f"{self.name}: {held:,} of {total:,} training images held out for validation")
        return index

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        return self._index.class_names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def samples(self, split: str) -> list[Sample]:
        """``(path, label)`` of ``train``, ``val`` or ``test``.

        Raises:
            ZooError: the data set has no such split.
        """
        splits = self._index.splits
        if split not in splits:
            remedy = "; set val_fraction to hold one out" if split == "val" else ""
            place = f" in {self.root}" if self.root else ""
            raise ZooError(f"{self.name}: no {split} split{place}, there is {', '.join(splits)}{remedy}")
        return splits[split]

    def record(self) -> dict[str, Any]:
        """Plain JSON: what was trained and measured on, to be kept with the figures."""
        return {
            "data": self.name,
            "num_classes": self.num_classes,
            "images": {split: len(samples) for split, samples in self._index.splits.items()},
            "val_fraction": self._held_out,
            "val_on_test": self.val_on_test,
            "seed": self.seed,
            "views": self.views,
            "preprocessing": self.preprocessing.to_dict(),
            "augment": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.augment).items()},
        }

    # --- Lightning's hooks

    def setup(self, stage: str | None = None) -> None:
        """Checks the images of the stage; before training those of all splits, so that no bad one ends a long run."""
        if stage is not None:
            self.samples(STAGES[stage])  # the split must exist
        splits = tuple(self._index.splits) if stage in (None, "fit") else (STAGES[stage],)
        paths = {path: None for split in splits if split not in self._checked for path, _ in self.samples(split)}
        self._checked.update(splits)
        if self.check and self.root is not None:
            rank_zero_only(check_images)(list(paths), str(self.root), self.remedy)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        samples = self.samples("train")
        alone = len(samples) > 1 and len(samples) % self.batch_size == 1  # batch normalization refuses one image
        transform = self.augment.transform(self.preprocessing)
        return self._loader(Images(samples, self.reader(train=True), transform), shuffle=True, drop_last=alone)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]] | list[Any]:
        if "val" not in self._index.splits:
            return []
        return self._loader(Images(self.samples("val"), self.reader(train=False), self.preprocessing.pixels()))

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        pixels = self.preprocessing.pixels(self.views)
        return self._loader(Images(self.samples("test"), self.reader(train=False), pixels))

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """The test images, labels included."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 images, already on the device, to normalized float32."""
        pixels, labels = batch
        return self.preprocessing.normalize(pixels), labels

    def _loader(self, images: Images, **kwargs: Any) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(
            images,
            batch_size=self.batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            **kwargs,
        )


def hold_out(
    samples: list[Sample], class_names: list[str], fraction: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Stratified random split by scikit-learn: the rest and the held-out ``fraction``, in the order of ``samples``.

    Raises:
        ZooError: a class is too small to be in both parts.
    """
    from sklearn.model_selection import train_test_split

    labels = [label for _, label in samples]
    try:
        rest, held = train_test_split(range(len(samples)), test_size=fraction, random_state=seed, stratify=labels)
    except ValueError as error:
        smallest = min(set(labels), key=labels.count)
        raise ZooError(
            f"cannot hold out a share of {fraction} of {len(samples)} images in {len(set(labels))} classes "
            f"(the smallest, {class_names[smallest]!r}, has {labels.count(smallest)}): {error}; "
            "val_fraction 0 holds nothing out"
        ) from None
    return [samples[i] for i in sorted(rest)], [samples[i] for i in sorted(held)]


def find_folder(data: str, root: str, name: str, parts: Sequence[str], hint: str) -> Path:
    """The folder ``name`` in ``root``, or ``root`` itself when it is that folder, with all ``parts`` inside.

    Raises:
        ZooError: says what is missing, what was expected where, and ``hint``.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise ZooError(f"{data}: there is no folder {base}; {hint}")
    folder = base / name if (base / name).is_dir() else base
    missing = [part for part in parts if not (folder / part).exists()]
    if missing:
        expected = ", ".join(f"{name}/{part}" for part in parts)
        raise ZooError(f"{data}: {folder} lacks {', '.join(missing)}; expected in {base}: {expected}; {hint}")
    return folder
