"""Classifying image files: which files, which classes, which probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_files import photo

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.serve import Predictor, find_images


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{i}.png" for i in range(2)]
    for i, file in enumerate(files):
        photo(60, 50, seed=i).save(file)
    return files


def test_an_answer_is_the_softmax_of_the_transformed_image(small: gcpzoo.GCPNet, paths: list[Path]) -> None:
    answers = list(Predictor(small, top=2)(paths))
    assert [answer.path for answer in answers] == [str(path) for path in paths]
    for seed, answer in enumerate(answers):
        with torch.no_grad():
            expected = small(small.transform(photo(60, 50, seed=seed))[None]).softmax(1)[0]
        order = expected.argsort(descending=True)[:2].tolist()
        assert [c.name for c in answer.classes] == [small.class_names[k] for k in order]
        assert [c.probability for c in answer.classes] == [round(float(expected[k]), 4) for k in order]


def test_descriptions_stand_beside_the_ids_and_fall_back_on_them(small: gcpzoo.GCPNet, paths: list[Path]) -> None:
    assert {(c.name, c.description) for c in next(Predictor(small)(paths)).classes} == {
        (n, n) for n in small.class_names
    }
    model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1").eval()
    model.preprocessing = small.preprocessing
    assert {c.name for c in next(Predictor(model)(paths)).classes} == {"0", "1"}
    model.class_names, model.class_descriptions = ["n1", "n2"], ["tench", "goldfish"]
    found = next(Predictor(model)(paths)).to_dict()["classes"]
    assert {(c["class"], c["description"]) for c in found} == {("n1", "tench"), ("n2", "goldfish")}
    assert list(found[0]) == ["class", "description", "probability"]


def test_top_is_at_least_one_and_at_most_all(small: gcpzoo.GCPNet, paths: list[Path]) -> None:
    assert len(next(Predictor(small, top=99)(paths)).classes) == 3
    assert len(next(Predictor(small, top=1)(paths)).classes) == 1
    with pytest.raises(ZooError, match="top must be at least 1, got 0"):
        Predictor(small, top=0)


def test_an_unreadable_file_is_answered_by_its_error(small: gcpzoo.GCPNet, paths: list[Path]) -> None:
    paths[0].write_bytes(b"no image")
    bad, good = Predictor(small)(paths)
    assert "0.png" in str(bad.error)
    assert not bad.classes
    assert good.error is None
    assert len(good.classes) == 3


def test_images_are_found_in_folders_in_order_and_files_are_taken_as_given(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    assert find_images([tmp_path]) == [str(path) for path in paths]
    assert find_images([paths[1], tmp_path / "notes.txt", paths[0]]) == [
        str(paths[1]), str(tmp_path / "notes.txt"), str(paths[0])
    ]  # fmt: skip
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZooError, match="no image in folder .*empty"):
        find_images([paths[0], tmp_path / "empty"])
    with pytest.raises(ZooError, match="no image 'absent.png'"):
        find_images([tmp_path / "empty", "absent.png"])
