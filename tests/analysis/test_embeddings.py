"""Vectors of images: what they are, what the file holds, and how well they find their class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import photo, truncate, write
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score

import gcpzoo
from gcpzoo.analysis import Embeddings, embed, evaluate_retrieval, nearest
from gcpzoo.analysis.retrieval import embed_queries
from gcpzoo.data.images import ImageError
from gcpzoo.errors import ZooError
from gcpzoo.functional import covariance, triangle


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write(tmp_path / "photos", [f"{name}/{k}.png" for name in ("cat", "dog") for k in range(3)])
    return tmp_path / "photos"


def embedded(x: np.ndarray, labels: list[int]) -> Embeddings:
    names = [str(i) for i in range(max(labels) + 1)]
    return Embeddings(x.astype(np.float32), list(map(str, range(len(x)))), np.array(labels), names)


def test_a_vector_is_what_the_classifier_sees_of_the_image(small: gcpzoo.GCPNet, images: Path) -> None:
    found = embed(small, images, batch_size=4, workers=0)
    assert [Path(path).relative_to(images).as_posix() for path in found.paths] == [
        f"{name}/{k}.png" for name in ("cat", "dog") for k in range(3)
    ]
    assert found.labels is not None
    assert (found.class_names, found.labels.tolist()) == (["cat", "dog"], [0, 0, 0, 1, 1, 1])
    with torch.no_grad():
        f = small.forward_features(small.transform(photo(20, 16, seed=4))[None])
        expected = small.forward_head(f, pre_logits=True)[0]
        before = triangle(covariance(small.head.reduce(f)))[0]
    np.testing.assert_allclose(found.vectors[4], expected.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        embed(small, [images / "dog/1.png"], before_root=True).vectors[0], before.numpy(), rtol=1e-4, atol=1e-6
    )


def test_a_head_without_a_covariance_has_nothing_before_its_root(images: Path) -> None:
    with pytest.raises(ZooError, match="before_root needs a head that makes a covariance, got gap"):
        embed(gcpzoo.create_model("resnet18", "gap", 2, until="layer1"), images, before_root=True)


def test_whitened_vectors_are_those_of_scikit_learn_and_so_are_queries(small: gcpzoo.GCPNet, images: Path) -> None:
    plain, found = embed(small, images), embed(small, images, whiten=3)
    expected = PCA(3, whiten=True, random_state=0).fit_transform(plain.vectors)
    np.testing.assert_allclose(found.vectors, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.vectors.var(0, ddof=1), 1, rtol=1e-3)
    again = embed_queries(found, [found.paths[2]], small)
    np.testing.assert_allclose(again.vectors[0], found.vectors[2], rtol=1e-3, atol=1e-3)
    with pytest.raises(ZooError, match="whiten must be between 1 and the 6 images, got 7"):
        embed(small, images, whiten=7)
    with pytest.raises(ZooError, match="whiten must be at most 5, beyond which"):  # six points span five directions
        embed(small, images, whiten=6)


def test_the_folders_of_splits_are_no_classes(small: gcpzoo.GCPNet, tmp_path: Path) -> None:
    write(tmp_path, ["train/cat/1.png", "test/dog/1.png"])
    found = embed(small, tmp_path)
    assert found.labels is not None
    assert (found.class_names, found.labels.tolist()) == (["cat", "dog"], [1, 0])
    write(tmp_path, ["train/loose.png"])
    assert embed(small, tmp_path).labels is None


def test_an_image_that_cannot_be_read_is_left_out_only_if_told(small: gcpzoo.GCPNet, images: Path) -> None:
    truncate(images / "cat/1.png")
    with pytest.raises(ImageError, match=r"1 of 6 images in .* cannot be read: cat/1.png \("):
        embed(small, images)
    found = embed(small, images, skip_corrupt=True)
    assert found.labels is not None
    assert (len(found.vectors), len(found.paths), found.labels.tolist()) == (5, 5, [0, 0, 1, 1, 1])
    assert list(found.faults) == [str(images / "cat/1.png")]


def test_the_file_is_read_without_pickle_and_gives_the_same_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = Embeddings(
        rng.normal(size=(2, 3)).astype(np.float32), ["Fuß.png", "b\udcff.png"], np.array([1, 0]), ["猫", "dog"],
        {"model": "m"}, np.zeros(4), np.ones((4, 3)),
    )  # fmt: skip
    found.save(tmp_path / "emb.npz")
    back = Embeddings.read(tmp_path / "emb.npz")
    assert (back.paths, back.class_names, back.about["model"]) == (found.paths, found.class_names, "m")
    for name in ("vectors", "labels", "center", "matrix"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
    for content in (b"", b"PK\x03\x04 no archive"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ZooError, match=r"bad.npz' does not hold embeddings"):
            Embeddings.read(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"about": None}, "it lacks about"),
        ({"about": np.array("[1]")}, "it does not say by which model they were made"),
        ({"about": np.array('{"model": 5}')}, "it does not say by which model they were made"),
        ({"vectors": np.full((2, 3), np.nan, np.float32)}, "its vectors must be finite numbers"),
        ({"vectors": np.zeros((0, 3), np.float32), "paths": np.array([], np.str_)}, "of one image at least"),
        ({"center": np.zeros(4)}, "its whitening does not fit its vectors"),
        ({"center": np.zeros(4), "matrix": np.ones((5, 3))}, "its whitening does not fit its vectors"),
        ({"paths": np.array([{}, {}], object)}, "no .npz file of plain arrays$"),  # numpy: "load it unsafely"
    ],
)
def test_arrays_that_cannot_be_used_are_refused_when_they_are_read(
    changed: dict[str, np.ndarray | None], reason: str, tmp_path: Path
) -> None:
    Embeddings(np.ones((2, 3), np.float32), ["a.png", "b.png"]).save(tmp_path / "emb.npz")
    arrays = {**np.load(tmp_path / "emb.npz"), **changed}
    np.savez(tmp_path / "emb.npz", **{name: values for name, values in arrays.items() if values is not None})
    with pytest.raises(ZooError, match=f"emb.npz' does not hold embeddings of 'gcpzoo embed': .*{reason}"):
        Embeddings.read(tmp_path / "emb.npz")


def test_map_is_the_mean_of_scikit_learns_average_precision_without_the_query_itself() -> None:
    rng = np.random.default_rng(0)
    y = [0] * 7 + [1] * 5 + [2] * 9 + [3]
    x = rng.normal(size=(len(y), 6)) + 0.8 * np.eye(6)[y]
    found = evaluate_retrieval(embedded(x, y), ks=(1, 5))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine, labels = unit @ unit.T, np.array(y)
    expected, first = [], []
    for i in range(len(y) - 1):  # the last is alone in its class
        others = np.arange(len(y)) != i
        expected.append(average_precision_score(labels[others] == y[i], cosine[i, others]))
        first.append((labels[others] == y[i])[np.argsort(-cosine[i, others])].argmax())
    assert found.mean_average_precision == pytest.approx(np.mean(expected), rel=1e-6)
    assert found.recall == {k: pytest.approx(np.mean(np.array(first) < k)) for k in (1, 5)}
    assert (found.queries, found.images) == (21, 22)


def test_a_copy_of_the_query_is_a_result_but_the_query_is_none() -> None:
    x = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    assert evaluate_retrieval(embedded(x, [0, 1, 0, 1]), ks=(1, 3)).to_dict() == {
        "recall@1": 0.0, "recall@3": 1.0, "map": pytest.approx(0.5, abs=0.17), "queries": 4, "images": 4
    }  # fmt: skip
    assert evaluate_retrieval(embedded(x, [0, 0, 1, 1])).recall[1] == 1


def test_what_cannot_be_ranked_is_refused() -> None:
    x = np.eye(3)
    with pytest.raises(ZooError, match="recall and mAP need labels"):
        evaluate_retrieval(Embeddings(x, list("abc")))
    with pytest.raises(ZooError, match="need two images of a class"):
        evaluate_retrieval(embedded(x, [0, 1, 2]))
    with pytest.raises(ZooError, match="queries must have 3 values each, got 2"):
        nearest(embedded(x, [0, 0, 0]), np.ones((1, 2)))
    with pytest.raises(ZooError, match="k must be at least 1, got 0"):
        nearest(embedded(x, [0, 0, 0]), x, k=0)


def test_queries_of_another_model_are_refused(small: gcpzoo.GCPNet, images: Path) -> None:
    found = embed(small, images)
    with pytest.raises(ZooError, match="these embeddings are of another model"):
        embed_queries(found, [found.paths[0]], "resnet18_isqrt.digits")


def test_folders_of_splits_are_never_taken_for_classes(small: gcpzoo.GCPNet, tmp_path: Path) -> None:
    write(tmp_path, [f"{split}/{name}/1.png" for split in ("train", "test") for name in ("cat", "dog")])
    assert embed(small, tmp_path).class_names == ["cat", "dog"]
    write(tmp_path, ["more/1.png"])  # beside them: of no class
    found = embed(small, tmp_path)
    assert (len(found.paths), found.labels, found.class_names) == (5, None, [])
