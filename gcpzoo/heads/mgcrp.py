"""Multi-headed global cross-covariance pooling of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gcpzoo.errors import ZooError
from gcpzoo.functional import as_matrix, cross_covariance, svpn
from gcpzoo.functional.precision import at_least_float32, without_autocast
from gcpzoo.heads.base import Head, Reduction, register


@register("mgcrp")
class CrossCovariancePooling(Head):
    r"""Multi-headed global cross-covariance pooling of tokens, each head normalized by its largest singular value.

    .. math:: C_h = \tfrac1N\sum_n (q_{h,n} - \bar q_h)(k_{h,n} - \bar k_h)^\top,\qquad
              [q_1 \dots q_H\ k_1 \dots k_H] = Wx,\qquad
              \operatorname{vec}\bigl(\mathrm{svPN}(C_1)\dots\mathrm{svPN}(C_H)\bigr)

    Output size heads · head_dim².

    Args:
        in_features: channels of the tokens ``(B, C, N, 1)``; a feature map ``(B, C, h, w)`` has N = h·w tokens.
        dim, reduction, groups: an optional :class:`~gcpzoo.heads.base.Reduction` before; ``None`` (usual): none.
        heads: H, pairs of projections.
        head_dim: channels of each projection.
        normalization: ``"svpn"`` (:func:`~gcpzoo.functional.svpn`, one power iteration from the learned vector
            ``start``), or ``None`` as in DropCov's transformers.
        alpha: the power of svPN.
        mean: ``"scalar"`` or ``"channel"``, see :func:`~gcpzoo.functional.cross_covariance`.

    When to use: on the visual tokens of a transformer, beside its class token.

    Released code: subtracts one mean per head, over tokens and channels, instead of each channel's own; all published
    models and the default here are made so, ``mean="channel"`` is the covariance. DropCov's models project a third,
    unused set; loading such a weight drops it.

    Source: Xie et al., "So-ViT: Mind Visual Tokens for Vision Transformer", arXiv 2104.10935.
    """

    default_dim: ClassVar[int | None] = None

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        heads: int = 6,
        head_dim: int = 24,
        normalization: str | None = "svpn",
        alpha: float = 0.5,
        mean: str = "scalar",
        reduction: str = "linear",
        groups: int = 1,
    ) -> None:
        super().__init__()
        if heads < 1 or head_dim < 1:
            raise ZooError(f"heads and head_dim must be at least 1, got {heads} and {head_dim}")
        if normalization not in (None, "svpn"):
            raise ZooError(f"normalization is 'svpn' or None, got {normalization!r}")
        if mean not in ("scalar", "channel"):
            raise ZooError(f"mean is 'scalar' or 'channel', got {mean!r}")
        self.heads, self.head_dim, self.alpha, self.mean = heads, head_dim, alpha, mean
        self.reduction = nn.Identity() if dim is None else Reduction(in_features, dim, reduction, groups)
        features: int = in_features if dim is None else self.reduction.out_features  # type: ignore[assignment]
        with torch.random.fork_rng(devices=[]):
            self.projection = nn.Linear(features, 2 * heads * head_dim, bias=False)
            nn.init.trunc_normal_(self.projection.weight, std=0.02)
            self.start = nn.Parameter(torch.randn(head_dim)) if normalization else None
        self.out_features = heads * head_dim**2

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        key, rows = f"{prefix}projection.weight", self.projection.out_features
        if key in state_dict and state_dict[key].shape[0] * 2 == rows * 3:
            state_dict[key] = state_dict[key][:rows]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = as_matrix(self.reduction(x)).mT
        pairs = self.projection(tokens).mT
        with without_autocast(x):
            q, k = at_least_float32(pairs).unflatten(1, (2, self.heads, self.head_dim)).unbind(1)
            c = cross_covariance(q, k, self.mean)
            if self.start is not None:
                c = svpn(c, self.start.to(c.dtype), self.alpha)
            return c.flatten(1)
