"""FGVC-Aircraft."""

from __future__ import annotations

from typing import Any, Literal

from gcpzoo.data.archives import ArchiveDataModule
from gcpzoo.data.base import Index
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing

HINT = "extract https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz there"


class FGVCAircraft(ArchiveDataModule):
    """FGVC-Aircraft: 100 variants of aircraft, 6,667 training (3,334 + 3,333 validation) and 3,333 test images.

    Images are resized to 512×512, then the central 448×448 is cut out (other sizes in proportion); training adds flips
    only.

    Args:
        root: folder that holds ``fgvc-aircraft-2013b``, or that folder itself.
        train_on: ``trainval``, as in the papers, without a validation split; ``train``, with the official one.
        kwargs: see :class:`~gcpzoo.data.archives.ArchiveDataModule`.

    Source: Maji et al., arXiv:1306.5151; read by torchvision's data set at the level of variants.

    >>> data = FGVCAircraft("/data")
    >>> data.preprocessing.resize, data.preprocessing.crop
    ((512, 512), 448)
    """

    remedy = HINT
    archive = "fgvc-aircraft-2013b"

    def __init__(
        self,
        root: str,
        train_on: Literal["trainval", "train"] = "trainval",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.train_on = train_on

    @staticmethod
    def rule(size: int) -> Preprocessing:
        """Resize to a square, then crop 7/8 of it.

        >>> FGVCAircraft.rule(448).resize
        (512, 512)
        """
        return Preprocessing(resize=(round(size * 8 / 7), round(size * 8 / 7)), crop=size)

    def index(self) -> Index:
        """Read the lists of variants.

        Raises:
            ZooError: if files are missing or lists do not fit together.

        >>> FGVCAircraft("/nowhere").index()
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: FGVCAircraft: there is no folder /nowhere; extract https://...
        """
        from torchvision.datasets import FGVCAircraft as Official

        splits = {"train": self.train_on, "test": "test"} | ({"val": "val"} if self.train_on == "train" else {})
        lists = [f"data/images_variant_{split}.txt" for split in splits.values()]
        self.parts = ("data/variants.txt", *lists, "data/images")
        folder = self.folder()
        try:
            data = {name: Official(folder.parent, split, loader=str) for name, split in splits.items()}
        except (ValueError, KeyError) as error:
            raise ZooError(f"{self.name}: the lists in {folder}/data do not fit together ({error!r}); {HINT}") from None
        return Index(data["test"].classes, {name: [data[name][i] for i in range(len(data[name]))] for name in splits})

    def record(self) -> dict[str, Any]:
        """Describe the data as :meth:`ImageDataModule.record` does, with ``train_on``.

        >>> from unittest.mock import patch
        >>> with patch.object(FGVCAircraft, "index", lambda self: Index(["A330"], {"train": []})):
        ...     FGVCAircraft("/data", train_on="train").record()["train_on"]
        'train'
        """
        return super().record() | {"train_on": self.train_on}
