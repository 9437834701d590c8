"""Stanford Cars."""

from __future__ import annotations

from gcpzoo.data.archives import ArchiveDataModule
from gcpzoo.data.base import Index
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing

PARTS = (
    "devkit/cars_meta.mat",
    "devkit/cars_train_annos.mat",
    "cars_test_annos_withlabels.mat",
    "cars_train",
    "cars_test",
)
HINT = "its authors no longer offer it for download: lay a copy out as gcpzoo.data.StanfordCars describes"


class StanfordCars(ArchiveDataModule):
    """Stanford Cars: 196 models of cars, 8,144 training and 8,041 test images.

    It can no longer be downloaded from its authors. Files must be laid out as torchvision expects::

        ROOT/stanford_cars/devkit/cars_meta.mat, cars_train_annos.mat     (car_devkit.tgz)
        ROOT/stanford_cars/cars_train/00001.jpg …                         (cars_train.tgz)
        ROOT/stanford_cars/cars_test/00001.jpg …                          (cars_test.tgz)
        ROOT/stanford_cars/cars_test_annos_withlabels.mat

    Images are resized to ``image_size``×``image_size``, whatever their shape; training adds flips only.

    Args:
        root: folder that holds ``stanford_cars``, or that folder itself.
        augment: augmentation of the training images.

    Source: Krause et al., 3dRR 2013; read by torchvision's data set.

    >>> StanfordCars("/data").preprocessing.resize
    (448, 448)
    """

    remedy = HINT
    archive = "stanford_cars"
    parts = PARTS

    @staticmethod
    def rule(size: int) -> Preprocessing:
        """Resize to a square without a crop.

        >>> StanfordCars.rule(448).crop is None
        True
        """
        return Preprocessing(resize=(size, size), crop=None)

    def index(self) -> Index:
        """Read the annotations.

        Raises:
            ZooError: if files are missing or damaged.

        >>> StanfordCars("/nowhere").index()
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: StanfordCars: there is no folder /nowhere; ...
        """
        from torchvision.datasets import StanfordCars as Official

        folder = self.folder()
        try:
            data = {split: Official(folder.parent, split, loader=str) for split in ("train", "test")}
        except Exception as error:  # scipy raises many kinds for a broken .mat
            raise ZooError(f"{self.name}: cannot read the .mat files in {folder} ({error}); {HINT}") from None
        splits = {
            name: [(path, int(label)) for path, label in map(data[name].__getitem__, range(len(data[name])))]
            for name in data
        }
        return Index(list(data["train"].classes), splits)
