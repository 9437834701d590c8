"""Corruptions of images, always the same ones, and errors relative to a control."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("corrupt_tta", reason="the extra 'analyze' is not installed")

from gcpzoo.analysis.measurements.corruptions import (
    CLEAN,
    EXTRA,
    STANDARD,
    Accuracy,
    corrupt,
    corrupted_accuracy,
    corruption_errors,
)
from gcpzoo.errors import ZooError
from gcpzoo.models import Preprocessing

DRAWN = {"gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog"} | {
    "elastic_transform", "speckle_noise", "spatter"
}  # fmt: skip


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """A wide image with edges and colors."""
    y, x = torch.meshgrid(torch.arange(24), torch.arange(40), indexing="ij")
    return torch.stack([6 * x, 10 * y, 255 * ((x // 5 + y // 5) % 2)]).to(torch.uint8)


@pytest.mark.parametrize("name", [*STANDARD, *EXTRA])
def test_a_seed_gives_the_same_corrupted_image_whatever_was_drawn_before(name: str, image: torch.Tensor) -> None:
    found = corrupt(image, name, 3, seed=7)
    np.random.random(3)  # noqa: NPY002
    assert torch.equal(corrupt(image, name, 3, seed=7), found)
    assert torch.equal(corrupt(image, name, 3, seed=8), found) == (name not in DRAWN)
    assert (found.shape, found.dtype) == (image.shape, torch.uint8)


@pytest.mark.parametrize("name", [*STANDARD, *EXTRA])
def test_the_image_changes_more_with_the_severity_and_stays_itself(name: str, image: torch.Tensor) -> None:
    before = image.clone()
    weak, strong = (
        np.mean([(corrupt(image, name, severity, s).float() - image.float()).square().mean() for s in range(3)])
        for severity in (1, 5)
    )
    assert 0 < weak < strong or name in ("elastic_transform", "saturate")  # other settings, not stronger ones
    assert torch.equal(image, before)


def test_the_random_state_of_the_process_stays_as_it_was(image: torch.Tensor) -> None:
    before = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
    for name in ("gaussian_noise", "impulse_noise", "snow"):
        corrupt(image, name, 1)
    after = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_salt_and_pepper_have_the_amounts_of_the_benchmark() -> None:
    grey = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    shares = [float((corrupt(grey, "impulse_noise", s) != 100).double().mean()) for s in (1, 2, 3, 4, 5)]
    assert shares == pytest.approx([0.03, 0.06, 0.09, 0.17, 0.27], abs=0.012)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corruption": "fogg"}, "unknown corruption 'fogg': did you mean fog"),
        ({"severity": 0}, "severity must be a whole number from 1 to 5, got 0"),
        ({"severity": 6}, "severity must be a whole number from 1 to 5, got 6"),
        ({"image": torch.zeros(3, 24, 24)}, r"must be uint8 \(3, h, w\) of at least 8 px, got torch.float32"),
        ({"image": torch.zeros(3, 7, 24, dtype=torch.uint8)}, r"at least 8 px, got torch.uint8 \(3, 7, 24\)"),
        ({"image": torch.zeros(1, 24, 24, dtype=torch.uint8)}, r"got torch.uint8 \(1, 24, 24\)"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(change: dict[str, Any], message: str, image: torch.Tensor) -> None:
    with pytest.raises(ZooError, match=message):
        corrupt(**{"image": image, "corruption": "fog", "severity": 1, **change})


def test_frost_without_images_of_frost_is_refused(monkeypatch: pytest.MonkeyPatch, image: torch.Tensor) -> None:
    monkeypatch.setattr("cv2.imread", lambda path: None)
    with pytest.raises(ZooError, match="corrupt-tta found none of its images of frost; install it anew"):
        corrupt(image, "frost", 1)


class Bright(nn.Module):
    """Says class 1 of bright images, and remembers what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(1)), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append((x.clone(), self.training))
        mean = x.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


