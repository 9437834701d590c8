"""Deletion: what is hidden, and that explanations of the digits mark what counts."""

from __future__ import annotations

import pytest
import torch

from gcpzoo.analysis.explanations.attribution import grad_cam, second_order
from gcpzoo.analysis.explanations.deletion import cover, deletion, hide
from gcpzoo.data import Digits
from gcpzoo.errors import ZooError
from gcpzoo.hub import load


def test_hidden_positions_are_rectangles_of_the_image() -> None:
    hidden = torch.tensor([[False, True], [False, False]])
    image = hide(torch.ones(3, 4, 6), hidden, torch.zeros(3, 4, 6))
    expected = torch.ones(4, 6)
    expected[:2, 3:] = 0
    assert torch.equal(image, expected.expand(3, -1, -1))


def test_the_blur_keeps_a_plain_image_and_spreads_a_point_both_ways() -> None:
    torch.testing.assert_close(cover(torch.ones(3, 16, 24)), torch.ones(3, 16, 24))
    point = torch.zeros(3, 17, 25)
    point[:, 8, 12] = 1
    blurred = cover(point)
    assert 0 < float(blurred[0, 6, 10]) < float(blurred[0, 8, 12]) < 0.1


def test_hiding_marked_positions_of_the_digits_lowers_the_class_more_than_hiding_random_ones() -> None:
    model, data = load("resnet18_isqrt.digits"), Digits()
    read = data.reader(train=False)
    images = [model.transform(read(image)) for image, _ in data.samples("test")[:20]]
    labels = model(torch.stack(images)).argmax(1).tolist()
    marks = [second_order(model, x, k).map for x, k in zip(images, labels)]
    cams = [torch.nn.functional.adaptive_avg_pool2d(grad_cam(model, x, k)[None], 4)[0] for x, k in zip(images, labels)]
    for maps in (marks, cams):
        measured = deletion(model, images, maps, labels, share=0.25, fill="mean", draws=3)
        advantage = measured.advantage
        assert float(advantage.mean() - 2 * advantage.std() / 20**0.5) > 0.1
    opposite = deletion(model, images, [-m for m in marks], labels, share=0.25, fill="mean", draws=3)
    assert float(opposite.advantage.mean()) < 0
    assert torch.equal(opposite.random, measured.random)  # the same choices for the same seed


@pytest.mark.parametrize(("share", "maps", "message"), [(0.0, 1, "share must be"), (0.5, 0, "a map and a label for")])
def test_what_cannot_be_measured_is_refused(share: float, maps: int, message: str) -> None:
    model = load("resnet18_isqrt.digits")
    with pytest.raises(ZooError, match=message):
        deletion(model, [torch.zeros(3, 32, 32)], [torch.zeros(4, 4)] * maps, [0], share)
