"""Caltech-UCSD Birds 200-2011."""

from __future__ import annotations

from pathlib import Path

from gcpzoo.data.archives import ArchiveDataModule
from gcpzoo.data.base import Index
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
HINT = "extract the official CUB_200_2011.tgz there"


class CUB200(ArchiveDataModule):
    """CUB-200-2011: 200 species of birds, 5,994 training and 5,794 test images, in the official archive's layout.

    The shorter side is resized to ``image_size``, then the central square is cut out; training adds flips only.

    Args:
        root: folder that holds ``CUB_200_2011``, or that folder itself.
        augment: augmentation of the training images.

    Source: Wah et al., Caltech CNS-TR-2011-001; the rule of 448 px: Li et al., CVPR 2018, section 4.3.

    >>> data = CUB200("/data")
    >>> data.preprocessing.resize, data.preprocessing.crop
    (448, 448)
    """

    remedy = HINT
    archive = "CUB_200_2011"
    parts = (*LISTS, "images")

    @staticmethod
    def rule(size: int) -> Preprocessing:
        """Resize the shorter side, then crop to the same size.

        >>> CUB200.rule(448).crop
        448
        """
        return Preprocessing(resize=size, crop=size)

    def index(self) -> Index:
        """Read the archive's lists.

        Raises:
            ZooError: if files are missing or lists do not fit together.

        >>> CUB200("/nowhere").index()
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: CUB200: there is no folder /nowhere; extract the official CUB_200_2011.tgz there
        """
        folder = self.folder()
        images, labels, split, classes = (read_table(folder / name) for name in LISTS)
        for name, table in (("image_class_labels.txt", labels), ("train_test_split.txt", split)):
            if table.keys() != images.keys():
                few = sorted(table.keys() ^ images.keys())[:5]
                raise ZooError(
                    f"{self.name}: {folder}: images.txt and {name} name different images (such as {few}); {HINT}"
                )
        order = {number: i for i, number in enumerate(sorted(classes))}
        index = Index([classes[number] for number in order], {"train": [], "test": []})
        for number, name in images.items():
            if not labels[number].isdigit() or int(labels[number]) not in order or split[number] not in ("0", "1"):
                raise ZooError(
                    f"{self.name}: {folder}: image {number} has class {labels[number]!r} "
                    f"and split {split[number]!r}; {HINT}"
                )
            part = index.splits["train" if split[number] == "1" else "test"]
            part.append((str(folder / "images" / name), order[int(labels[number])]))
        return index


def read_table(path: Path) -> dict[int, str]:
    """Read a list of the archive, lines of ``<id> <value>``; blank lines are skipped.

    Raises:
        ZooError: if a line has another form or repeats an id; the message gives its number.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "classes.txt")
    ...     _ = path.write_text("1 001.Black_footed_Albatross\\n2 002.Laysan_Albatross\\n")
    ...     read_table(path)
    {1: '001.Black_footed_Albatross', 2: '002.Laysan_Albatross'}
    """
    table: dict[int, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        key, _, value = line.strip().partition(" ")
        if not key.isdigit() or not value or int(key) in table:
            raise ZooError(f"{path}, line {number}: expected '<id> <value>' with a new id, got {line[:60]!r}")
        table[int(key)] = value.strip()
    if not table:
        raise ZooError(f"{path} is empty; {HINT}")
    return table
