"""What ``check-data`` finds in a folder, one fault at a time."""

import os
import shutil

import pytest
from image_files import truncate, write

from gcpzoo.data.survey import survey


@pytest.fixture
def root(tmp_path):
    names = [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in ("cat", "dog") for i in range(3)]
    write(tmp_path, names)
    return tmp_path


def test_a_clean_folder_is_clean(root):
    report = survey(str(root))
    assert not report.wrong
    assert report.classes == {"train": {"cat": 3, "dog": 3}, "test": {"cat": 3, "dog": 3}}
    assert (report.width, report.height, report.modes, report.formats) == (
        [20, 20, 20],
        [16, 16, 16],
        {"RGB": 12},
        {"PNG": 12},
    )
    assert report.warnings == report.within == []


@pytest.mark.parametrize(
    ("copy", "kind", "wrong"),
    [
        ("test/cat/9.png", "across_splits", True),
        ("train/dog/9.png", "across_classes", True),
        ("train/cat/9.png", "within", False),
    ],
)
@pytest.mark.parametrize("make", [shutil.copy, os.link, os.symlink])
def test_equal_files_are_found_by_their_content(root, copy, kind, wrong, make):
    make(root / "train/cat/0.png", root / copy)
    report = survey(str(root))
    found = {k: getattr(report, k) for k in ("across_splits", "across_classes", "within") if getattr(report, k)}
    assert {k: [sorted(g) for g in groups] for k, groups in found.items()} == {
        kind: [sorted(["train/cat/0.png", copy])]
    }
    assert report.wrong is wrong


def test_broken_files_and_empty_classes_are_wrong(root):
    (root / "train/owl").mkdir()
    truncate(root / "test/dog/1.png")
    report = survey(str(root))
    assert report.empty_classes == ["train/owl"]
    assert list(report.unreadable) == ["test/dog/1.png"]
    assert report.classes["test"] == {"cat": 3, "dog": 2}
    assert report.wrong


def test_a_class_that_no_image_of_can_be_read_is_empty(root):
    for i in range(3):
        truncate(root / f"train/dog/{i}.png")
    assert survey(str(root)).empty_classes == ["train/dog"]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("train/Cat\n", "control characters"),
        ("test/bird", "classes of test that train lacks: bird"),
        ("training/cat", "two folders for one split"),
    ],
)
def test_names_that_stop_a_training_are_wrong(root, folder, message):
    write(root, [f"{folder}/1.png"])
    report = survey(str(root))
    assert report.wrong
    assert message in " ".join(report.names)


def test_imbalance_and_spelling_only_warn(tmp_path):
    counts = {"cat": 3, "dog": 3, "owl": 30, "Owl": 4}
    write(tmp_path, [f"train/{name}/{i}.png" for name, count in counts.items() for i in range(count)])
    report = survey(str(tmp_path))
    assert not report.wrong
    assert report.warnings == [
        "train: Owl and owl differ in case or spacing only",
        "2 of 4 classes have at most 1/10 of the training images of the largest, 30: cat (3), dog (3)",
    ]


def test_a_folder_of_images_alone_is_for_prediction_and_an_empty_one_is_wrong(tmp_path):
    write(tmp_path, ["1.png", "2.png"])
    report = survey(str(tmp_path))
    assert (report.images, report.wrong) == (2, False)
    assert report.warnings == ["there are no class folders: for prediction only"]
    (tmp_path / "empty").mkdir()
    assert survey(str(tmp_path / "empty")).names == ["there are no images"]


def test_progress_counts_every_image_once(root):
    totals, steps = [], []
    survey(str(root), totals.append, steps.append)
    assert (totals, sum(steps)) == ([12], 12)
