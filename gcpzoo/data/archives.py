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
        self.root = root_folder(root)

    def folder(self) -> Path:
        """Find the archive's folder with all its parts.

        Raises:
            ZooError: if something is missing; the message says what was expected where.
        """
        return find_folder(self.name, str(self.root), self.archive, self.parts, self.remedy)


def find_folder(data: str, root: str, name: str, parts: Sequence[str], hint: str) -> Path:
    """Find the folder ``name`` in ``root``, or ``root`` itself if it is that folder, with all ``parts`` inside.

    Raises:
        ZooError: if something is missing; the message says what was expected where, and gives the ``hint``.

    >>> find_folder("CUB200", "/nowhere", "CUB_200_2011", ["images"], "extract the archive there")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: CUB200: there is no folder /nowhere; extract the archive there
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
