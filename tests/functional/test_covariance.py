"""Covariance and the vector of a symmetric matrix."""

from __future__ import annotations

import pytest
import torch
from module_tester import noise
from torch._subclasses.fake_tensor import FakeTensorMode

from gcpzoo.functional import covariance, triangle


def test_covariance_is_the_biased_one_of_numpy() -> None:
    x = noise(2, 5, 3, 4, dtype=torch.float64)
    expected = torch.stack([torch.cov(sample, correction=0) for sample in x.flatten(2)])
    torch.testing.assert_close(covariance(x), expected)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 0, 4), (2, 3, 0), (1, 2, 3, 4, 5)])
def test_features_of_another_shape_are_refused_with_their_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected features .* got shape"):
        covariance(torch.zeros(shape))


def test_triangle_is_row_major_and_its_gradient_reaches_the_upper_triangle_only() -> None:
    a = torch.arange(18.0, dtype=torch.float64).view(2, 3, 3).requires_grad_()
    assert triangle(a)[0].tolist() == [0, 1, 2, 4, 5, 8]
    assert torch.autograd.gradcheck(triangle, a)
    assert torch.autograd.gradgradcheck(triangle, a)


def test_triangle_in_a_fake_tensor_mode_leaves_no_fake_index_behind() -> None:
    with FakeTensorMode():
        triangle(torch.empty(1, 29, 29))
    assert triangle(torch.ones(1, 29, 29)).sum() == 29 * 30 / 2


def test_a_triangle_first_taken_in_an_evaluation_serves_the_training_after_it() -> None:
    from gcpzoo.functional.covariance import _cached_index

    _cached_index.cache_clear()
    with torch.inference_mode():
        triangle(torch.eye(7)[None])
    a = torch.eye(7)[None].requires_grad_()
    triangle(a).sum().backward()
    assert a.grad is not None
    assert torch.equal(a.grad[0], torch.ones(7, 7).triu())
