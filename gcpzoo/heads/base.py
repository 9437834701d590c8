"""What all heads share: the reduction, float32, groups of channels, the vector of the matrix, the root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gcpzoo.errors import ZooError
from gcpzoo.functional import ROOTS, as_matrix, reweight, square_root, triangle
from gcpzoo.functional.checks import check_count, check_name
from gcpzoo.functional.minimax import check_steps
from gcpzoo.functional.precision import at_least_float32, without_autocast
from gcpzoo.functional.weighting import check_number, check_weights
from gcpzoo.heads.reduction import Reduction
from gcpzoo.limits import ITERATIONS


class Head(nn.Module):
    """Feature map ``(B, C, h, w)`` to the vector ``(B, out_features)`` that the classifier sees.

    ``head(x, tokens=True)`` reads tokens ``(B, N, C)`` instead, without a class token. ``head(x, weights=w)`` weighs
    the positions by ``w`` ``(B, M)``, 0 for a masked one, see :func:`~gcpzoo.functional.reweight`; ``bdc`` and
    ``smso``, which know the number of positions, take the sum of the weights for it. The batch normalization of a
    reduction layer sees zeros at masked positions in training. A map of another shape, such as a volume
    ``(B, C, T, h, w)``, is flattened before: ``head(x.flatten(2))`` reads ``(B, C, M)``.

    Args:
        in_features: channels of the feature map.
        dim: channels after the reduction (a list reduces step by step); ``None``: no reduction layer.
        reduction: ``relu``, ``relu6`` or ``linear``, see :class:`Reduction`.
        groups: groups of the reduction's convolutions.

    Attributes:
        name: as in :func:`create_head`.
        second_order: whether it needs more than one position.
        default_dim: channels after the reduction (a list reduces step by step) where a model leaves the choice to the
            head; ``None``: no reduction.
        dim: channels after the reduction.
        frames: frames of a clip that it makes one vector of; 1: it reads images.
        RELEASED_NAMES: the authors' names of parameters and modules, and ours.

    >>> from gcpzoo.heads import create_head
    >>> create_head("gap", in_features=8, dim=4).dim
    4
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {}

    name: ClassVar[str]
    second_order: ClassVar[bool] = True
    default_dim: ClassVar[int | Sequence[int] | None] = 256
    frames: int = 1

    def __init__(
        self, in_features: int, dim: int | Sequence[int] | None = None, reduction: str = "relu", groups: int = 1
    ) -> None:
        super().__init__()
        check_count("in_features", in_features)
        self.in_features = in_features
        self.reduction: nn.Module = nn.Identity()
        self.dim = in_features
        if dim is not None:
            self.reduction = reduced = Reduction(in_features, dim, reduction, groups)
            self.dim = reduced.out_features

    @property
    def out_features(self) -> int:
        """Length of the output vector.

        >>> from gcpzoo.heads import create_head
        >>> create_head("isqrt", in_features=256).out_features
        32896
        """
        return self.dim

    def reduce(self, x: Tensor, tokens: bool = False, weights: Tensor | None = None) -> Tensor:
        """Check the shape and the dtype, and reduce the channels.

        Args:
            x: ``(B, C, h, w)``, or ``(B, C, M)``, of a floating-point dtype.
            tokens: ``x`` is ``(B, N, C)`` instead.
            weights: of the positions, ``(B, h·w)``; where they are 0, the features become 0 before any layer sees them.

        Returns:
            ``(B, dim, h, w)``.

        Raises:
            ZooError: another shape or dtype.

        >>> import torch
        >>> from gcpzoo.heads import create_head
        >>> create_head("gap", in_features=8, dim=4).reduce(torch.ones(2, 8, 3, 3)).shape
        torch.Size([2, 4, 3, 3])
        """
        c = self.in_features
        if tokens:
            if x.ndim != 3 or x.shape[2] != c:
                raise ZooError(f"{self.name} expects (B, N, {c}) with tokens=True, got shape {tuple(x.shape)}")
            x = x.mT[..., None]
        elif x.ndim not in (3, 4) or x.shape[1] != c:
            raise ZooError(
                f"{self.name} expects (B, {c}, h, w) or (B, {c}, M), got shape {tuple(x.shape)}; x.flatten(2) makes "
                f"other maps fit, and tokens=True reads (B, N, {c})"
            )
        elif x.ndim == 3:
            x = x[..., None]
        if not x.is_floating_point():
            raise ZooError(f"{self.name} expects floating-point features, got {x.dtype}")
        if weights is not None:
            check_number(weights, x.shape[0] // self.frames, self.frames * x.shape[2] * x.shape[3])
            x = torch.where(weights.reshape(x[:, :1].shape) > 0, x, 0)
        reduced: Tensor = self.reduction(x)
        return reduced


class SecondOrderHead(Head):
    """Reduction, then a matrix ``(B, d, d)`` of the data matrix ``(B, d, M)``, then its triangle.

    A subclass defines :meth:`normalize` and, where its vector is not the triangle, :meth:`vectorize` and
    :meth:`vector_size`. Everything after the reduction runs in float32 (float64 stays float64), also under autocast:
    five Newton–Schulz steps lose 8e-4 in float16 and 6e-3 in bfloat16. On a GPU leave
    ``torch.set_float32_matmul_precision`` at ``"highest"``: TF32 products lose 7e-4 to 3e-3 of the gradient.

    Args:
        in_features: channels of the feature map.
        dim: channels after the reduction (a list reduces step by step); ``None``: no reduction layer.
        reduction: ``relu``, ``relu6`` or ``linear``, see :class:`Reduction`.
        groups: groups of the reduction's convolutions.
        cov_groups: split the channels into this many groups, take the matrix of each and concatenate their vectors:
            the output shrinks by this factor (Li et al., TPAMI 2020).

    Attributes:
        centered: whether the matrix is one of the covariance, or mean and covariance; ``False``: of the second moment.
        recompute: set it to ``True`` to keep only the reduced features and compute the rest again in the backward
            pass: less memory, more time (``benchmarks/README.md``).

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> head = create_head("isqrt", in_features=8, dim=6, cov_groups=2)  # two triangles of 3×3 matrices
    >>> head(torch.ones(1, 8, 4, 4)).shape
    torch.Size([1, 12])
    """

    centered: ClassVar[bool] = True
    recompute: bool = False

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        reduction: str = "relu",
        groups: int = 1,
        cov_groups: int = 1,
    ) -> None:
        super().__init__(in_features, dim, reduction, groups)
        check_count("cov_groups", cov_groups)
        if self.dim % cov_groups:
            raise ZooError(f"cov_groups must divide the {self.dim} channels, got {cov_groups}")
        self.cov_groups = cov_groups

    @property
    def group_dim(self) -> int:
        """Rows of each covariance: channels after the reduction, divided by ``cov_groups``.

        >>> from gcpzoo.heads import create_head
        >>> create_head("isqrt", in_features=8, cov_groups=2).group_dim
        4
        """
        return self.dim // self.cov_groups

    @property
    def out_features(self) -> int:
        return self.cov_groups * self.vector_size()

    def normalize(self, x: Tensor) -> Tensor:
        """Data matrix ``(B, d, M)`` in float32 or float64 to the matrix ``(B, d, d)`` that represents it.

        >>> import torch
        >>> from gcpzoo.heads import create_head
        >>> create_head("dropcov", in_features=2).eval().normalize(torch.tensor([[[1.0, 3.0], [2.0, 2.0]]]))
        tensor([[[1., 0.],
                 [0., 0.]]])
        """
        raise NotImplementedError

    def normalize_weighted(self, x: Tensor, weights: Tensor) -> Tensor:
        """:meth:`normalize` of weighted positions: by their mean and covariance, unless a head knows more of positions.

        Args:
            x: ``(B, d, M)``.
            weights: ``(B, M)``, not negative, not all 0 in a sample.

        >>> import torch
        >>> from gcpzoo.heads import create_head
        >>> head = create_head("dropcov", in_features=2).eval()
        >>> x = torch.tensor([[[1.0, 3.0, 50.0], [2.0, 2.0, 70.0]]])
        >>> head.normalize_weighted(x, torch.tensor([[1.0, 1.0, 0.0]])).round(decimals=3).abs()
        tensor([[[1., 0.],
                 [0., 0.]]])
        """
        return self.normalize(reweight(x, weights, self.centered))

    def vectorize(self, a: Tensor) -> Tensor:
        """Matrix ``(B, d, d)`` to vector ``(B, vector_size)``.

        >>> import torch
        >>> from gcpzoo.heads import create_head
        >>> create_head("isqrt", in_features=2).vectorize(torch.tensor([[[1.0, 2.0], [2.0, 3.0]]]))
        tensor([[1., 2., 3.]])
        """
        return triangle(a)

    def vector_size(self) -> int:
        """Length of the vector of one group, d(d+1)/2 for the triangle.

        >>> from gcpzoo.heads import create_head
        >>> create_head("isqrt", in_features=256).vector_size()
        32896
        """
        return self.group_dim * (self.group_dim + 1) // 2

    def forward(self, x: Tensor, tokens: bool = False, weights: Tensor | None = None) -> Tensor:
        x = self.reduce(x, tokens, weights)
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(self._represent, x, weights, use_reentrant=False)
            return out
        return self._represent(x, weights)

    def _represent(self, x: Tensor, weights: Tensor | None) -> Tensor:
        """Reduced features to the vector."""
        with without_autocast(x):
            x = as_matrix(at_least_float32(x))
            if weights is not None and self.cov_groups > 1:
                check_weights(x, weights)
                weights = weights.repeat_interleave(self.cov_groups, 0)
            parts = x.reshape(x.shape[0] * self.cov_groups, self.group_dim, x.shape[2])
            a = self.normalize(parts) if weights is None else self.normalize_weighted(parts, weights)
            return self.vectorize(a).reshape(x.shape[0], self.out_features)


