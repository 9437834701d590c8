"""Class ids: what records say, what models carry, and what the data modules call their classes."""

from __future__ import annotations

import pytest
import torch
from checkpoint_files import edit
from image_files import draw
from torchvision.models import ResNet50_Weights

import gcpzoo
from gcpzoo.data import Digits, ImageFolder, ImageNet
from gcpzoo.data.classes import imagenet_classes
from gcpzoo.errors import ZooError
from gcpzoo.hub import get_record, save_local
from gcpzoo.hub.files import set_classes

WNIDS = list(imagenet_classes())
TORCHVISION = list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
TIMM = list(imagenet_classes().values())


def untrained(name: str) -> gcpzoo.GCPNet:
    """The network of a record with random weights and the record's classes."""
    record = get_record(name)
    with torch.device("meta"):
        model = gcpzoo.GCPNet.from_config(record.config)
    set_classes(model, record.class_names)
    return model


def one_record_for_each_list() -> list[str]:
    """The first record of each list of classes that the zoo has."""
    lists: dict[str, str] = {}
    for name in gcpzoo.list_models():
        if not get_record(name).unsupported:
            lists.setdefault(repr(get_record(name).class_names), name)
    return list(lists.values())


class TestRecords:
    def test_the_lists_are_imagenet_a_part_of_it_digits_textures_birds_groceries_and_cars(self):
        sizes = sorted(untrained(name).num_classes for name in one_record_for_each_list())
        assert sizes == [10, 10, 50, 81, 98, 100, 1000]

    @pytest.mark.parametrize("name", one_record_for_each_list())
    def test_a_model_has_one_id_and_one_description_for_each_class(self, name):
        model = untrained(name)
        assert len(set(model.class_names)) == len(model.class_descriptions) == model.num_classes

    def test_imagenet_models_are_known_by_wnids_and_described_in_words(self):
        model = untrained("resnet50_isqrt.in1k_li2018")
        assert model.class_names == WNIDS
        assert model.class_descriptions == TIMM
        assert model.class_names == sorted(model.class_names)

    def test_imagenet_folders_have_the_ids_of_the_model(self, tmp_path):
        for wnid in WNIDS[:2]:
            draw(tmp_path / "val" / wnid / "0.png", 0, seed=0)
        data = ImageNet(str(tmp_path), workers=0)
        assert data.index().splits["test"][1][1] == 1
        assert data.num_classes == untrained("resnet50_isqrt.in1k_li2018").num_classes
        assert data.class_names == untrained("resnet50_isqrt.in1k_li2018").class_names

    @pytest.mark.parametrize("name", ["resnet18_isqrt.cub50", "resnet50_isqrt.in1k_li2018"])
    def test_class_folders_are_matched_by_id(self, name, tmp_path):
        names = untrained(name).class_names
        for i in (0, 3):
            draw(tmp_path / "test" / names[i] / "0.png", 0, seed=i)
        data = ImageFolder(str(tmp_path), classes=names, workers=0)
        assert [label for _, label in data.index().splits["test"]] == [0, 3]

    def test_digits_are_the_digits(self):
        assert Digits().class_names == untrained("resnet18_isqrt.digits").class_names


class TestOlderCheckpoints:
    """Version 0.1 stored torchvision's names, or timm's descriptions, where wnids belong."""

    @pytest.fixture
    def thousand(self, tmp_path):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_local(gcpzoo.create_model("resnet18", "gap", 1000, until="layer1"), tmp_path / "model")
        return tmp_path / "model"

    @pytest.mark.parametrize("names", [TORCHVISION, TIMM], ids=["torchvision", "timm"])
    def test_their_names_become_wnids(self, thousand, names):
        edit(thousand, class_names=names)
        model = gcpzoo.load(thousand)
        assert model.class_names == WNIDS
        assert model.class_descriptions == TIMM
        assert model.record.class_names == WNIDS

    def test_other_names_stay(self, thousand):
        names = [f"class {i}" for i in range(1000)]
        edit(thousand, class_names=names)
        model = gcpzoo.load(thousand)
        assert model.class_names == model.class_descriptions == names


class TestDescriptions:
    def test_they_travel_beside_the_ids(self, small, tmp_path):
        save_local(small, tmp_path / "model")
        edit(tmp_path / "model", class_descriptions=["cat", "dog", "foot"])
        model = gcpzoo.load(tmp_path / "model")
        assert model.class_names == ["a cat", "a dog", "ein Fuß"]
        assert model.class_descriptions == ["cat", "dog", "foot"]
        save_local(model, tmp_path / "again")
        assert gcpzoo.load(tmp_path / "again").class_descriptions == ["cat", "dog", "foot"]

    @pytest.mark.parametrize("field", ["class_names", "class_descriptions"])
    @pytest.mark.parametrize("character", ["\x1b", "\n", "\0", "\x85", "\u2028", "\u202e", "\u2066"])
    def test_control_characters_are_refused(self, checkpoint, field, character):
        edit(checkpoint, **{field: ["a", "b", f"c{character}[31m"]})
        words = {"class_names": "class names"}.get(field, field)
        with pytest.raises(ZooError, match=f"{words} must not contain control characters, got 'c") as caught:
            gcpzoo.load(checkpoint)
        assert str(caught.value).isascii()
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        ("names", "words"), [(["a", "b", "a"], "must differ, got 'a' twice"), (["a", "", "b"], "must be non-empty")]
    )
    def test_ids_are_told_apart(self, checkpoint, names, words):
        edit(checkpoint, class_names=names)
        with pytest.raises(ZooError, match=f"class names {words}"):
            gcpzoo.load(checkpoint)

    @pytest.mark.parametrize("names", [["one"], "abc", [1, 2, 3]])
    def test_there_is_one_for_each_class(self, checkpoint, names):
        edit(checkpoint, class_descriptions=names)
        with pytest.raises(ZooError, match="class_descriptions must be 3 strings"):
            gcpzoo.load(checkpoint)
