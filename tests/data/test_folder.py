import os
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
    with pytest.warns(UserWarning, match=r"1 entry is ignored: a/phone\.heic \(no image suffix\)"):
        ImageFolder(root, val_fraction=0).setup("fit")


def test_hidden_files_are_passed_over_in_silence_and_hidden_folders_are_named(tmp_path):
    root = lay_out(tmp_path, train={"a": 1, "b": 1}, test={"a": 1, "b": 1})
    (tmp_path / "train" / "a" / ".DS_Store").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageFolder(root, val_fraction=0).class_names == ["a", "b"]
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    with pytest.warns(UserWarning, match=r"1 entry is ignored: \.ipynb_checkpoints \(its name begins with a dot\)"):
        assert ImageFolder(root, val_fraction=0).class_names == ["a", "b"]


def test_names_that_begin_with_underscores_are_classes(tmp_path):
    root = lay_out(tmp_path, train={"a": 1, "_b": 1, "__c": 1}, test={"a": 1})
    assert ImageFolder(root, val_fraction=0).class_names == ["__c", "_b", "a"]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": {"a": 1, "b": 1}, "training": {"a": 1, "b": 1}}, "two folders for one split, train and training"),
        ({"Train": {"a": 1, "b": 1}, "Test": {"a": 1, "b": 1}}, "splits in small letters, got Test, Train; rename"),
        ({"train": {"a": 1, "b": 1}, "TEST": {"a": 1, "b": 1}}, "splits in small letters, got TEST; rename"),
        ({"train": {"Cat": 1, "b": 1}, "test": {"cat": 1}}, "none of the 2 classes: cat; .*; 'cat' is 'Cat' there"),
        (
            {"train": {"caf\u00e9": 1, "cafe\u0301": 1}},
            r"'cafe\\u0301' and 'caf\\xe9' are one name in two",
        ),
    ],
)
def test_two_spellings_of_a_split_or_a_class_are_refused(splits, message, tmp_path):
    with pytest.raises(ZooError, match=message):
        ImageFolder(lay_out(tmp_path, **splits), val_fraction=0).setup("fit")


def test_classes_that_differ_in_capitals_only_are_told(tmp_path):
    root = lay_out(tmp_path, train={"A": 1, "a": 1}, test={"A": 1, "a": 1})
    with pytest.warns(UserWarning, match="names differ in case or spacing only: A and a"):
        assert ImageFolder(root, val_fraction=0).class_names == ["A", "a"]


def test_what_lies_beside_the_splits_or_the_class_folders_is_named(tmp_path):
    root = lay_out(tmp_path, train={"a": 1, "b": 1}, test={"a": 1}, more={"a": 1})
    write(tmp_path, ["train/1.jpg"])
    with pytest.warns(UserWarning, match="ignored: ") as caught:
        ImageFolder(root, val_fraction=0).setup("fit")
    told = " ".join(str(w.message) for w in caught)
    assert "more (beside the folders of the splits)" in told
    assert "1.jpg (in no class folder)" in told


@pytest.mark.parametrize("link", [os.link, os.symlink])
@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("test/a/x.jpg", r"1 file is in more than one split: train/a/0.jpg \(train\) is test/a/x.jpg \(test\)"),
        ("val/a/x.jpg", r"1 file is in more than one split: train/a/0.jpg \(train\) is val/a/x.jpg \(val\)"),
        ("train/b/x.jpg", r"one file is in two classes, a/0.jpg and b/x.jpg; delete one"),
    ],
)
def test_a_file_in_two_splits_or_classes_is_refused(link, second, message, tmp_path):
    root = lay_out(tmp_path, train={"a": 2, "b": 2}, val={"a": 2, "b": 2}, test={"a": 2, "b": 2})
    link(tmp_path / "train/a/0.jpg", tmp_path / second)
    with pytest.raises(ZooError, match=message):
        ImageFolder(root).setup("test")


@pytest.mark.parametrize("target", ["test/a", "train/b", "test"])
def test_a_link_to_the_folder_of_another_split_or_class_is_refused(target, tmp_path):
    root = lay_out(tmp_path, train={"a": 2, "b": 2}, test={"a": 2, "b": 2})
    (tmp_path / "train" / "a" / "more").symlink_to(tmp_path / target)
    with pytest.raises(ZooError, match=r"in two classes|in more than one split"):
        ImageFolder(root, val_fraction=0).setup("fit")


def test_a_second_path_of_a_file_of_one_class_is_not_a_second_image(tmp_path):
    root = lay_out(tmp_path, _={"a": 10, "b": 10})
    (tmp_path / "a" / "again.jpg").symlink_to("0.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    data = ImageFolder(root, test_fraction=0.5, val_fraction=0)
    with pytest.warns(UserWarning, match=r"3 entries are ignored: .*a/again.jpg \(the same file as a/0.jpg\)"):
        data.setup("fit")
    assert labels(data, "train") + labels(data, "test") == {"a": 10, "b": 10}


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


def test_a_single_training_image_of_a_class_is_not_held_out_for_validation(tmp_path):
    data = ImageFolder(lay_out(tmp_path, train={"a": 20, "b": 1}, test={"a": 1, "b": 1}), val_fraction=0.1)
    counts = {split: Counter(label for _, label in data.samples(split)) for split in ("train", "val")}
    assert counts == {"train": {0: 18, 1: 1}, "val": {0: 2}}


def test_folds_of_split_folders_and_of_too_few_images_are_refused(tmp_path):
    with pytest.raises(ZooError, match="folds need class folders"):
        ImageFolder(lay_out(tmp_path / "a", train={"a": 3, "b": 3}, test={"a": 1}), folds=3).setup("fit")
    with pytest.raises(ZooError, match="folds must be at most the number of images of every class, got 3: 'b' has 2"):
        ImageFolder(lay_out(tmp_path / "b", _={"a": 3, "b": 2}), folds=3).setup("fit")
    with pytest.raises(ZooError, match="fold must be from 0 to one less than folds"):
        ImageFolder(str(tmp_path), folds=3, fold=3)