RULE = Preprocessing(resize=None, crop=None, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def grey(*levels: int) -> torch.Tensor:
    return torch.stack([torch.full((3, 8, 8), level, dtype=torch.uint8) for level in levels])


def test_images_are_counted_as_they_are_and_under_each_corruption() -> None:
    pixels = [(grey(10, 200), torch.tensor([0, 1])), (grey(110), torch.tensor([0]))]
    found = corrupted_accuracy({"a": Bright()}, pixels, RULE, ["brightness"], [1, 5])
    assert [(a.corruption, a.severity, a.right, a.images) for a in found] == [
        (CLEAN, 0, 3, 3),
        ("brightness", 1, 2, 3),  # 110 + 0.1 · 255 is bright
        ("brightness", 5, 1, 3),
    ]


def test_all_networks_see_the_same_corrupted_images_normalized_and_each_image_has_its_own_noise() -> None:
    first, second = Bright().train(), Bright()
    pixels = [(grey(100, 100), torch.tensor([0, 0])), (grey(100), torch.tensor([0]))]
    corrupted_accuracy({"a": first, "b": second}, pixels, RULE, ["gaussian_noise"], [3], seed=1)
    a, b = (torch.cat([x for x, _ in model.seen[2:]]) for model in (first, second))
    assert torch.equal(a, b)
    assert not any(torch.equal(a[i], a[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert float(a.min()) >= -1
    assert float(a.std()) == pytest.approx(0.18 * 2, rel=0.25)  # the noise of severity 3 in units of the normalization
    assert {training for _, training in first.seen} == {False}
    assert first.training
    again = Bright()
    corrupted_accuracy({"c": again}, [(grey(100, 100, 100), torch.zeros(3))], RULE, ["gaussian_noise"], [3], seed=1)
    assert torch.equal(again.seen[1][0], a)  # whatever the batches
    corrupted_accuracy({"c": again}, [(grey(100, 100, 100), torch.zeros(3))], RULE, ["gaussian_noise"], [3], seed=2)
    assert not torch.equal(again.seen[3][0], a)


def test_no_images_are_refused() -> None:
    with pytest.raises(ZooError, match="robustness needs images, got none"):
        corrupted_accuracy({"a": Bright()}, [], RULE)


def errors(clean: int, **wrong: list[int]) -> list[Accuracy]:
    """Numbers of 100 images that are wrong."""
    found = [Accuracy("m", CLEAN, 0, 100 - clean, 100)]
    return found + [Accuracy("m", n, s + 1, 100 - w, 100) for n, ws in wrong.items() for s, w in enumerate(ws)]


def test_corruption_errors_divide_sums_over_severities_and_their_mean_counts_each_corruption_once() -> None:
    ours, control = errors(10, fog=[20, 40], snow=[30, 30]), errors(20, fog=[40, 80], snow=[25, 55])
    fog, snow, mean = corruption_errors(ours, control)
    assert (fog.corruption, fog.error, fog.relative) == ("fog", pytest.approx(50), pytest.approx(100 * 40 / 80))
    assert (snow.error, snow.relative) == (pytest.approx(75), pytest.approx(100 * 40 / 40))
    assert (mean.corruption, mean.error, mean.relative) == ("mean", pytest.approx(62.5), pytest.approx(75))


def test_a_network_has_the_errors_of_itself() -> None:
    assert {(e.error, e.relative) for e in corruption_errors(*[errors(10, fog=[20, 40], snow=[30, 90])] * 2)} == {
        (100.0, 100.0)
    }


def test_there_is_no_error_relative_to_a_control_that_makes_none() -> None:
    fog, snow, mean = corruption_errors(errors(5, fog=[10], snow=[10]), errors(0, fog=[0], snow=[10]))
    assert (fog.error, fog.relative) == (None, None)
    assert (snow.error, snow.relative) == (pytest.approx(100), pytest.approx(50))
    assert (mean.error, mean.relative) == (None, None)


@pytest.mark.parametrize(
    "control", [errors(5, fog=[10, 20]), errors(5, snow=[10]), errors(5, fog=[10])[1:], [Accuracy("m", "fog", 1, 3, 5)]]
)
def test_errors_of_other_images_or_corruptions_are_refused(control: list[Accuracy]) -> None:
    with pytest.raises(ZooError, match="needs both networks' errors on the same images"):
        corruption_errors(errors(5, fog=[10]), control)
