import json

import pytest
import torch
from image_files import truncate, write
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from gcpzoo.data import Augment, Digits, ImageError, ImageFolder
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing


class Linear(LightningModule):
    """Remembers what it was shown."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, classes)
        self.seen: dict[str, list[torch.Tensor]] = {"train": [], "val": [], "test": []}

    def _step(self, stage, batch):
        images, labels = batch
        self.seen[stage].append(images)
        return nn.functional.cross_entropy(self.layer(images.flatten(1)), labels)

    def training_step(self, batch):
        return self._step("train", batch)

    def validation_step(self, batch):
        self._step("val", batch)

    def test_step(self, batch):
        self._step("test", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def trainer(tmp_path, **kwargs) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **kwargs,
    )


def folder(tmp_path, per_class: int = 10, suffix: str = "jpg") -> str:
    write(tmp_path, [f"{name}/{i}.{suffix}" for name in ("cat", "dog") for i in range(per_class)])
    return str(tmp_path)


def test_the_model_sees_what_the_preprocessing_says_to_the_last_bit(tmp_path):
    data = ImageFolder(folder(tmp_path), image_size=14, workers=0, batch_size=4)
    model = Linear(3 * 14 * 14, 2)
    trainer(tmp_path).test(model, data, verbose=False)
    seen = torch.cat(model.seen["test"])
    transform = data.preprocessing.transform()
    expected = torch.stack([transform(data.reader(train=False)(path)) for path, _ in data.samples("test")])
    assert seen.dtype == torch.float32
    assert torch.equal(seen, expected)


@pytest.mark.parametrize(("views", "count"), [("mirror", 2), ("ten_crop", 10)])
def test_only_test_images_come_in_several_views(views, count, tmp_path):
    data = ImageFolder(folder(tmp_path), image_size=14, workers=0, views=views)
    data.setup()
    shapes = [next(iter(loader))[0].shape[1:] for loader in (data.val_dataloader(), data.test_dataloader())]
    assert shapes == [(3, 14, 14), (count, 3, 14, 14)]


def test_ten_crops_without_a_crop_are_refused_at_once():
    with pytest.raises(ZooError, match="ten_crop needs"):
        Digits(views="ten_crop")


def test_fit_without_a_validation_split_trains_and_validates_nothing(tmp_path):
    model = Linear(3 * 32 * 32, 10)
    trainer(tmp_path, limit_train_batches=2).fit(model, Digits())
    assert len(model.seen["train"]) == 2
    assert model.seen["val"] == []


def test_validate_without_a_validation_split_says_what_to_set(tmp_path):
    with pytest.raises(ZooError, match=r"no val split.*set val_fraction"):
        trainer(tmp_path).validate(Linear(3 * 32 * 32, 10), Digits())


def test_a_held_out_part_is_stratified_disjoint_and_the_same_for_the_same_seed():
    data, again, other = (Digits(val_fraction=0.1, seed=seed) for seed in (0, 0, 1))
    parts = [{id(image) for image, _ in data.samples(split)} for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [1293, 144, 360]
    assert len(set.union(*parts)) == 1797
    labels = [label for _, label in data.samples("val")]
    assert {labels.count(label) for label in range(10)} <= {13, 14, 15, 16}
    image = lambda d: torch.cat([p for p, _ in d.samples("val")])  # noqa: E731
    assert torch.equal(image(data), image(again))
    assert not torch.equal(image(data), image(other))


def test_validation_on_the_test_images_must_be_asked_for():
    data = Digits(val_on_test=True)
    assert data.samples("val") is data.samples("test")
    assert data.record()["val_on_test"] is True
    with pytest.raises(ZooError, match="exclude each other"):
        Digits(val_on_test=True, val_fraction=0.1)


def test_bad_images_stop_the_run_in_setup_and_all_are_counted(tmp_path):
    root = folder(tmp_path)
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "dog/4.jpg"):
        truncate(tmp_path / name)
    data = ImageFolder(root, workers=0)
    with pytest.raises(ImageError, match=r"4 of 20 images .* cat/1\.jpg .* dog/4\.jpg"):
        data.setup()
    ImageFolder(root, workers=0, check=False).setup()


def test_before_training_all_splits_are_looked_at_and_before_a_test_only_its_own(tmp_path):
    write(tmp_path, [f"{split}/{name}/{i}.jpg" for split in ("train", "test") for name in "ab" for i in range(6)])
    truncate(tmp_path / "train" / "a" / "0.jpg")
    ImageFolder(str(tmp_path)).setup("test")
    truncate(tmp_path / "test" / "a" / "0.jpg")
    with pytest.raises(ImageError, match=r"2 of 24 .* train/a/0.jpg .* test/a/0.jpg"):
        ImageFolder(str(tmp_path), val_fraction=0).setup("fit")


def test_no_image_of_the_epoch_is_dropped_but_one_that_would_be_alone():
    for batch_size, batches in ((400, [400, 400, 400, 237]), (359, [359] * 4), (1436, [1436])):
        loader = Digits(batch_size=batch_size).train_dataloader()
        assert [len(labels) for _, labels in loader] == batches


def test_the_preprocessing_of_a_model_replaces_the_rule(tmp_path):
    preprocessing = Preprocessing(resize=(24, 24), crop=None, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    data = ImageFolder(folder(tmp_path), preprocessing=preprocessing, workers=0)
    images, labels = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert images.shape[1:] == (3, 24, 24)
    assert images.abs().max() <= 1
    assert labels.dtype == torch.int64


def test_the_record_is_plain_json(tmp_path):
    record = ImageFolder(folder(tmp_path), val_fraction=0.25, seed=3, augment=Augment(erasing=0.25)).record()
    assert json.loads(json.dumps(record)) == record
    assert record["images"] == {"train": 12, "test": 4, "val": 4}
    assert (record["val_fraction"], record["test_fraction"], record["seed"]) == (0.25, 0.2, 3)
    assert record["augment"]["erasing"] == 0.25


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be between 1"),
        ({"workers": -1}, "workers must be between 0"),
        ({"image_size": 0}, "image_size must be between 1"),
        ({"views": "tencrop"}, "did you mean ten_crop"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"preprocessing": Preprocessing(resize=32, crop=None)}, "cannot form a batch"),
        ({"preprocessing": {"resize": 32, "crop": 32}}, r"preprocessing must be of Preprocessing, got \{.resize"),
        ({"augment": {"crop": "random"}}, "augment must be of Augment"),
    ],
)
def test_a_value_that_cannot_work_is_named(values, message):
    with pytest.raises(ZooError, match=message):
        Digits(**values)


class TestDigits:
    def test_are_1437_and_360_images_of_ten_classes(self):
        data = Digits()
        assert data.num_classes == 10
        assert data.record()["images"] == {"train": 1437, "test": 360}
        counts = [[label for _, label in data.samples("test")].count(digit) for digit in range(10)]
        assert set(counts) <= {35, 36, 37}

    def test_use_the_full_range_of_grey_at_the_size_asked_for(self):
        pixels, _ = next(iter(Digits(image_size=48, batch_size=64).train_dataloader()))
        assert pixels.shape == (64, 3, 48, 48)
        assert (pixels.min(), pixels.max()) == (0, 255)

    def test_an_image_of_a_digit_gives_what_the_loader_gives(self):
        data = Digits()
        pixels, _ = data.test_dataloader().dataset[7]
        image = data.reader(train=False)(data.samples("test")[7][0])
        assert image.size == (8, 8)
        assert torch.equal(data.preprocessing.normalize(pixels), data.preprocessing.transform()(image))
