"""Fine-grained benchmarks that come as an archive: where it was extracted to, and the papers' 448 px."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcpzoo.data.base import ImageDataModule
from gcpzoo.data.scan import root_folder
from gcpzoo.data.transforms import Augment
from gcpzoo.errors import ZooError


class ArchiveDataModule(ImageDataModule):
    """A benchmark that lies in the folder of its official archive, with the settings of the fine-grained papers.

    Args:
        root: folder that holds the archive's folder, or that folder itself.
        augment: augmentation of the training images; the papers flip only.

    >>> ArchiveDataModule("/data").augment.crop
    'center'
    """

    archive = ""
    default_size = 448
    parts: Sequence[str] = ()

    def __init__(
        self,
        root: str,
        augment: Augment = Augment(crop="center"),  # noqa: B008
        **kwargs: Any,
    ) -> None:
        super().__init__(augment=augment, **kwargs)
        self.root: Path = root_folder(root)

    def folder(self) -> Path:
        """Find the archive's folder with all its parts: the one of its name in ``root``, else ``root`` itself.

        Raises:
            ZooError: if something is missing; the message says what was expected where, and how to come by it.

        >>> from gcpzoo.data import CUB200
        >>> CUB200("/nowhere").folder()
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: CUB200: there is no folder /nowhere; ...
        """
        base = self.root
        if not base.is_dir():
            raise ZooError(f"{self.name}: there is no folder {base}; {self.remedy}")
        folder = base / self.archive if (base / self.archive).is_dir() else base
        missing = [part for part in self.parts if not (folder / part).exists()]
        if missing:
            expected = ", ".join(f"{self.archive}/{part}" for part in self.parts)
            raise ZooError(
                f"{self.name}: {folder} lacks {', '.join(missing)}; expected in {base}: {expected}; {self.remedy}"
            )
        return folder
