"""The log-Cholesky chart where the released covariance serves, and where it is indefinite."""

from __future__ import annotations

import pytest
import torch
from module_tester import features, relative
from torch import Tensor

from gcpzoo.functional import covariance, log_cholesky, released_covariance


def chart(a: Tensor) -> Tensor:
    lower = torch.linalg.cholesky(a)
    k = lower.tril(-1) + torch.diag_embed(lower.diagonal(dim1=1, dim2=2).log())
    return k + k.mT


@pytest.mark.parametrize("eps", [1e-6, 1e-3])
def test_chart_of_the_released_covariance_and_its_ridge(eps: float) -> None:
    x = features(2, 6, 7, 7, dtype=torch.float64)
    expected = chart(released_covariance(x) + eps * torch.eye(6, dtype=torch.float64))
    assert relative(log_cholesky(x, eps), expected) < 1e-12  # float64


def test_an_indefinite_sample_takes_the_plain_covariance_with_the_same_ridge() -> None:
    x = features(1, 1, 14, 14, dtype=torch.float64) + 10 * torch.arange(6.0)[:, None, None]
    eye = torch.eye(6, dtype=torch.float64)
    assert torch.linalg.eigvalsh(released_covariance(x)).min() < -1e-6
    assert relative(log_cholesky(x), chart(covariance(x) + 1e-6 * eye)) < 1e-4  # the last pivots are rounding and ridge


def test_a_ridge_below_rounding_is_raised_for_large_features() -> None:
    x = (features(1, 1, 14, 14, dtype=torch.float64) + 10 * torch.arange(6.0)[:, None, None]) * 1e7
    ridge = 6 * torch.finfo(torch.float64).eps * covariance(x).diagonal(dim1=1, dim2=2).sum()
    assert ridge > 1e-6
    expected = chart(covariance(x) + ridge * torch.eye(6, dtype=torch.float64))
    assert relative(log_cholesky(x), expected) < 1e-2  # the last pivots are rounding and ridge


def test_eps_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"eps must be positive, got 0\.0"):
        log_cholesky(torch.ones(1, 2, 3), 0.0)
