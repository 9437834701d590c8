"""Caltech-UCSD Birds 200-2011."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcpzoo.data.base import ImageDataModule, Index, find_folder
from gcpzoo.data.transforms import Augment
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
HINT = "extract the official CUB_200_2011.tgz there"


class CUB200(ImageDataModule):
    """CUB-200-2011: 200 species of birds, 5,994 training and 5,794 test images, in the official archive's layout.

    Images at ``size`` px: shorter side to ``size``, then the central ``size``×``size``; training adds flips only.

    Args:
        root: folder that holds ``CUB_200_2011``, or that folder itself.
        image_size: side in pixels; the papers' is 448.
        augment: what training images go through.

    Source: Wah et al., Caltech CNS-TR-2011-001; the 448 px rule: Li et al., CVPR 2018, section 4.3.
    """

    remedy = HINT

    def __init__(
        self,
        root: str,
        image_size: int = 448,
        augment: Augment = Augment(crop="center"),  # noqa: B008
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size=image_size, augment=augment, **kwargs)
        self.root = Path(root).expanduser()

    @staticmethod
    def rule(size: int) -> Preprocessing:
        return Preprocessing(resize=size, crop=size)

    def index(self) -> Index:
        folder = find_folder(self.name, str(self.root), "CUB_200_2011", (*LISTS, "images"), HINT)
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
    """Lines ``<id> <value>`` of the archive's lists; blank lines are skipped.

    Raises:
        ZooError: another line, or an id twice, with the line's number.
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
