"""Spectra: what is computed, in which precision, and what it is called."""

from __future__ import annotations

import math

import pytest
import torch

from gcpzoo.analysis import (
    covariance_eigenvalues,
    covariance_summary,
    head_spectra,
    mean_relative,
    summarize,
)
from gcpzoo.functional import covariance
from gcpzoo.heads import create_head
from gcpzoo.models import create_model


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def with_spectrum(values: list[float], positions: int) -> torch.Tensor:
    """Features whose covariance has exactly these eigenvalues: orthonormal rows without a mean, scaled."""
    columns = noise(positions, len(values)).double()
    rows = torch.linalg.qr(columns - columns.mean(0))[0].mT
    rows = torch.linalg.qr((rows - rows.mean(1, keepdim=True)).mT)[0].mT
    return (rows * (torch.tensor(values).double() * positions).sqrt()[:, None])[None]


@pytest.mark.parametrize("positions", [40, 5])
def test_eigenvalues_are_those_of_the_covariance_on_both_sides(positions: int) -> None:
    x = noise(3, 12, positions).double()
    expected = torch.linalg.eigvalsh(covariance(x)).flip(1).clamp_min(0)
    torch.testing.assert_close(covariance_eigenvalues(x), expected, atol=1e-12, rtol=1e-9)


def test_eigenvalues_are_computed_in_float64() -> None:
    values = [1.0, 1e-6, 1e-12]
    found = covariance_eigenvalues(with_spectrum(values, 20))[0]
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(values, rel=1e-3)


def test_the_condition_number_is_not_capped() -> None:
    summary = summarize(covariance_eigenvalues(with_spectrum([1.0, 1e-6, 1e-12], 20)), positions=20)
    assert summary.condition == pytest.approx(1e12, rel=1e-2)
    assert summary.condition_nonzero == summary.condition
    assert summary.rank == 3


def test_a_rank_deficient_covariance_has_an_infinite_condition_and_a_finite_one_of_its_non_zero_spectrum() -> None:
    summary = summarize(covariance_eigenvalues(noise(4, 16, 9)), positions=9)
    assert summary.condition == math.inf
    assert summary.rank == 8  # positions - 1
    assert 1 < summary.condition_nonzero < 1e4


def test_the_effective_rank_is_the_exponential_of_the_entropy() -> None:
    assert summarize(torch.ones(2, 5), 10).effective_rank == pytest.approx(5)
    p = torch.tensor([0.7, 0.2, 0.1])
    assert summarize(p[None], 10).effective_rank == pytest.approx(float((-p * p.log()).sum().exp()), rel=1e-6)


def test_groups_of_channels_have_their_own_covariances() -> None:
    head = create_head("mpn_cov", 12, cov_groups=3)
    x = noise(2, 12, 5, 5)
    found = head_spectra(head, x)
    expected = torch.cat([covariance_eigenvalues(x[i : i + 1, 4 * g : 4 * g + 4]) for i in range(2) for g in range(3)])
    torch.testing.assert_close(found["covariance"], expected)
    torch.testing.assert_close(found["normalized"] ** 2, expected, atol=1e-10, rtol=1e-6)


@pytest.mark.parametrize("name", ["cbp", "gap", "mgcrp", "bcnn", "gaussian", "isqrt", "dropcov"])
def test_every_kind_of_head_has_a_spectrum(name: str) -> None:
    values = head_spectra(create_head(name, 8), noise(2, 8, 6, 6))
    assert values["covariance"].shape == (2, 8)
    assert bool((values["covariance"].diff(dim=1) <= 0).all())


def test_the_matrix_of_bdc_which_has_eigenvalues_of_both_signs_has_finite_relative_sizes() -> None:
    values = head_spectra(create_head("bdc", 8), noise(2, 8, 6, 6))["normalized"]
    assert bool((values >= 0).all())
    relative = mean_relative(values)
    assert relative[0] == 1
    assert 0 <= min(relative) <= max(relative) == 1


def test_the_reduction_comes_before_the_covariance() -> None:
    head = create_head("isqrt", 8, dim=3).eval()
    x = noise(2, 8, 6, 6)
    with torch.no_grad():
        expected = covariance_eigenvalues(head.double().reduction(x.double()))
    torch.testing.assert_close(head_spectra(head.float(), x)["covariance"], expected, atol=1e-6, rtol=1e-4)


def test_averaged_spectra_are_relative_to_the_largest() -> None:
    assert mean_relative(torch.tensor([[8.0, 4.0], [1.0, 0.1]])) == pytest.approx([1.0, 0.3])


@pytest.mark.parametrize("training", [True, False])
def test_the_network_keeps_its_mode(training: bool) -> None:
    model = create_model("resnet18", "isqrt", 2, dim=8, until="layer1").train(training)
    model.backbone.bn1.eval()
    before = {name: module.training for name, module in model.named_modules()}
    state = {k: v.clone() for k, v in model.state_dict().items()}
    covariance_summary(model, noise(2, 3, 32, 32))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
