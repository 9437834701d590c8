"""The data module that all data sets share: splits, loaders, checks, and normalization on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from gcpzoo.data.classes import check_class_names, class_descriptions
from gcpzoo.data.images import read_image, read_pixels
from gcpzoo.data.loading import (
    EpochSampler,
    Images,
    ResumableLoader,
    Sample,
    cores,
    derived_seed,
    even_batch_size,
    load,
    run_seed,
)
from gcpzoo.data.screening import Index, ScreenedDataModule, check_labels, refuse_shared_files
from gcpzoo.data.splits import hold_out
from gcpzoo.data.transforms import Augment, output_size
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.preprocessing import VIEWS, Preprocessing

Batch = tuple[Tensor, Tensor]


class ImageDataModule(ScreenedDataModule):
    """Batches ``(images, labels)``: float32 ``(B, 3, h, w)``, or ``(B, V, 3, h, w)`` for V views, and int64 ``(B,)``.

    The loaders deliver uint8; :meth:`on_after_batch_transfer` normalizes on the device. A data set implements
    :meth:`index` and, if it has a customary size, :meth:`rule`. ``class_names``, ``num_classes`` and ``preprocessing``
    are known before ``setup``.

    Args:
        batch_size: number of images in a batch, on each device.
        workers: number of processes that read images; null: one for each core, at most 8.
        image_size: side in pixels of what the network sees; null: the data set's customary size, in an evaluation the
            model's own.
        preprocessing: replaces that rule, e.g. by the preprocessing of a loaded model.
        augment: augmentation of the training images.
        views: of the test images: ``single``; ``mirror``: crop and mirrored crop; ``ten_crop``. Logits are averaged.
        val_fraction: if the data set has no validation split: share of the training images, stratified, to hold out as
            one. With 0 there is no validation.
        val_on_test: validate on the test images, for curves only: a choice made by them makes the test figures invalid.
        seed: of the random splits.
        check: decode every image file before the start; ``false`` saves that time where all are known to be whole.
        on_error: what to do about files that cannot be read: ``stop`` and name them, or ``skip`` and name them.

    Raises:
        ZooError: if a value cannot work, or files are missing (at the first use of ``class_names``, or in ``setup``).

    >>> from gcpzoo.data import Digits
    >>> images, labels = next(iter(Digits(batch_size=4).test_dataloader()))
    >>> images.dtype, images.shape
    (torch.uint8, torch.Size([4, 3, 32, 32]))
    """

    default_size = 224

    def __init__(
        self,
        batch_size: int = 32,
        workers: int | None = None,
        image_size: int | None = None,
        preprocessing: Preprocessing | None = None,
        augment: Augment = Augment(),  # noqa: B008 (frozen)
        views: Literal["single", "mirror", "ten_crop"] = "single",
        val_fraction: float = 0.0,
        val_on_test: bool = False,
        seed: int = 0,
        check: bool = True,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> None:
        super().__init__(check, on_error)
        self.name: str = type(self).__name__
        size = self.default_size if image_size is None else image_size
        for name, value, least, most in (
            ("batch_size", batch_size, 1, 2**31),
            ("workers", workers or 0, 0, 1024),
            ("image_size", size, 1, 8192),
        ):
            if not least <= value <= most:
                raise ZooError(f"{name} must be between {least} and {most}, got {value}")
        for name, given, kind in (("preprocessing", preprocessing, Preprocessing), ("augment", augment, Augment)):
            if given is not None and not isinstance(given, kind):
                raise ZooError(f"{name} must be of {kind.__name__}, got {given!r}: give {kind.__name__}(…)")
        if views not in VIEWS:
            raise unknown_name("views", views, VIEWS)
        if not 0 <= val_fraction < 1:
            raise ZooError(f"val_fraction must be at least 0 and less than 1, got {val_fraction}")
        if val_fraction and val_on_test:
            raise ZooError("val_fraction and val_on_test exclude each other; set one of them")
        self.batch_size, self.views, self.seed = batch_size, views, seed
        self.workers = min(8, cores()) if workers is None else workers
        self.preprocessing = preprocessing or self.rule(size)
        self.augment = augment
        self.val_fraction, self.val_on_test = val_fraction, val_on_test
        self._train: ResumableLoader | None = None
        self._place: dict[str, Any] = {}
        self.preprocessing.pixels(views)  # refuses ten_crop without a crop
        output_size(self.preprocessing)  # refuses images that cannot form a batch

    # --- what a data set implements

    def index(self) -> Index:
        """Read the data set's lists or folders.

        >>> from gcpzoo.data import Digits
        >>> sorted(Digits().index().splits)
        ['test', 'train']
        """
        raise NotImplementedError

    @staticmethod
    def rule(size: int) -> Preprocessing:
        """Give the data set's customary resize and crop for images of ``size`` pixels.

        >>> rule = ImageDataModule.rule(224)
        >>> rule.resize, rule.crop
        (256, 224)
        """
        return Preprocessing(resize=round(size * 8 / 7), crop=size)

    def reader(self, train: bool) -> Callable[[Any], Any]:
        """Give the reader of image files: for training fast, to a tensor; for evaluation exact, to a Pillow image.

        >>> ImageDataModule().reader(train=True).__name__
        'read_pixels'
        """
        return read_pixels if train else read_image

    # --- what users ask for

    @cached_property
    def _index(self) -> Index:
        index = self.index()
        check_class_names(index.class_names, self.name)
        check_labels(index, self.name)
        if self.root is not None:
            refuse_shared_files(index.splits, str(self.root))
        return index

    @cached_property
    def _splits(self) -> dict[str, list[Sample]]:
        """The splits with the validation images, which the test does without: classes may be too small to split."""
        index = self._index
        splits = dict(index.splits)
        self._held_out = 0.0
        if "val" not in splits and self.val_on_test and "test" in splits:
            rank_zero_info(f"{self.name}: validation runs on the test images; do not choose a model by its figures")
            splits["val"] = splits["test"]
        elif "val" not in splits and self.val_fraction and "train" in splits:
            train, remedy = splits["train"], "change val_fraction, or set it to 0 to hold nothing out"
            total = len(train)
            split = hold_out(train, index.class_names, self.val_fraction, self.seed, remedy, keep_single=True)
            splits["train"], splits["val"] = split
            self._held_out = self.val_fraction
            rank_zero_info(f"{self.name}: {len(splits['val']):,} of {total:,} training images held out for validation")
        return splits

    @property
    def class_names(self) -> list[str]:
        """Ids of the classes in the order of the labels: what data and models are matched by.

        >>> from gcpzoo.data import Digits
        >>> Digits().class_names[:3]
        ['0', '1', '2']
        """
        return self._index.class_names

    @property
    def class_descriptions(self) -> list[str]:
        """What people read in place of the ids, see :func:`~gcpzoo.data.classes.class_descriptions`.

        >>> from gcpzoo.data import Digits
        >>> Digits().class_descriptions[:3]
        ['0', '1', '2']
        """
        return class_descriptions(self.class_names)

    @property
    def num_classes(self) -> int:
        """Number of classes.

        >>> from gcpzoo.data import Digits
        >>> Digits().num_classes
        10
        """
        return len(self.class_names)

    def samples(self, split: str) -> list[Sample]:
        """List ``(path, label)`` of ``train``, ``val`` or ``test``, after ``setup`` without the files left out.

        Raises:
            ZooError: if the data set has no such split.

        >>> from gcpzoo.data import Digits
        >>> len(Digits().samples("test"))
        360
        """
        splits = self._index.splits if split == "test" and "test" in self._index.splits else self._splits
        if split not in splits:
            remedy = "; set val_fraction to hold one out" if split == "val" else ""
            place = f" in {self.root}" if self.root else ""
            raise ZooError(f"{self.name}: no {split} split{place}; available: {', '.join(splits)}{remedy}")
        return self.keep(splits[split])

    def record(self) -> dict[str, Any]:
        """Describe what was trained and measured on as plain JSON, to be kept with the figures.

        >>> from gcpzoo.data import Digits
        >>> Digits().record()["images"]
        {'train': 1437, 'test': 360}
        """
        try:
            splits = self._splits
        except ZooError:  # a test alone, beside training images too few to hold some out
            splits = self._index.splits
        return {
            "data": self.name,
            "num_classes": self.num_classes,
            "images": {split: len(self.keep(samples)) for split, samples in splits.items()},
            **({"left_out": self.left_out_record()} if self.on_error == "skip" else {}),
            "val_fraction": self._held_out,
            "val_on_test": "test" in splits and splits.get("val") is splits["test"],
            "seed": self.seed,
            "views": self.views,
            "preprocessing": self.preprocessing.to_dict(),
            "augment": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.augment).items()},
        }

    # --- Lightning's hooks

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Load the training images, shuffled and augmented.

        The order and what is random in the augmentation follow from ``seed``, the run's seed and the epoch, see
        :class:`~gcpzoo.data.loading.EpochSampler`. A last batch of one image is dropped.

        >>> from gcpzoo.data import Digits
        >>> len(Digits(batch_size=100).train_dataloader())
        15
        """
        transform = self.augment.transform(self.preprocessing)
        images = Images(self.samples("train"), self.reader(train=True), transform, self.seed)
        seed = derived_seed(self.seed, run_seed())
        sampler = EpochSampler(len(images), self.batch_size, seed, *self._process())
        self._train = load(images, sampler, self.workers, ResumableLoader)
        if self._place:
            self._train.load_state_dict(self._place)
        return self._train

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]] | list[Any]:
        """Load the validation images; an empty list if there are none.

        >>> from gcpzoo.data import Digits
        >>> Digits().val_dataloader()
        []
        """
        if "val" not in self._splits:
            return []
        return self._in_order("val", self.preprocessing.pixels())

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Load the test images in the order of :meth:`samples`, each in all ``views``, each in one process.

        >>> from gcpzoo.data import Digits
        >>> next(iter(Digits(views="mirror", batch_size=4).test_dataloader()))[0].shape
        torch.Size([4, 2, 3, 32, 32])
        """
        return self._in_order("test", self.preprocessing.pixels(self.views))

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Load the test images, labels included.

        >>> from gcpzoo.data import Digits
        >>> next(iter(Digits(batch_size=4).predict_dataloader()))[1]
        tensor([1, 4, 8, 6])
        """
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalize uint8 images, already on the device, to float32.

        >>> import torch
        >>> from gcpzoo.data import Digits
        >>> batch = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([3, 5])
        >>> images, labels = Digits().on_after_batch_transfer(batch, 0)
        >>> images.dtype, round(images[0, 0, 0, 0].item(), 3)
        (torch.float32, -2.118)
        """
        pixels, labels = batch
        return self.preprocessing.normalize(pixels), labels

    def training_files(self, epoch: int, batch_idx: int) -> list[str]:
        """Name the files of one of this process's training batches.

        >>> from gcpzoo.data import Digits
        >>> Digits().training_files(0, 0)
        []
        """
        if self._train is None:
            return []
        size = self.batch_size
        share = self._train.sampler.share(epoch)[batch_idx * size : (batch_idx + 1) * size]
        return [str(self.samples("train")[i][0]) for i in share]

    def state_dict(self) -> dict[str, Any]:
        """Keep the place in the epoch, and what was left out.

        >>> from gcpzoo.data import Digits
        >>> Digits().state_dict()
        {}
        """
        return super().state_dict() | (self._train.state_dict() if self._train else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at this place of the epoch.

        >>> from gcpzoo.data import Digits
        >>> data = Digits(batch_size=1000)
        >>> data.load_state_dict({"epoch": 0, "batches": 1, "global_batch_size": 1000})
        >>> [len(labels) for images, labels in data.train_dataloader()]
        [437]
        """
        super().load_state_dict(state_dict)
        self._place = {key: value for key, value in state_dict.items() if key != "left_out"}

    def _process(self) -> tuple[int, int]:
        """Return the rank of this process and the number of all."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _in_order(self, split: str, pixels: Callable[[Any], Tensor]) -> DataLoader[tuple[Tensor, int]]:
        images = Images(self.samples(split), self.reader(train=False), pixels)
        rank, processes = self._process()
        size = even_batch_size(len(images), self.batch_size, processes)
        return load(images, EpochSampler(len(images), size, None, rank, processes), self.workers)
