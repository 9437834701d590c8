"""DeepBDC: the authors' values, its start, positions left out, equal channels, and what it keeps in memory."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from golden_heads import Case, check_case, load_released
from head_tester import HeadTester
from module_tester import Compiles, Exports, features, golden, noise, relative

from gcpzoo.errors import ZooError
from gcpzoo.functional import distance_covariance
from gcpzoo.heads import create_head


class TestBdc(Compiles, Exports, HeadTester):
    head = "bdc"


class TestBdcGroups(HeadTester):
    head = "bdc"
    args: ClassVar = {"cov_groups": 2}


@pytest.mark.parametrize("case", golden("heads2/bdc"))
def test_values_and_gradients_are_the_authors(case: Case) -> None:
    head = create_head("bdc", in_features=case["x"].shape[1])
    load_released(head, case)
    check_case(head, case)


def test_the_temperature_starts_from_the_number_of_positions() -> None:
    temperature = create_head("bdc", in_features=4, positions=25).temperature
    assert temperature.shape == (1, 1)
    assert temperature.item() == pytest.approx(math.log(1 / 50))
    with pytest.raises(ZooError, match="positions must be at least 1, got 0"):
        create_head("bdc", in_features=4, positions=0)


@pytest.mark.parametrize("d", [5, 150])  # 150 rows: the product by blocks
def test_values_are_the_doubly_centered_distances(d: int) -> None:
    x = noise(2, d, 7, dtype=torch.float64)
    tau = torch.tensor([[-1.5]], dtype=torch.float64)
    e = (math.exp(-1.5) * torch.cdist(x, x).square() + 1e-5).sqrt()
    p = torch.eye(d, dtype=torch.float64) - 1 / d
    assert relative(distance_covariance(x, tau), p @ e @ p) < 1e-9


@pytest.mark.parametrize("d", [5, 150])
def test_gradients_of_features_and_temperature_are_those_of_autograd(d: int) -> None:
    x = noise(2, d, 7, dtype=torch.float64).requires_grad_()
    tau = torch.tensor([[-1.5]], dtype=torch.float64, requires_grad=True)
    cotangent = noise(2, d, d, dtype=torch.float64, seed=1)
    own = torch.autograd.grad((distance_covariance(x, tau) * cotangent).sum(), (x, tau))
    gram = x @ x.mT
    square = gram.diagonal(dim1=1, dim2=2)
    distance = square[:, :, None] + square[:, None] - 2 * gram
    e = (tau.exp() * distance.clamp_min(0) + 1e-5).sqrt()
    p = torch.eye(d, dtype=torch.float64) - 1 / d
    for a, b in zip(own, torch.autograd.grad((p @ e @ p * cotangent).sum(), (x, tau))):
        assert relative(a, b) < 1e-9


@pytest.mark.parametrize("d", [6, 160])
def test_equal_and_dead_channels_have_a_finite_gradient(d: int) -> None:
    x = features(2, d, 5, 5)
    x[:, 1] = x[:, 0]
    x[:, 2:4] = 0
    x.requires_grad_()
    head = create_head("bdc", in_features=d)
    head(x).pow(2).sum().backward()
    assert x.grad.isfinite().all()
    assert head.temperature.grad.isfinite().all()


def test_a_common_offset_of_all_channels_loses_no_digits() -> None:
    x = noise(2, 32, 20)
    tau = torch.zeros(1, 1)
    assert relative(distance_covariance(x + 100, tau), distance_covariance(x, tau)) < 1e-4


def test_an_all_zero_map_gives_almost_nothing() -> None:
    out = create_head("bdc", in_features=6)(torch.zeros(1, 6, 3, 3))
    assert out.shape == (1, 21)
    assert out.abs().max() < 4e-3  # the floor under the root


def test_the_temperature_of_a_batch_learns_from_all_samples() -> None:
    head = create_head("bdc", in_features=4)
    x = features(3, 4, 3, 3)
    head(x).abs().sum().backward()
    together = head.temperature.grad.clone()
    head.temperature.grad = None
    for sample in x:
        head(sample[None]).abs().sum().backward()
    assert relative(head.temperature.grad, together) < 1e-5


def test_wrong_weights_are_named_with_the_sizes_of_the_call_also_in_groups() -> None:
    head = create_head("bdc", in_features=4, cov_groups=2)
    with pytest.raises(ZooError, match=r"weights must be \(B, M\) = \(3, 9\), .* got shape \(3, 8\)"):
        head(features(3, 4, 3, 3), weights=torch.ones(3, 8))


def test_it_keeps_one_matrix_beside_the_features() -> None:
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.is_floating_point():
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    x = features(2, 32, 10, 10).flatten(2).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        distance_covariance(x, torch.zeros(1, 1, requires_grad=True))
    kept.pop(x.untyped_storage().data_ptr())
    assert sum(kept.values()) <= 4 * (2 * 32 * 32 + 1)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_values_in_float32_are_those_of_float64_at_any_scale(scale: float) -> None:
    x, head = noise(2, 24, 4, 4) * scale, create_head("bdc", in_features=24, positions=16)
    assert relative(head(x), head.double()(x.double())) < 1e-5


@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0, 1e4])
def test_gradients_in_float32_are_those_of_float64_at_any_scale(scale: float) -> None:
    x = noise(2, 24, 4, 4) * scale
    x[:, 5] = x[:, 3]  # equal channels
    cotangent = noise(2, 300, seed=1)
    found = []
    for dtype in (torch.float32, torch.float64):
        head = create_head("bdc", in_features=24, positions=16).to(dtype)
        y = x.detach().to(dtype).requires_grad_()
        (head(y) * cotangent).sum().backward()
        found.append((y.grad, head.temperature.grad))
    for single, double in zip(*found):
        assert relative(single, double) < 2e-5
