"""The reduction layer before the covariance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from torch import nn

from gcpzoo.errors import ZooError
from gcpzoo.functional.checks import check_count, check_name
from gcpzoo.limits import CHANNELS, LAYERS

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}


class Reduction(nn.Sequential):
    """1×1 convolution without bias, batch normalization and activation, once for each entry of ``dim``.

    Args:
        in_features: input channels.
        dim: output channels, or a progressive list of them (2048 → [1024, 512, 256]), TPAMI 2020, section 3.3.
        activation: ``relu``, ``relu6`` (MobileNetV2 and ShuffleNetV2 of GCP_Optimization), or ``linear``: the
            1×1 convolution alone, as on the tokens of vision transformers.
        groups: groups of the convolutions.

    Raises:
        ZooError: unknown activation, or channels that ``groups`` does not divide.

    >>> Reduction(2048, [512, 256]).out_features
    256

    Source: Li et al., CVPR 2018, section 4.1; initialization Kaiming fan-out.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        "layer_reduce": "0",
        "layer_reduce_bn": "1",
        "conv_dr_block.0": "0",  # fast-MPN-COV's networks cut into features, representation, classifier
        "conv_dr_block.1": "1",
        "dimension_reduction.0": "0",  # the light networks of GCP_Optimization
        "dimension_reduction.1": "1",
        "final_block.conv": "0",  # pytorchcv
        "final_block.bn": "1",
    }

    def __init__(self, in_features: int, dim: int | Sequence[int], activation: str = "relu", groups: int = 1) -> None:
        super().__init__()
        check_name("reduction", activation, ["linear", *ACTIVATIONS])
        check_count("groups", groups)
        dims = [dim] if isinstance(dim, int) else list(dim)
        if not 1 <= len(dims) <= LAYERS or not 1 <= min(dims) <= max(dims) <= CHANNELS:
            raise ZooError(
                f"dim must be a positive number of channels or a list of such, got {str(dim)[:100]} "
                f"(limits: {CHANNELS:,} channels, {LAYERS} in a list)"
            )
        for out in dims:
            if in_features % groups or out % groups:
                raise ZooError(f"groups must divide the reduction's {in_features} and {out} channels, got {groups}")
            conv = nn.Conv2d(in_features, out, 1, bias=False, groups=groups)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            self.append(conv)
            if activation != "linear":
                self.extend([nn.BatchNorm2d(out), ACTIVATIONS[activation]()])
            in_features = out
        self.out_features = in_features
