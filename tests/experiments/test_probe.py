"""Probes: features are kept under everything they depend on, protocols choose without the test images, episodes."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import draw

import gcpzoo
from gcpzoo.data import Digits
from gcpzoo.data.sharding import pack
from gcpzoo.errors import ZooError
from gcpzoo.experiments.probe import Features, class_folders, extract, few_shot, probe
from gcpzoo.experiments.probe import features as module
from gcpzoo.models.preprocessing import Preprocessing


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for split, n in (("train", 4), ("test", 3)):
        for label, name in enumerate(("north", "east", "south")):
            for k in range(n):
                draw(tmp_path / "data" / split / name / f"{k}.png", label, seed=k + 100 * len(split))
    return tmp_path / "data"


def folder_of(root: Path, **kwargs: object) -> module.ImageDataModule:
    rule = Preprocessing(resize=(32, 32), crop=None)
    return class_folders(root, batch_size=4, workers=0, **{"preprocessing": rule, **kwargs})


def clusters(classes: int, n: int, dim: int, noise: float, seed: int = 0) -> Features:
    means = np.random.default_rng(0).normal(size=(classes, dim))
    x = means.repeat(n, 0) + noise * np.random.default_rng(100 + seed).normal(size=(classes * n, dim))
    return Features(x.astype(np.float32), np.repeat(np.arange(classes), n), list(map(str, range(classes))), False)


def test_features_are_what_the_head_gives_in_evaluation_without_augmentation(
    small: gcpzoo.GCPNet, images: Path, tmp_path: Path
) -> None:
    data = folder_of(images)
    small.train()
    found = extract(small, data, "train", folder=tmp_path / "kept")
    assert small.training
    small.eval()
    assert found.class_names == ["east", "north", "south"]
    assert found.y.tolist() == [label for _, label in data.samples("train")]
    transform = data.preprocessing
    for i in (0, 11):
        pixels = transform.pixels()(data.reader(train=False)(data.samples("train")[i][0]))
        with torch.no_grad():
            v = small.forward_head(small.forward_features(transform.normalize(pixels[None])), pre_logits=True)
        np.testing.assert_allclose(found.x[i], v[0].numpy(), rtol=1e-4, atol=1e-6)


def test_features_are_computed_once(
    small: gcpzoo.GCPNet, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract(small, folder_of(images), "test", folder=tmp_path / "kept")
    monkeypatch.setattr(module, "_compute", lambda *_: pytest.fail("computed again"))
    again = extract(small, folder_of(images), "test", folder=tmp_path / "kept")
    assert (first.cached, again.cached) == (False, True)
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(first.y, again.y)


def test_whatever_features_depend_on_makes_them_new(small: gcpzoo.GCPNet, images: Path, tmp_path: Path) -> None:
    def cached(model: gcpzoo.GCPNet = small, split: str = "test", **kwargs: object) -> bool:
        return extract(model, folder_of(images, **kwargs), split, folder=tmp_path / "kept").cached

    assert [cached(), cached()] == [False, True]
    assert not cached(split="train")
    assert not cached(preprocessing=Preprocessing(resize=(24, 24), crop=None))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        other = gcpzoo.create_model("resnet18", "isqrt", 3, dim=8, until="layer1")
    other.load_state_dict(small.state_dict())
    assert cached(other)  # the same weights
    with torch.no_grad():
        other.classifier.weight += 1
    assert cached(other)  # the classifier is not used
    with torch.no_grad():
        other.backbone.conv1.weight[0, 0, 0, 0] += 1e-3
    assert not cached(other)
    path = images / "test" / "north" / "0.png"
    os.utime(path, ns=(1, 1))
    assert not cached()
    path.unlink()
    assert not cached()


def test_an_image_replaced_with_the_same_size_and_time_makes_features_new(
    small: gcpzoo.GCPNet, images: Path, tmp_path: Path
) -> None:
    path = images / "test" / "north" / "0.png"
    path.write_bytes(path.read_bytes().ljust(20_000, b"\0"))  # bytes after the end are not read
    before = path.stat()
    first = extract(small, folder_of(images), "test", folder=tmp_path / "kept")
    path.write_bytes((images / "test" / "south" / "0.png").read_bytes().ljust(20_000, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as cp -p, rsync and tar leave it
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    again = extract(small, folder_of(images), "test", folder=tmp_path / "kept")
    assert not again.cached
    assert not np.array_equal(first.x, again.x)


def test_shards_written_anew_with_other_images_make_features_new(
    small: gcpzoo.GCPNet, images: Path, tmp_path: Path
) -> None:
    def features() -> Features:
        shutil.rmtree(tmp_path / "shards", ignore_errors=True)
        pack(str(images), str(tmp_path / "shards"))
        return extract(small, folder_of(tmp_path / "shards"), "test", folder=tmp_path / "kept")

    first = features()
    assert features().cached
    north, south = (images / "test" / name / "0.png" for name in ("north", "south"))
    north.write_bytes(south.read_bytes())
    again = features()
    assert not again.cached
    assert not np.array_equal(first.x, again.x)


def test_a_root_switched_by_hand_makes_features_new(small: gcpzoo.GCPNet, images: Path, tmp_path: Path) -> None:
    extract(small, folder_of(images), "test", folder=tmp_path / "kept")
    network = copy.deepcopy(small)
    network.head.switch_root("exact")
    assert not extract(network, folder_of(images), "test", folder=tmp_path / "kept").cached


def test_a_damaged_file_of_features_is_computed_again(small: gcpzoo.GCPNet, images: Path, tmp_path: Path) -> None:
    first = extract(small, folder_of(images), "test", folder=tmp_path / "kept")
    (path,) = (tmp_path / "kept").iterdir()
    path.write_bytes(path.read_bytes()[:40])
    again = extract(small, folder_of(images), "test", folder=tmp_path / "kept")
    assert not again.cached
    np.testing.assert_array_equal(first.x, again.x)


def test_features_that_are_not_finite_are_refused_and_not_kept(images: Path, tmp_path: Path) -> None:
    model = gcpzoo.create_model("resnet18", "gap", 3, until="layer1")
    with torch.no_grad():
        model.backbone.conv1.weight[0] = torch.nan
    with pytest.raises(ZooError, match="not finite"):
        extract(model, folder_of(images), "test", folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_class_folders_without_splits_are_one_split_for_episodes(images: Path) -> None:
    whole = folder_of(images / "train", whole=True)
    assert len(whole.samples("test")) == 12
    assert len(folder_of(images, whole=True).samples("test")) == 9


def test_episodes_take_the_classes_of_the_test_folder_though_training_has_none_of_them(images: Path) -> None:
    (images / "test" / "north").rename(images / "test" / "up")
    data = folder_of(images, whole=True)
    assert data.class_names == ["east", "south", "up"]
    assert len(data.samples("test")) == 9
    with pytest.raises(ZooError, match="none of the 3 classes"):
        folder_of(images).samples("test")
    shutil.rmtree(images / "test")
    with pytest.raises(ZooError, match="no test folder, which episodes draw from: name the folder"):
        folder_of(images, whole=True).samples("test")


# --- protocols


@pytest.mark.parametrize("protocol", ["linear", "ridge", "knn", "svm"])
@pytest.mark.parametrize("dim", [6, 200])  # fewer and more features than images
def test_a_protocol_separates_what_can_be_separated(protocol: str, dim: int) -> None:
    result = probe(clusters(4, 15, dim, 0.3), clusters(4, 25, dim, 0.3, seed=1), protocol)
    assert result.top1 > 0.97
    assert result.low <= result.top1 <= result.high
    assert (result.images, result.dim) == (100, dim)


@pytest.mark.parametrize("protocol", ["linear", "ridge", "knn", "svm"])
def test_noise_is_guessed_at_chance(protocol: str) -> None:
    random = np.random.default_rng(3)
    parts = [
        Features(random.normal(size=(4 * n, 300)).astype(np.float32), np.repeat(range(4), n), list("abcd"), False)
        for n in (15, 200)
    ]
    result = probe(*parts, protocol)
    assert result.top1 == pytest.approx(0.25, abs=0.06)
    assert result.low < 0.25 < result.high


def test_the_svm_is_that_of_scikit_learn_on_unit_vectors_with_c_1() -> None:
    from sklearn.svm import LinearSVC

    train, test = clusters(5, 8, 100, 2.5), clusters(5, 40, 100, 2.5, seed=1)
    x, z = (f.x / np.linalg.norm(f.x, axis=1, keepdims=True) for f in (train, test))
    direct = LinearSVC(C=1.0, random_state=0, max_iter=20_000).fit(x, train.y).predict(z)
    assert probe(train, test, "svm").top1 == pytest.approx((direct == test.y).mean(), abs=0.011)
    assert 0.3 < (direct == test.y).mean() < 0.99


@pytest.mark.parametrize("protocol", ["linear", "ridge"])
def test_the_scale_of_features_does_not_matter(protocol: str) -> None:
    train, test = clusters(5, 10, 30, 1.5), clusters(5, 40, 30, 1.5, seed=1)
    large = [Features(1000 * f.x, f.y, f.class_names, False) for f in (train, test)]
    one, other = probe(train, test, protocol), probe(*large, protocol)
    assert one.setting == other.setting
    assert one.top1 == pytest.approx(other.top1, abs=0.006)


def test_the_test_images_have_no_part_in_the_choice() -> None:
    train, test = clusters(5, 10, 30, 2.0), clusters(5, 40, 30, 2.0, seed=1)
    wrong = Features(test.x, (test.y + 1) % 5, test.class_names, False)
    for protocol in ("linear", "ridge", "knn"):
        assert probe(train, test, protocol).setting == probe(train, wrong, protocol).setting
        assert probe(train, wrong, protocol).top1 < probe(train, test, protocol).top1


def test_neighbors_are_compared_by_cosine() -> None:
    train = Features(np.array([[1, 0], [0, 9]] * 5, np.float32), np.array([0, 1] * 5), ["a", "b"], False)
    test = Features(np.array([[99, 60], [0.1, 0.2]], np.float32), np.array([0, 1]), ["a", "b"], False)
    assert probe(train, test, "knn").top1 == 1


@pytest.mark.parametrize(
    ("train", "protocol", "message"),
    [
        (clusters(3, 5, 4, 1.0), "tree", "unknown protocol 'tree'; available: knn, linear, ridge, svm"),
        (clusters(3, 1, 4, 1.0), "linear", "do not suffice to choose a setting"),
        (clusters(1, 9, 4, 1.0), "svm", "at least two classes"),
    ],
)
def test_what_cannot_be_probed_is_refused(train: Features, protocol: str, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        probe(train, train, protocol)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    features = clusters(3, 5, 4, 1.0)
    with pytest.raises(ZooError, match=rf"seed must be from 0 to 4294967295, got {seed}"):
        probe(features, features, "knn", seed)


# --- episodes


def test_episodes_draw_different_images_to_learn_from_and_to_classify() -> None:
    features = clusters(6, 5, 40, 1e-3)
    for classifier in ("logistic", "prototype"):
        result = few_shot(features, ways=6, shots=2, queries=3, episodes=3, classifier=classifier)  # type: ignore[arg-type]
        assert result.top1 == 1
    memory = Features(np.eye(30, dtype=np.float32), features.y, features.class_names, False)  # each image unlike others
    chance = few_shot(memory, ways=6, shots=2, queries=3, episodes=200, classifier="prototype")
    assert chance.top1 < 0.3  # an image seen in training would be recognized


def test_more_shots_help_and_the_interval_narrows_with_episodes() -> None:
    features = clusters(8, 25, 30, 2.0)
    one, five = (few_shot(features, shots=k, episodes=100) for k in (1, 5))
    assert five.low > one.high
    more = few_shot(features, shots=1, episodes=400)
    assert more.high - more.low == pytest.approx((one.high - one.low) / 2, rel=0.25)


def test_the_same_seed_draws_the_same_episodes() -> None:
    features = clusters(8, 25, 30, 2.0)
    assert few_shot(features, episodes=20) == few_shot(features, episodes=20)
    assert few_shot(features, episodes=20).top1 != few_shot(features, episodes=20, seed=1).top1


def test_prototypes_are_compared_by_inner_product_for_one_shot_and_by_distance_for_more() -> None:
    from gcpzoo.experiments.probe.few_shot import _prototypes

    query = np.array([[1.0, 0.0]])
    assert _prototypes(np.array([[[1.0, 0.0]], [[5.0, 5.0]]]), query).tolist() == [1]
    assert _prototypes(np.array([[[1.0, 0.0]] * 2, [[5.0, 5.0]] * 2]), query).tolist() == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ways": 9}, r"9 classes with 1 \+ 15 images .* 8 have so many; there are 8 classes: give fewer ways"),
        (
            {"shots": 100},
            r"5 classes with 100 \+ 15 images .*, and 0 have so many; 5 classes have 25 or more",
        ),
        ({"seed": -1}, "seed must be from 0 to 4294967295, got -1"),
        ({"episodes": 1}, "episodes must be at least 2, got 1"),
        ({"ways": 1}, "ways must be at least 2, got 1"),
    ],
)
def test_episodes_that_cannot_be_drawn_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        few_shot(clusters(8, 25, 4, 1.0), **arguments)  # type: ignore[arg-type]


def test_second_order_features_of_the_digits_are_better_than_raw_means(tmp_path: Path) -> None:
    model = gcpzoo.load("resnet18_isqrt.digits")
    data = Digits(batch_size=90, preprocessing=model.preprocessing)
    train, test = (extract(model, data, split, folder=tmp_path) for split in ("train", "test"))
    assert probe(train, test, "svm").top1 > 0.97
