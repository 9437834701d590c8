import warnings
from collections import Counter

import pytest
from image_files import write
from jsonargparse import ArgumentParser

from gcpzoo.data import ImageDataModule, ImageFolder
from gcpzoo.errors import ZooError


def lay_out(root, **splits: dict[str, int]) -> str:
    """``lay_out(root, train={"cat": 3})``; the key ``""`` puts class folders directly into ``root``."""
    write(
        root,
        [
            f"{split.strip('_')}/{name}/{i}.jpg".lstrip("/")
            for split, classes in splits.items()
            for name, count in classes.items()
            for i in range(count)
        ],
    )
    return str(root)


def labels(data: ImageFolder, split: str) -> Counter:
    return Counter(data.class_names[label] for _, label in data.samples(split))


def test_three_folders_are_the_three_splits(tmp_path):
    root = lay_out(tmp_path, train={"b": 3, "a": 2}, valid={"a": 1, "b": 1}, test={"b": 2, "a": 1})
    data = ImageFolder(root)
    assert data.class_names == ["a", "b"]
    assert [labels(data, split) for split in ("train", "val", "test")] == [
        {"a": 2, "b": 3},
        {"a": 1, "b": 1},
        {"a": 1, "b": 2},
    ]
    assert data.record()["val_fraction"] == data.record()["test_fraction"] == 0


def test_without_a_val_folder_a_part_of_train_is_held_out(tmp_path):
    data = ImageFolder(lay_out(tmp_path, train={"a": 20, "b": 10}, test={"a": 1, "b": 1}), val_fraction=0.2)
    assert labels(data, "val") == {"a": 4, "b": 2}
    assert labels(data, "train") == {"a": 16, "b": 8}
    assert data.record()["val_fraction"] == 0.2


def test_class_folders_alone_are_split_in_a_stratified_way(tmp_path):
    root = lay_out(tmp_path, _={"a": 20, "b": 40})
    data = ImageFolder(root, val_fraction=0.25, test_fraction=0.5)
    assert labels(data, "test") == {"a": 10, "b": 20}
    assert sum(labels(data, "val").values()) == 8
    paths = [path for split in ("train", "val", "test") for path, _ in data.samples(split)]
    assert len(paths) == len(set(paths)) == 60
    assert data.samples("test") == ImageFolder(root, test_fraction=0.5).samples("test")
    assert data.samples("test") != ImageFolder(root, test_fraction=0.5, seed=1).samples("test")


def test_splits_with_fewer_classes_are_mapped_by_name(tmp_path):
    root = lay_out(tmp_path, train={"a": 1, "b": 1, "c": 1}, val={"c": 2}, test={"b": 1, "c": 1})
    data = ImageFolder(root)
    assert [label for _, label in data.samples("val")] == [2, 2]
    assert [label for _, label in data.samples("test")] == [1, 2]


def test_a_class_that_training_lacks_is_an_error(tmp_path):
    root = lay_out(tmp_path, train={"a": 1, "b": 1}, test={"a": 1, "z": 1})
    with pytest.raises(ZooError, match=r"1 of 2 folders are none of the 2 classes: z; a class must be in the training"):
        ImageFolder(root).setup("test")


def test_the_classes_of_a_model_give_the_labels(tmp_path):
    root = lay_out(tmp_path, test={"b": 1, "d": 1})
    data = ImageFolder(root, classes=["d", "c", "b"])
    data.setup("test")
    assert [label for _, label in data.samples("test")] == [2, 0]
    assert data.num_classes == 3
    with pytest.raises(ZooError, match=r"no train split in .*; available: test"):
        data.setup("fit")


def test_a_test_folder_that_is_missing_is_told(tmp_path):
    data = ImageFolder(lay_out(tmp_path, train={"a": 1, "b": 1}, val={"a": 1, "b": 1}))
    with pytest.raises(ZooError, match=r"no test split in .*; available: train, val"):
        data.setup("test")


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(ZooError, match=r"no folder .*/nowhere; expected train, val and test folders"):
        ImageFolder(str(tmp_path / "nowhere")).setup("fit")


def test_an_empty_root_and_images_without_class_folders_are_told_apart(tmp_path):
    with pytest.raises(ZooError, match="is empty; put the images of each class into a folder"):
        ImageFolder(str(tmp_path)).setup("fit")
    write(tmp_path, ["1.jpg", "2.jpg"])
    with pytest.raises(ZooError, match="holds 2 images but no class folders"):
        ImageFolder(str(tmp_path)).setup("fit")


