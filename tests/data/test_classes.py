"""Ids that data and models are matched by, descriptions that people read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml
from image_files import write
from torchvision.models import ResNet50_Weights

from gcpzoo.data import CUB200, Digits, ImageFolder, ImageNet
from gcpzoo.data.classes import check_class_names, class_descriptions, class_ids, imagenet_classes, is_wnid
from gcpzoo.errors import ZooError
from gcpzoo.paths import resource

RECORDS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["class_names"]
    for path in sorted((resource("checkpoints") / "records").glob("*.yaml"))
}
OWN = {name: ids for name, ids in RECORDS.items() if isinstance(ids, list)}


def test_every_record_uses_imagenet_or_lists_its_own_classes() -> None:
    assert {name.rpartition(".")[2].partition("_")[0] for name in OWN} == {
        "grocery81",
        "cub50",
        "digits",
        "dtd10",
        "cars98",
        "tinyimagenet100",
    }
    assert {ids for ids in RECORDS.values() if isinstance(ids, str)} == {"imagenet1k"}


def test_a_model_of_imagenet_fits_folders_named_by_wnid(tmp_path: Path) -> None:
    write(tmp_path, [f"val/{wnid}/1.jpg" for wnid in ("n01440764", "n15075141")])
    data = ImageNet(str(tmp_path))
    torchvisions, timms = ResNet50_Weights.IMAGENET1K_V1.meta["categories"], list(imagenet_classes().values())
    assert torchvisions != timms
    assert data.class_names == list(imagenet_classes()) == class_ids(torchvisions) == class_ids(timms)
    assert data.class_descriptions == timms
    assert (data.class_names[0], data.class_descriptions[0]) == ("n01440764", "tench, Tinca tinca")


def test_ids_stay_as_they_are() -> None:
    for ids in ([str(i) for i in range(1000)], list(imagenet_classes()), ["tench", "goldfish"]):
        assert class_ids(ids) == ids


@pytest.mark.parametrize("name", OWN)
def test_a_model_of_its_own_classes_fits_folders_named_by_them(name: str, tmp_path: Path) -> None:
    write(tmp_path, [f"test/{name}/1.jpg" for name in OWN[name]])
    data = ImageFolder(str(tmp_path), classes=OWN[name])
    assert data.class_names == class_ids(OWN[name]) == OWN[name]
    assert sorted(label for _, label in data.samples("test")) == list(range(len(OWN[name])))
    assert data.class_descriptions == class_descriptions(OWN[name])


def test_the_record_of_digits_has_the_classes_of_the_data_module() -> None:
    assert next(ids for name, ids in OWN.items() if "digits" in name) == Digits().class_names


def test_wnids_are_described_and_other_names_are_not() -> None:
    assert class_descriptions(["n15075141", "n00000001", "cat"]) == [
        "toilet tissue, toilet paper, bathroom tissue",
        "n00000001",
        "cat",
    ]


def test_a_subset_of_imagenet_in_class_folders_is_described(tmp_path: Path) -> None:
    write(tmp_path, [f"test/{wnid}/1.jpg" for wnid in ("n01440764", "n01614925")])
    data = ImageFolder(str(tmp_path))
    assert data.class_names == ["n01440764", "n01614925"]
    assert data.class_descriptions[0] == "tench, Tinca tinca"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "d\nog"], r"control characters, got 'd\\nog'"),
        (["\x1b[2Jcat", "dog"], "control characters"),
        (["cat", "gpj.\u202edog"], "control characters"),
        (["cat", "caf\udce9"], r"valid UTF-8, got 'caf\\udce9'; rename the class"),
        (["cat", "cat"], "must differ, got 'cat' twice"),
        (["cat", ""], "non-empty strings"),
        (["cat", 3], "non-empty strings, got 3"),
        ([], "at least one class"),
    ],
)
def test_names_that_cannot_be_told_apart_or_printed_are_refused(names: list, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        check_class_names(names, "here")


def test_folders_with_control_characters_are_refused_and_escaped_in_the_message(tmp_path: Path) -> None:
    write(tmp_path, ["test/cat/1.jpg", "test/d\x1b[31mog\n/1.jpg"])
    with pytest.raises(ZooError, match=r"/test: class names .* rename the class") as error:
        ImageFolder(str(tmp_path)).setup("test")
    assert str(error.value).isprintable()


def test_folders_whose_names_are_not_utf8_are_refused_and_escaped_in_the_message(tmp_path: Path) -> None:
    for name in (b"cat", b"caf\xe9"):
        folder = os.path.join(os.fsencode(tmp_path / "train"), name)
        try:
            os.makedirs(folder)
        except OSError:
            pytest.skip("this file system takes UTF-8 only")
        write(tmp_path, ["1.jpg"])
        shutil.copy(tmp_path / "1.jpg", os.path.join(folder, b"1.jpg"))
    with pytest.raises(ZooError, match=r"/train: class names must be valid UTF-8, got 'caf\\udce9'") as error:
        ImageFolder(str(tmp_path)).setup("fit")
    assert str(error.value).isprintable()


def test_names_in_other_scripts_and_with_spaces_are_welcome(tmp_path: Path) -> None:
    names = sorted(["ein Fuß", "猫", "Model-00 Mk0", "a\u00a0b"])
    write(tmp_path, [f"test/{name}/1.jpg" for name in names])
    assert ImageFolder(str(tmp_path)).class_names == names


def test_a_list_of_classes_with_a_repeated_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "CUB_200_2011" / "images").mkdir(parents=True)
    for name, text in (
        ("classes.txt", "1 a\n2 a\n"),
        ("images.txt", "1 a/1.jpg\n"),
        ("image_class_labels.txt", "1 1\n"),
        ("train_test_split.txt", "1 1\n"),
    ):
        (tmp_path / "CUB_200_2011" / name).write_text(text)
    with pytest.raises(ZooError, match="CUB200: class names must differ, got 'a' twice"):
        CUB200(str(tmp_path)).setup("fit")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("n01440764", True), ("n0144076", False), ("x01440764", False), ("n0144076x", False), ("123456789", False)],
)
def test_a_wnid_is_n_and_eight_digits(name: str, expected: bool) -> None:
    assert is_wnid(name) is expected
