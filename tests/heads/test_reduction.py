"""The reduction layer: its activations, initialization and groups."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from module_tester import noise
from torch import Tensor, nn

from gcpzoo.errors import ZooError
from gcpzoo.heads import create_head
from gcpzoo.heads.reduction import Reduction


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", F.relu), ("relu6", F.relu6), ("linear", lambda x: x)],
    ids=["relu", "relu6", "linear"],
)
def test_reduction_is_convolution_normalization_and_activation(
    activation: str, function: Callable[[Tensor], Tensor]
) -> None:
    reduction = Reduction(5, 3, activation).train()
    x = noise(64, 5, 4, 4)
    y = torch.einsum("oc,bchw->bohw", reduction[0].weight[:, :, 0, 0], x)
    if activation != "linear":
        with torch.no_grad():
            reduction[1].weight.fill_(10.0)  # values beyond 6 tell the activations apart
        y = 10 * F.batch_norm(y, None, None, training=True)
    torch.testing.assert_close(reduction(x), function(y), rtol=1e-4, atol=1e-4)
    assert len(reduction) == (1 if activation == "linear" else 3)


def test_convolutions_have_no_bias_and_fan_out_initialization() -> None:
    reduction = Reduction(512, [256, 64])
    convolutions = [m for m in reduction if isinstance(m, nn.Conv2d)]
    assert [c.bias for c in convolutions] == [None, None]
    for c in convolutions:
        assert float(c.weight.detach().std()) == pytest.approx((2 / c.out_channels) ** 0.5, rel=0.05)  # ≥ 16384 draws


def test_every_step_of_a_progressive_reduction_is_normalized_and_activated() -> None:
    kinds = [type(m).__name__ for m in Reduction(16, [8, 4], "relu6")]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU6"] * 2


def test_groups_are_those_of_the_convolutions() -> None:
    assert [m.groups for m in Reduction(16, [8, 4], groups=4) if isinstance(m, nn.Conv2d)] == [4, 4]


@pytest.mark.parametrize("name", ["gap", "isqrt", "mgcrp"])
def test_heads_hand_their_arguments_on_to_the_reduction(name: str) -> None:
    head = create_head(name, in_features=16, dim=8, reduction="relu6", groups=2)
    assert isinstance(head.reduction[2], nn.ReLU6)
    assert head.reduction[0].groups == 2
    assert head.dim == 8


def test_tokens_are_reduced_by_a_linear_layer_alone_by_default() -> None:
    assert len(create_head("mgcrp", in_features=16, dim=8).reduction) == 1
    assert len(create_head("isqrt", in_features=16, dim=8).reduction) == 3


@pytest.mark.parametrize(
    ("dim", "groups", "message"),
    [
        ([], 1, "dim must be a positive number of channels or a list of such, got []"),
        ([4, 0], 1, "dim must be a positive number"),
        (4, 0, "groups must be at least 1, got 0"),
        (4, 3, "groups must divide the reduction's 8 and 4 channels, got 3"),
        ([4, 3], 4, "groups must divide the reduction's 4 and 3 channels, got 4"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused(dim: int | list[int], groups: int, message: str) -> None:
    with pytest.raises(ZooError) as error:
        Reduction(8, dim, groups=groups)
    assert message in str(error.value)
