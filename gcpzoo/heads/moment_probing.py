"""Moment probing: cross-covariance between neighbouring groups of channels, read by two small convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcpzoo.errors import ZooError
from gcpzoo.functional import as_matrix, cross_covariance, reweight
from gcpzoo.functional.checks import check_choice, check_count
from gcpzoo.functional.precision import at_least_float32, without_autocast
from gcpzoo.heads.base import Head
from gcpzoo.heads.registry import register

LAYOUTS = ("contiguous", "interleaved")
LEAST_CHANNELS = 7
"""Channels of a head that two 3×3 convolutions of stride 2 leave something of."""


def _flatten_projection(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Read the weight of a 1×1 convolution, which the released CNN form has, as that of a linear layer."""
    key = f"{prefix}projection.weight"
    if key in state_dict and state_dict[key].ndim == 4:
        state_dict[key] = state_dict[key].flatten(1)


def _downsampled(size: int) -> int:
    """Side of a map after a 3×3 convolution of stride 2 without padding."""
    return (size - 3) // 2 + 1


@register("moment_probing")
class MomentProbing(Head):
    r"""Moment probing: multi-head convolutional cross-covariance (MHC³) of projected tokens.

    A linear layer projects each token to H heads of k channels, all normalized by the same layer norm, :math:`q_h`.
    Neighbouring heads are crossed, and each column is divided by its norm:

    .. math:: C_h = \tfrac1N\sum_n (q_{h,n} - \bar q_h)(q_{h+1,n} - \bar q_{h+1})^\top,\qquad
              \hat C_h = C_h\operatorname{diag}\bigl(\lVert C_he_j\rVert\bigr)^{-1},\qquad h = 1\dots H-1,

    with one mean :math:`\bar q_h` for all channels of a head. The maps :math:`\hat C_h` are the channels of an image
    k×k that goes through 3×3 convolution of stride 2, GELU, and another such convolution. Output size
    (H − 1)·s(s(k))² with s(k) = ⌊(k − 3)/2⌋ + 1: 2883 for four heads of 128.

    Moment probing trains this head and two classifiers on a frozen backbone; the logits are half their sum::

        create_model("timm:vit_base_patch16_224", "moment_probing", fusion="mean")
        create_model("timm:convnext_base", "moment_probing", head_args={"layout": "interleaved"}, fusion="mean_norm")

    and ``frozen: [backbone]`` in the training (``configs/paper/moment_probing``). ``blocks={"psrp": {}}`` adds the
    adapters of MP+, which are trained in a frozen backbone. MLP networks take ``fusion="mean"`` with ``"interleaved"``.

    Args:
        in_features: channels of the tokens ``(B, C, N, 1)``; a feature map ``(B, C, h, w)`` has N = h·w tokens.
        dim, reduction, groups: an optional :class:`~gcpzoo.heads.base.Reduction` first; ``None`` (usual): none.
        heads: H, at least 2.
        head_dim: k, at least 7.
        layout: which of the H·k projected channels belong to head h: ``"contiguous"``, the h-th k of them, as in the
            released vision transformers, or ``"interleaved"``, every H-th, as in the released CNNs and MLP networks.

    When to use: to adapt a large pretrained network with 3 to 4 million trained parameters.

    Released code: has a layer for 2883 numbers only, so that no other size runs. On Swin it leaves out the first patch
    as if it were a class token; here all positions count. Its parameters start as here: projection from a normal
    distribution with σ = 0.02, bias 0. Loading a projection that is a 1×1 convolution makes it a linear layer.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("moment_probing", in_features=768)(torch.ones(2, 768, 196, 1)).shape
    torch.Size([2, 2883])

    Source: Gao et al., "Tuning Pre-trained Model via Moment Probing", ICCV 2023, section 3.1.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        "proj": "projection",
        "ln": "norm",
        "downblocks.0.0": "first",
        "downblocks.0.2": "second",
    }
    default_dim: ClassVar[int | None] = None

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        heads: int = 4,
        head_dim: int = 128,
        layout: str = "contiguous",
        reduction: str = "linear",
        groups: int = 1,
    ) -> None:
        super().__init__(in_features, dim, reduction, groups)
        check_count("heads", heads)
        check_count("head_dim", head_dim)
        check_choice("layout", layout, LAYOUTS)
        if heads < 2:
            raise ZooError(f"heads must be at least 2, because neighbours are crossed, got {heads}")
        if head_dim < LEAST_CHANNELS:
            raise ZooError(
                f"head_dim must be at least {LEAST_CHANNELS}, or the convolutions leave nothing, got {head_dim}"
            )
        self.heads, self.head_dim, self.layout = heads, head_dim, layout
        with torch.random.fork_rng(devices=[]):
            self.projection = nn.Linear(self.dim, heads * head_dim)
            nn.init.trunc_normal_(self.projection.weight, std=0.02)
            nn.init.zeros_(self.projection.bias)
            self.norm = nn.LayerNorm(head_dim)
            self.first = nn.Conv2d(heads - 1, heads - 1, 3, stride=2, bias=False)
            self.second = nn.Conv2d(heads - 1, heads - 1, 3, stride=2, bias=False)
        self.register_load_state_dict_pre_hook(_flatten_projection)  # type: ignore[no-untyped-call]  # by torch

    @property
    def out_features(self) -> int:
        return (self.heads - 1) * _downsampled(_downsampled(self.head_dim)) ** 2

    def forward(self, x: Tensor, tokens: bool = False, weights: Tensor | None = None) -> Tensor:
        projected = self.projection(as_matrix(self.reduce(x, tokens, weights)).mT)
        with without_autocast(x):
            q = self._split(at_least_float32(projected))
            weight, bias = self._cast(q, self.norm.weight, self.norm.bias)
            q = F.layer_norm(q, (self.head_dim,), weight, bias, self.norm.eps)
            q = q.permute(0, 2, 3, 1)  # (B, H, k, N)
            if weights is not None:
                q = reweight(q.flatten(1, 2), weights).reshape(q.shape)
            c = F.normalize(cross_covariance(q[:, :-1], q[:, 1:]), dim=-2)
            first, second = self._cast(c, self.first.weight, self.second.weight)
            return F.conv2d(F.gelu(F.conv2d(c, first, stride=2)), second, stride=2).flatten(1)

    def _split(self, projected: Tensor) -> Tensor:
        """``(B, N, H·k)`` to ``(B, N, H, k)``."""
        b, n, _ = projected.shape
        if self.layout == "contiguous":
            return projected.reshape(b, n, self.heads, self.head_dim)
        return projected.reshape(b, n, self.head_dim, self.heads).mT

    @staticmethod
    def _cast(x: Tensor, *parameters: Tensor) -> list[Tensor]:
        """Parameters in the dtype of ``x``: they have a lower precision where the whole network has."""
        return [p.to(x.dtype) for p in parameters]
