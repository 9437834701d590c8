"""Multi-headed global cross-covariance pooling of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcpzoo.functional import as_matrix, multi_head_cross_covariance, svpn
from gcpzoo.functional.checks import check_choice, check_count, check_positive, check_probability
from gcpzoo.functional.cross_covariance import MEANS
from gcpzoo.functional.precision import at_least_float32, without_autocast
from gcpzoo.heads.base import Head
from gcpzoo.heads.registry import register


def _drop_third_projection(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Cut a weight of DropCov's models, which project a third, unused set, before it is loaded."""
    assert isinstance(module, CrossCovariancePooling)
    key, rows = f"{prefix}projection.weight", module.projection.out_features
    if key in state_dict and state_dict[key].shape[0] * 2 == rows * 3:
        state_dict[key] = state_dict[key][:rows]


@register("mgcrp")
class CrossCovariancePooling(Head):
    r"""MGCrP: multi-headed cross-covariance pooling of tokens, each head normalized by its largest singular value.

    .. math:: C_h = \tfrac1N\sum_n (q_{h,n} - \bar q_h)(k_{h,n} - \bar k_h)^\top,\qquad
              [q_1 \dots q_H\ k_1 \dots k_H] = Wx,\qquad
              \operatorname{vec}\bigl(\mathrm{svPN}(C_1)\dots\mathrm{svPN}(C_H)\bigr)

    Output size heads · head_dim².

    Args:
        in_features: channels of the tokens ``(B, C, N, 1)``; a feature map ``(B, C, h, w)`` has N = h·w tokens.
        dim, reduction, groups: an optional :class:`~gcpzoo.heads.base.Reduction` first; ``None`` (usual): none.
        heads: H, pairs of projections.
        head_dim: channels of each projection.
        normalization: ``"svpn"`` (:func:`~gcpzoo.functional.svpn`, one power iteration from the learned vector
            ``start``), or ``None`` as in DropCov's transformers.
        alpha: the power of svPN.
        mean: ``"scalar"`` or ``"channel"``, see :func:`~gcpzoo.functional.cross_covariance`.
        token_dropout: p; training multiplies each token, in each head, by 0 with probability p, else by 1/(1 - p), the
            same in both projections and before the mean is taken away.
        dropout: probability of the dropout of single entries of the vector in training.

    When to use: on the visual tokens of a transformer, beside its class token. DropCov's transformers are this head
    with ``normalization=None``, ``token_dropout=0.2`` and ``dropout=0.5``, in a model with ``fusion="sum"``.

    Released code: subtracts one mean per head, over tokens and channels, instead of each channel's own. All published
    models do so, and so does the default here; ``mean="channel"`` is the covariance. DropCov's models project a third,
    unused set; loading such a weight drops it. They drop whole tokens, where the paper speaks of channels, and at a
    fixed rate; both factors of a kept token make the matrix 1/(1 - p) times larger in training, on average.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("mgcrp", in_features=384, heads=6, head_dim=24)(torch.ones(2, 384, 196, 1)).shape
    torch.Size([2, 3456])

    Source: Xie et al., "So-ViT: Mind Visual Tokens for Vision Transformer", arXiv 2104.10935.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {"representation.wr": "projection", "normalization.weight": "start"}
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
        token_dropout: float = 0.0,
        dropout: float = 0.0,
        reduction: str = "linear",
        groups: int = 1,
    ) -> None:
        super().__init__(in_features, dim, reduction, groups)
        check_count("heads", heads)
        check_count("head_dim", head_dim)
        check_choice("normalization", normalization, ("svpn", None))
        check_positive("alpha", alpha)
        check_choice("mean", mean, MEANS)
        check_probability("token_dropout", token_dropout)
        check_probability("dropout", dropout)
        self.heads, self.head_dim, self.alpha, self.mean = heads, head_dim, alpha, mean
        self.token_dropout, self.dropout = token_dropout, dropout
        with torch.random.fork_rng(devices=[]):
            self.projection = nn.Linear(self.dim, 2 * heads * head_dim, bias=False)
            nn.init.trunc_normal_(self.projection.weight, std=0.02)
            self.start = nn.Parameter(torch.randn(head_dim)) if normalization else None
        self.register_load_state_dict_pre_hook(_drop_third_projection)  # type: ignore[no-untyped-call]  # by torch

    @property
    def out_features(self) -> int:
        return self.heads * self.head_dim**2

    def forward(self, x: Tensor, tokens: bool = False, weights: Tensor | None = None) -> Tensor:
        pairs = self.projection(as_matrix(self.reduce(x, tokens, weights)).mT).mT
        with without_autocast(x):
            pairs = at_least_float32(pairs)
            c = multi_head_cross_covariance(pairs, self.heads, self.mean, self._token_mask(pairs), weights)
            if self.start is not None:
                c = svpn(c, self.start.to(c.dtype), self.alpha)
            return F.dropout(c.flatten(1), self.dropout, self.training)

    def _token_mask(self, pairs: Tensor) -> Tensor | None:
        """Draw 0 or 1/(1 - p) for each sample, head and token; ``None`` where nothing is dropped."""
        if not self.training or not self.token_dropout:
            return None
        return F.dropout(pairs.new_ones(len(pairs), self.heads, pairs.shape[2]), self.token_dropout)
