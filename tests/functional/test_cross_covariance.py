"""Cross-covariance and singular value power normalization against their formulas."""

from __future__ import annotations

import pytest
import torch
from module_tester import noise

from gcpzoo.functional import cross_covariance, svpn


@pytest.mark.parametrize("tokens", [3, 10])
def test_cross_covariance_divides_by_the_number_of_tokens(tokens: int) -> None:
    a, b = noise(4, tokens, dtype=torch.float64), noise(4, tokens, dtype=torch.float64, seed=1)
    both = torch.cov(torch.cat([a, b]), correction=0)[:4, 4:]
    torch.testing.assert_close(cross_covariance(a, b, "channel"), both)
    scalar = (a - a.mean()) @ (b - b.mean()).T / tokens
    torch.testing.assert_close(cross_covariance(a, b), scalar)
    assert not torch.allclose(both, scalar)


def test_each_head_of_a_batch_has_its_own_mean() -> None:
    a, b = noise(2, 3, 4, 7, dtype=torch.float64), noise(2, 3, 4, 7, dtype=torch.float64, seed=1)
    out = cross_covariance(a, b)
    torch.testing.assert_close(out[1, 2], cross_covariance(a[1, 2], b[1, 2]))


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_svpn_takes_the_power_of_the_first_singular_value_and_divides_the_rest(alpha: float) -> None:
    a = noise(2, 5, 4, dtype=torch.float64)
    u, s, v = torch.linalg.svd(a, full_matrices=False)
    for i in range(2):  # started at the top singular vector, one power iteration is exact
        top = s[i, 0] * torch.outer(u[i, :, 0], v[i, 0])
        expected = top / s[i, 0] * s[i, 0] ** alpha + (a[i] - top) / (s[i, 0] ** (1 - alpha) + 1e-5)
        torch.testing.assert_close(svpn(a[i : i + 1], v[i, 0], alpha)[0], expected)


def test_svpn_takes_one_power_iteration_from_its_start() -> None:
    a, start = noise(1, 5, 4, dtype=torch.float64), noise(4, dtype=torch.float64, seed=1)
    u = a[0] @ start
    u = u / u.norm()
    v = a[0].T @ u
    v = v / v.norm()
    s = u @ a[0] @ v
    top = torch.outer(u, v)
    expected = s.sqrt() * top + (a[0] - s * top) / (s.sqrt() + 1e-5)
    torch.testing.assert_close(svpn(a, start)[0], expected)


def test_an_unknown_mean_is_refused() -> None:
    with pytest.raises(ValueError, match="mean must be 'scalar' or 'channel', got 'all'"):
        cross_covariance(torch.ones(2, 3), torch.ones(2, 3), "all")
