"""Counts of parameters and multiply-adds, against counts by hand."""

from __future__ import annotations

from gcpzoo.heads import create_head
from gcpzoo.models.complexity import model_complexity, multiply_adds, parameters
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
