"""What models say of an image, one beside its control: the answers of the page, without the page."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import photo
from PIL import Image

import gcpzoo
from gcpzoo.analysis.embeddings import embed
from gcpzoo.data import Digits
from gcpzoo.data.images import ImageError
from gcpzoo.errors import ZooError
from gcpzoo.hub import list_models, save_local
from gcpzoo.hub.records import IN_PACKAGE, Record, weights_file
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.serve import Predictor, Viewer
from gcpzoo.serve.page import DIGITS

MODEL = "resnet18_isqrt.digits"
SEVEN = DIGITS / "7.png"


def save_gap(folder: Path, names: list[str]) -> str:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = gcpzoo.create_model("resnet18", "gap", len(names), until="layer1").eval()
    model.preprocessing, model.class_names = Digits.rule(32), names
    save_local(model, folder)
    return str(folder)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_gap(tmp_path_factory.mktemp("gap") / "model", list("0123456789"))


@pytest.fixture(scope="module")
def viewer(control: str) -> Viewer:
    return Viewer(MODEL, control)


def test_the_scores_are_those_of_predict_and_the_likeliest_class_is_explained(viewer: Viewer) -> None:
    (opinion,) = viewer.look(SEVEN, MODEL).opinions
    assert opinion.scores == next(iter(Predictor(MODEL)([SEVEN]))).classes
    assert opinion.explanation.description == opinion.scores[0].description == "7"
    assert list(opinion.explanation.maps) == ["Grad-CAM", "second order"]
    assert opinion.about == "head isqrt · top-1 99.72 % · its GAP control 99.44 % · accuracy verified"


def test_the_control_is_asked_about_the_same_class(viewer: Viewer, control: str) -> None:
    own = viewer.look(SEVEN, control).opinions[0].explanation.label
    other = str((own + 1) % 10)
    first, second = viewer.look(SEVEN, MODEL, other, beside_control=True).opinions
    assert (first.model, second.model) == (MODEL, control)
    assert first.explanation.description == second.explanation.description == other
    first, second = viewer.look(SEVEN, MODEL, beside_control=True).opinions
    assert second.explanation.label == first.explanation.label == 7
    assert list(second.explanation.maps) == ["Grad-CAM", "gradient × features"]


def test_a_control_of_other_classes_explains_its_own_likeliest(tmp_path: Path) -> None:
    other = Viewer(MODEL, save_gap(tmp_path / "model", ["cat", "dog"]))
    opinion = other.look(SEVEN, MODEL, beside_control=True).opinions[1]
    assert opinion.explanation.description == opinion.scores[0].description


def test_an_unknown_class_is_an_error(viewer: Viewer) -> None:
    with pytest.raises(ZooError, match="unknown class 'eleven'"):
        viewer.look(SEVEN, MODEL, "eleven")


def test_a_bad_file_is_named_without_its_folder(viewer: Viewer, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(
        ImageError, match=r"^cannot read image bad\.png: not an image in AVIF, .*; replace or delete it$"
    ):
        viewer.look(tmp_path / "bad.png", MODEL)


def test_a_file_that_pillow_gives_to_another_program_is_never_opened(viewer: Viewer, tmp_path: Path) -> None:
    photo(20, 20).save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "photo.png")
    with pytest.raises(ImageError, match=r"photo\.png: not an image in AVIF, "):
        viewer.look(tmp_path / "photo.png", MODEL)


def test_an_image_that_would_reach_the_network_in_full_size_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = Viewer(save_gap(tmp_path / "model", ["cat", "dog"]))
    viewer._predictor(viewer.first).model.preprocessing = Preprocessing(resize=None, crop=None)
    monkeypatch.setattr("gcpzoo.limits.SERVED_PIXELS", 8 * 8 - 1)
    with pytest.raises(ImageError, match=r"^cannot read image 7\.png: 8×8 is more than 63 pixels$"):
        viewer.look(SEVEN, viewer.first)


def test_an_image_of_too_many_pixels_is_an_error(
    viewer: Viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(20, 20).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)
    with pytest.raises(ImageError, match=r"^cannot read image huge\.png: more than 399 pixels"):
        viewer.look(tmp_path / "huge.png", MODEL)


def test_the_given_model_comes_first_then_those_of_the_package_then_downloads(viewer: Viewer, control: str) -> None:
    names = [name for _, name in viewer.choices]
    assert names[0] == MODEL
    assert len(names) == len(set(names))
    records = [gcpzoo.hub.get_record(name) for name in names]
    kinds = [record.kind == "embedded" for record in records]
    assert kinds == sorted(kinds, reverse=True)
    assert set(names) == {name for name in list_models() if not gcpzoo.hub.get_record(name).unsupported}
    assert Viewer(control).choices[0] == (control, control)


def test_models_whose_weights_the_installed_package_lacks_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def file(record: Record) -> Path:
        if record.name not in IN_PACKAGE:
            raise ZooError("its weights are too large for the installed package")
        return weights_file(record)

    monkeypatch.setattr("gcpzoo.serve.viewer.weights_file", file)
    offered = {name for _, name in Viewer().choices}
    assert {name for name in offered if gcpzoo.hub.get_record(name).kind == "embedded"} == IN_PACKAGE
    record = replace(gcpzoo.hub.get_record(MODEL), control={"record": "resnet18_gap.digits"})
    monkeypatch.setattr("gcpzoo.serve.viewer.get_record", lambda n: record if n == MODEL else gcpzoo.hub.get_record(n))
    assert Viewer().control_of(MODEL) is None


def test_the_control_is_the_one_of_the_record_if_it_can_be_loaded(viewer: Viewer, control: str) -> None:
    assert viewer.control_of(MODEL) == control
    assert Viewer().control_of("mobilenet_v2_isqrt.grocery81") in (None, "mobilenet_v2_gap.grocery81")
    for name in list_models():
        named = (gcpzoo.hub.get_record(name).control or {}).get("record")
        loadable = named in list_models() and not gcpzoo.hub.get_record(named).unsupported
        assert Viewer().control_of(name) == (named if loadable else None)


def test_a_control_needs_its_model(control: str) -> None:
    with pytest.raises(ZooError, match="a control needs the model that it belongs to"):
        Viewer(control=control)


def test_a_wrong_name_is_an_error_at_once() -> None:
    with pytest.raises(ZooError, match="did you mean resnet18_isqrt.digits"):
        Viewer("resnet18_isqrt.digit")


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    for label in ("3", "7", "9"):
        (folder / label).mkdir()
        Image.open(DIGITS / f"{label}.png").save(folder / label / "0.png")
        Image.fromarray(255 - np.asarray(Image.open(DIGITS / f"{label}.png"))).save(folder / label / "1.png")
    embed(MODEL, folder, workers=0).save(folder / "emb.npz")
    return folder / "emb.npz"


def test_the_nearest_training_image_of_an_image_is_the_image_itself(embeddings: Path) -> None:
    viewer = Viewer(embeddings=embeddings)
    assert viewer.first == MODEL
    look = viewer.look(SEVEN, MODEL)
    near = look.neighbors
    assert (near[0].path, near[0].label) == (str(embeddings.parent / "7" / "0.png"), "7")
    assert near[0].cosine == pytest.approx(1, abs=1e-5)
    assert near[0].image is not None
    cosines = [one.cosine for one in near]
    assert len(near) == 5
    assert cosines == sorted(cosines, reverse=True)
    (embeddings.parent / "7" / "0.png").rename(embeddings.parent / "7" / "away.png")
    assert viewer.look(SEVEN, MODEL).neighbors[0].image is None


def test_embeddings_of_another_model_are_not_compared(embeddings: Path, control: str) -> None:
    look = Viewer(embeddings=embeddings).look(SEVEN, control)
    assert look.neighbors == ()
    assert look.remarks == (f"No nearest training images: the embeddings were made with {MODEL}.",)
    with pytest.raises(
        ZooError, match=f"these embeddings are of another model \\({MODEL}\\) than .*embed the images again"
    ):
        Viewer(control, embeddings=embeddings)


def test_without_grad_cam_its_map_is_left_out_and_the_extra_is_named(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcpzoo.serve.viewer.find_spec", lambda name: None)
    look = viewer.look(SEVEN, MODEL)
    assert list(look.opinions[0].explanation.maps) == ["second order"]
    assert "pip install 'gcpzoo[explain]'" in look.remarks[0]


def test_only_the_models_asked_last_stay_in_memory(
    viewer: Viewer, control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = gcpzoo.load(MODEL)
    read: list[str] = []
    monkeypatch.setattr("gcpzoo.serve.viewer.load", lambda name: read.append(name) or network)
    for name in ("a", "b", "c", "c", "b", "a", MODEL, control):
        viewer._predictor(name)
    assert read == ["a", "b", "c", "a"]


def test_two_who_ask_at_once_get_what_each_alone_would(viewer: Viewer) -> None:
    paths = [DIGITS / f"{name}.png" for name in "379379"]
    alone = {path: viewer.look(path, MODEL, beside_control=True) for path in paths[:3]}
    with ThreadPoolExecutor(6) as pool:
        looks = list(pool.map(lambda path: viewer.look(path, MODEL, beside_control=True), paths))
    for path, look in zip(paths, looks):
        for mine, expected in zip(look.opinions, alone[path].opinions, strict=True):
            assert mine.scores == expected.scores
            for name, marks in expected.explanation.maps.items():
                np.testing.assert_array_equal(mine.explanation.maps[name].numpy(), marks.numpy())