def test_an_empty_class_folder_is_named(tmp_path):
    root = lay_out(tmp_path, train={"a": 1, "b": 1}, test={"a": 1, "b": 1})
    (tmp_path / "train" / "c").mkdir()
    with pytest.raises(ZooError, match="train: 1 of 3 class folders have no images: c; fill or delete"):
        ImageFolder(root).setup("fit")


def test_a_class_of_the_model_without_training_images_is_an_error(tmp_path):
    root = lay_out(tmp_path, train={"a": 1, "b": 1}, test={"a": 1})
    with pytest.raises(ZooError, match="1 of 3 classes have no folder"):
        ImageFolder(root, classes=["a", "b", "c"], val_fraction=0).setup("fit")


def test_one_class_alone_is_refused(tmp_path):
    with pytest.raises(ZooError, match=r"one class only \(a\)"):
        ImageFolder(lay_out(tmp_path, train={"a": 4}, test={"a": 2}), val_fraction=0).setup("fit")


def test_classes_too_small_to_split_are_explained(tmp_path):
    with pytest.raises(ZooError, match=r"cannot hold out a share of 0.2 of 4 images in 2 classes: .*'b', has 1"):
        ImageFolder(lay_out(tmp_path, _={"a": 3, "b": 1})).setup("fit")


@pytest.mark.parametrize(
    ("splits", "remedy"),
    [
        ({"_": {"a": 1, "b": 1}}, "change test_fraction"),
        ({"train": {"a": 1, "b": 1}}, "change val_fraction, or set it"),
    ],
)
def test_one_image_for_each_class_names_the_option_that_splits_them(tmp_path, splits, remedy):
    with pytest.raises(ZooError, match=rf"both parts need images of every class .*'a', has 1\); {remedy}"):
        ImageFolder(lay_out(tmp_path, **splits)).samples("train")


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_training_images_too_few_to_hold_some_out_do_not_stop_a_test(tmp_path, stage):
    data = ImageFolder(lay_out(tmp_path, train={"a": 1, "b": 1}, test={"a": 2, "b": 1}))
    data.setup(stage)
    assert (data.class_names, labels(data, "test")) == (["a", "b"], {"a": 2, "b": 1})
    assert data.record()["images"] == {"train": 2, "test": 3}
    assert data.record()["val_fraction"] == 0
    with pytest.raises(ZooError, match="val_fraction"):
        data.setup("fit")


def test_files_that_are_no_images_by_their_suffix_are_told(tmp_path):
    root = lay_out(tmp_path, train={"a": 1, "b": 1}, test={"a": 1, "b": 1})
    (tmp_path / "train" / "a" / "phone.heic").touch()
    with pytest.warns(UserWarning, match=r"1 files do not have an image suffix .* a/phone\.heic"):
        ImageFolder(root, val_fraction=0).setup("fit")


def test_hidden_files_and_folders_are_passed_over_in_silence(tmp_path):
    root = lay_out(tmp_path, train={"a": 1, "b": 1}, test={"a": 1, "b": 1})
    (tmp_path / "train" / "a" / ".DS_Store").touch()
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageFolder(root, val_fraction=0).class_names == ["a", "b"]


def test_the_command_line_takes_every_data_set_by_name_with_the_options_of_all(tmp_path):
    root = lay_out(tmp_path, train={"a": 1, "b": 1}, test={"a": 1, "b": 1})
    parser = ArgumentParser()
    parser.add_subclass_arguments(ImageDataModule, "data")
    arguments = ["--data=gcpzoo.data.ImageFolder", f"--data.root={root}", "--data.batch_size=7", "--data.image_size=32"]
    arguments += ["--data.augment.crop=center", "--data.augment.erasing=0.25", "--data.views=ten_crop"]
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # jsonargparse before 4.49
    data = instantiate(parser.parse_args(arguments)).data
    assert (data.batch_size, data.views, data.augment.crop, data.augment.erasing) == (7, "ten_crop", "center", 0.25)
    assert data.preprocessing.crop == 32
    for name in ("ImageNet", "CUB200", "FGVCAircraft", "StanfordCars", "Digits"):
        extra = [] if name == "Digits" else [f"--data.root={root}"]
        config = parser.parse_args([f"--data=gcpzoo.data.{name}", "--data.batch_size=3", *extra])
        assert instantiate(config).data.batch_size == 3
