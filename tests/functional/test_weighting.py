"""Weighted positions: mean and covariance, gradients, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from module_tester import noise

from gcpzoo.errors import ZooError
from gcpzoo.functional import covariance, reweight
from gcpzoo.heads import create_head


def test_mean_and_covariance_are_the_weighted_ones_of_numpy() -> None:
    x, weights = noise(2, 5, 9, dtype=torch.float64), noise(2, 9, seed=1).abs()
    y = reweight(x, weights)
    for sample, w, found, moment in zip(x, weights, y, covariance(y)):
        np.testing.assert_allclose(found.mean(1), np.average(sample, axis=1, weights=w), rtol=1e-6)
        np.testing.assert_allclose(moment, np.cov(sample, aweights=w, ddof=0), rtol=1e-6, atol=1e-12)


def test_equal_weights_change_nothing() -> None:
    x = noise(2, 5, 9, dtype=torch.float64)
    torch.testing.assert_close(reweight(x, torch.full((2, 9), 3.0)), x)


def test_gradients_reach_features_and_positive_weights() -> None:
    x, weights = noise(1, 3, 5, dtype=torch.float64).requires_grad_(), torch.rand(1, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, w: covariance(reweight(x, w)), (x, weights.requires_grad_()))
    masked = torch.tensor([[1.0, 0.0, 2.0, 1.0, 0.0]]).requires_grad_()
    covariance(reweight(x, masked)).sum().backward()
    assert masked.grad.isfinite().all()
    assert (masked.grad[0, [1, 4]] == 0).all()
    assert (x.grad[..., [1, 4]] == 0).all()


def test_one_position_left_gives_it_and_no_covariance() -> None:
    x = noise(1, 3, 4)
    y = reweight(x, torch.tensor([[0.0, 0.0, 5.0, 0.0]]))
    torch.testing.assert_close(y.mean(2), x[..., 2])
    assert covariance(y).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (torch.ones(2, 3), r"weights must be \(B, M\) = \(2, 4\)"),
        (torch.tensor([[1.0, 1, 1, -1], [1, 1, 1, 1]]), "at least 0"),
        (torch.tensor([[1.0, 1, 1, torch.nan], [1, 1, 1, 1]]), "finite"),
        (torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]]), "at least one position"),
    ],
    ids=["shape", "negative", "NaN", "nothing left"],
)
def test_weights_that_cannot_be_are_refused(weights: torch.Tensor, words: str) -> None:
    with pytest.raises(ZooError, match=words):
        reweight(noise(2, 3, 4), weights)


def test_without_center_the_second_moment_is_the_weighted_one_and_zeros_stay_zero() -> None:
    x, weights = noise(2, 5, 9, dtype=torch.float64).relu(), noise(2, 9, seed=1).abs()
    y = reweight(x, weights, center=False)
    share = (weights / weights.sum(1, keepdim=True)).double()
    torch.testing.assert_close(covariance(y, center=False), torch.einsum("bip,bp,bjp->bij", x, share, x))
    assert ((y == 0) == (x == 0)).all()


@pytest.mark.parametrize(
    ("name", "arguments"), [("isqrt", {"dim": 4}), ("gap", {"dim": 4}), ("mgcrp", {}), ("moment_probing", {})]
)
def test_nan_at_a_masked_position_reaches_no_gradient_and_no_running_mean(name: str, arguments: dict) -> None:
    head = create_head(name, in_features=8, **arguments).train()
    x = noise(2, 8, 2, 3)
    x[:, :, 1, 2] = torch.nan
    x.requires_grad_()
    weights = torch.ones(2, 6)
    weights[:, -1] = 0
    head(x, weights=weights).square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
    assert all(b.isfinite().all() for b in head.buffers())