class RootHead(SecondOrderHead):
    """A head whose matrix is a square root of the covariance, by a method that can be exchanged at run time.

    Args:
        in_features, dim, kwargs: see :class:`SecondOrderHead`.
        root: one of :data:`gcpzoo.functional.ROOTS`; ``None``: the head's own.
        iterations: Newton–Schulz steps of ``isqrt`` (5 for ResNets, 3 in GSoP-Net2 and on transformers) and of the
            gradient of ``svd_newton``; at most 1000.
        steps: polynomials of ``minimax``, 3 to 6. That root needs matrix products only, as ``isqrt`` does, and is near
            the exact one: the choice for GPUs, ``torch.compile`` and export, where ``eigh`` is slow or missing. On a
            CPU ``exact`` costs the same.

    >>> from gcpzoo.heads import create_head
    >>> create_head("isqrt", in_features=8, iterations=3).root
    'isqrt'
    """

    default_root: ClassVar[str] = "isqrt"

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        root: str | None = None,
        iterations: int = 5,
        steps: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_count("iterations", iterations, most=ITERATIONS)
        check_steps(steps)
        self.iterations, self.steps = iterations, steps
        self.switch_root(root or self.default_root)

    def switch_root(self, root: str) -> None:
        """Compute the root by another method from now on; ``head.root`` names the one in use.

        No method has parameters: the state dict stays the same, and a model's configuration records the switch as
        ``head_args={"root": head.root}``.

        Raises:
            ZooError: unknown method.

        >>> from gcpzoo.heads import create_head
        >>> head = create_head("isqrt", in_features=8)
        >>> head.switch_root("svd_pade")
        >>> head.root
        'svd_pade'
        """
        check_name("root", root, ROOTS)
        self.root = root

    def square_root(self, x: Tensor, center: bool = True) -> Tensor:
        """Root of the covariance, or without ``center`` of the second moment, of ``(B, d, M)``.

        >>> import torch
        >>> from gcpzoo.heads import create_head
        >>> head = create_head("isqrt", in_features=1, root="exact")
        >>> head.square_root(torch.tensor([[[2.0, -2.0]]]))
        tensor([[[2.]]])
        """
        return square_root(x, self.root, self.iterations, center, self.steps)

    def normalize(self, x: Tensor) -> Tensor:
        return self.square_root(x)
