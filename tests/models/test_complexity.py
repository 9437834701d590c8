"""Counts of parameters and multiply-adds, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gcpzoo.heads import create_head
from gcpzoo.models.complexity import lapack_operations, model_complexity, multiply_adds, parameters
from gcpzoo.models.gcpnet import create_model


def test_covariance_of_the_features_counts_d_squared_times_positions() -> None:
    assert multiply_adds(create_head("dropcov", in_features=32), 2, 32, 5, 5) == 2 * 32 * 32 * 25


def test_groups_divide_the_reduction_and_its_covariance() -> None:
    head = create_head("dropcov", in_features=64, dim=32)
    grouped = create_head("dropcov", in_features=64, dim=32, groups=4, cov_groups=4)
    assert parameters(head) - 3 == 64 * 32 + 2 * 32  # convolution and batch normalization; 3 taps of its own
    assert parameters(grouped) - 3 == 64 * 32 // 4 + 2 * 32
    assert multiply_adds(head, 1, 64, 5, 5) == 25 * (64 * 32 + 32 * 32)
    assert multiply_adds(grouped, 1, 64, 5, 5) == 25 * (64 * 32 + 32 * 32) // 4
    assert (head.out_features, grouped.out_features) == (32 * 33 // 2, 4 * 8 * 9 // 2)


def test_eigendecomposition_counts_on_the_smaller_side() -> None:
    small, large = (multiply_adds(create_head("mpn_cov", in_features=64), 1, 64, h, h) for h in (3, 9))
    assert small < large
    assert large >= 4.5 * 64**3


def test_model_is_counted_by_its_parts() -> None:
    model = create_model("resnet18", "isqrt", num_classes=10, dim=16)
    counted = model_complexity(model, 64)
    assert counted["feature_map"] == [512, 4, 4]
    assert counted["num_features"] == 136
    assert counted["parameters"]["total"] == parameters(model)
    assert counted["parameters"]["classifier"] == 136 * 10 + 10
    assert counted["multiply_adds"]["classifier"] == 136 * 10
    assert counted["multiply_adds"]["total"] == sum(v for k, v in counted["multiply_adds"].items() if k != "total")
    # torchvision states 1.814 G multiply-adds for ResNet-18 at 224 px; a head without reduction keeps its strides.
    plain = model_complexity(create_model("resnet18", "gap", num_classes=10), 224)
    assert abs(plain["multiply_adds"]["backbone"] - 1.814e9) < 0.01e9


class Lapack(nn.Module):
    """One factorization of a batch of matrices."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        if self.name == "eigh":
            return torch.linalg.eigh(a)[1]
        return torch.linalg.cholesky_ex(a)[0] if self.name == "cholesky" else torch.linalg.solve(a, a)


@pytest.mark.parametrize(
    ("name", "expected"), [("eigh", 4.5 * 12**3), ("cholesky", 12**3 / 6), ("solve", 4 / 3 * 12**3)]
)
def test_a_factorization_counts_exactly_what_textbooks_say(name: str, expected: float) -> None:
    assert multiply_adds(Lapack(name), 1, 12, 12) == expected
    assert multiply_adds(Lapack(name), 5, 12, 12) == 5 * expected


def test_every_private_operator_of_torch_is_there() -> None:
    assert [bool(operator.overloads()) for operator in lapack_operations()] == [True] * 3


def test_a_missing_operator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lapack_operations.cache_clear()
    monkeypatch.setattr(torch.ops, "aten", object())
    with pytest.raises(RuntimeError, match="lacks an operator.*_linalg_eigh"):
        lapack_operations()


def test_a_convolution_counts_a_multiply_add_for_each_weight_and_position() -> None:
    assert multiply_adds(nn.Conv2d(3, 8, 5, stride=2, padding=2), 4, 3, 10, 10) == 4 * 3 * 8 * 25 * 25
    assert multiply_adds(nn.Linear(7, 5), 3, 7) == 3 * 7 * 5


def test_the_parts_of_a_resnet_count_exactly() -> None:
    counted = model_complexity(create_model("resnet18", "isqrt", num_classes=10, dim=16), 64)
    # conv1 at 32², four convolutions of 64 at 16²; layer2 at 8², layer3 at 4², layer4 (stride 1) at 4²
    stem = 3 * 64 * 49 * 32**2 + 4 * 64 * 64 * 9 * 16**2
    layer2 = (64 * 128 * 9 + 3 * 128 * 128 * 9 + 64 * 128) * 8**2
    layer3 = (128 * 256 * 9 + 3 * 256 * 256 * 9 + 128 * 256) * 4**2
    layer4 = (256 * 512 * 9 + 3 * 512 * 512 * 9 + 256 * 512) * 4**2
    # reduction, covariance, and 12 products of Newton–Schulz: 2 + 3·3 + 1
    head = 16 * 512 * 16 + 16 * 16 * 16 + 12 * 16**3
    assert counted["multiply_adds"]["backbone"] == stem + layer2 + layer3 + layer4
    assert counted["multiply_adds"]["head"] == head
    assert counted["multiply_adds"]["classifier"] == 1360
    assert counted["image"] == [64, 64]
    assert counted["parameters"]["head"] == 512 * 16 + 2 * 16
