"""What all heads share: the registry, the reduction layer, float32 and the vector of the matrix."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.functional import ROOTS, as_matrix, square_root, triangle
from gcpzoo.functional.precision import at_least_float32, without_autocast

REGISTRY: dict[str, type[Head]] = {}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}


class Reduction(nn.Sequential):
    """1×1 convolution without bias, batch normalization and activation, once for each entry of ``dim``.

    Args:
        in_features: channels that come in.
        dim: channels that go out, or a progressive list of them (2048 → [1024, 512, 256]), TPAMI 2020, section 3.3.
        activation: ``relu``, ``relu6`` (MobileNetV2 and ShuffleNetV2 of GCP_Optimization), or ``linear``: the
            1×1 convolution alone, as on the tokens of vision transformers.
        groups: groups of the convolutions.

    Source: Li et al., CVPR 2018, section 4.1; initialization Kaiming fan-out.
    """

    def __init__(self, in_features: int, dim: int | Sequence[int], activation: str = "relu", groups: int = 1) -> None:
        super().__init__()
        if activation != "linear" and activation not in ACTIVATIONS:
            raise unknown_name("reduction", activation, ["linear", *ACTIVATIONS])
        dims = [dim] if isinstance(dim, int) else list(dim)
        if not dims or min(dims) < 1:
            raise ZooError(f"dim must be a positive number of channels or a list of such, got {dim}")
        for out in dims:
            if in_features % groups or out % groups:
                raise ZooError(f"groups={groups} does not divide the reduction from {in_features} to {out} channels")
            conv = nn.Conv2d(in_features, out, 1, bias=False, groups=groups)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            self.append(conv)
            if activation != "linear":
                self.extend([nn.BatchNorm2d(out), ACTIVATIONS[activation]()])
            in_features = out
        self.out_features = in_features


class Head(nn.Module):
    """Feature map ``(B, C, h, w)`` to the vector ``(B, out_features)`` that the classifier sees.

    Attributes:
        name: as in :func:`create_head`.
        second_order: whether it needs more than one position.
        default_dim: channels after the reduction where a model leaves the choice to the head; ``None``: no reduction.
    """

    name: ClassVar[str]
    second_order: ClassVar[bool] = True
    default_dim: ClassVar[int | None] = 256
    out_features: int


class SecondOrderHead(Head):
    """Reduction, then a matrix ``(B, d, d)`` of the data matrix ``(B, d, M)``, then its triangle.

    A subclass gives :meth:`normalize` and, where its vector is another, :meth:`vectorize` and :meth:`vector_size`.
    Everything after the reduction runs in float32 (float64 stays float64), whatever autocast says: five Newton–Schulz
    steps lose 8e-4 in float16 and 6e-3 in bfloat16. On a GPU leave ``torch.set_float32_matmul_precision`` at
    ``"highest"``: TF32 products lose 7e-4 to 3e-3 of the gradient.

    Args:
        in_features: channels of the feature map.
        dim: channels after the reduction (a list reduces step by step); ``None``: no reduction layer.
        reduction: ``relu``, ``relu6`` or ``linear``, see :class:`Reduction`.
        groups: groups of the reduction's convolutions.
        cov_groups: split the channels into this many groups, take the matrix of each and concatenate their vectors:
            the output shrinks by this factor (Li et al., TPAMI 2020).

    Attributes:
        recompute: set it True to keep the reduced features only and compute what follows again in the backward pass:
            less memory, more time (``benchmarks/README.md``).
    """

    recompute: bool = False

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        reduction: str = "relu",
        groups: int = 1,
        cov_groups: int = 1,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.reduction = nn.Identity() if dim is None else Reduction(in_features, dim, reduction, groups)
        self.dim: int = in_features if dim is None else int(self.reduction.out_features)  # type: ignore[arg-type]
        if cov_groups < 1 or self.dim % cov_groups:
            raise ZooError(f"cov_groups={cov_groups} does not divide {self.dim} channels")
        self.cov_groups = cov_groups

    @property
    def group_dim(self) -> int:
        """Side of each covariance: channels after the reduction, divided by ``cov_groups``."""
        return self.dim // self.cov_groups

    @property
    def out_features(self) -> int:  # type: ignore[override]
        return self.cov_groups * self.vector_size()

    def normalize(self, x: Tensor) -> Tensor:
        """Data matrix ``(B, d, M)`` in float32 or float64 to the matrix ``(B, d, d)`` that represents it."""
        raise NotImplementedError

    def vectorize(self, a: Tensor) -> Tensor:
        """Matrix ``(B, d, d)`` to vector ``(B, vector_size)``."""
        return triangle(a)

    def vector_size(self) -> int:
        """Length of the vector of one group, d(d+1)/2 for the triangle."""
        return self.group_dim * (self.group_dim + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim not in (3, 4) or x.shape[1] != self.in_features:
            raise ZooError(
                f"{self.name} expects (B, {self.in_features}, h, w), or (B, {self.in_features}, N, 1) for tokens, "
                f"got shape {tuple(x.shape)}"
            )
        x = self.reduction(x)
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._represent, x, use_reentrant=False)
        return self._represent(x)

    def _represent(self, x: Tensor) -> Tensor:
        """Reduced features to the vector."""
        with without_autocast(x):
            x = as_matrix(at_least_float32(x))
            if self.cov_groups == 1:
                return self.vectorize(self.normalize(x))
            parts = x.reshape(x.shape[0] * self.cov_groups, self.group_dim, x.shape[2])
            return self.vectorize(self.normalize(parts)).reshape(x.shape[0], -1)


class RootHead(SecondOrderHead):
    """A head whose matrix is a square root of the covariance, by a method that can be exchanged at run time.

    Args:
        in_features, dim, kwargs: see :class:`SecondOrderHead`.
        root: one of :data:`gcpzoo.functional.ROOTS`; ``None``: the head's own.
        iterations: Newton–Schulz steps of ``isqrt`` (5 for ResNets, 3 in GSoP-Net2 and on transformers) and of the
            gradient of ``svd_newton``.
    """

    default_root: ClassVar[str] = "isqrt"

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        root: str | None = None,
        iterations: int = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        if not isinstance(iterations, int) or iterations < 1:
            raise ZooError(f"iterations must be at least 1 and a whole number, got {iterations!r}")
        self.iterations = iterations
        self.switch_root(root or self.default_root)

    def switch_root(self, root: str) -> None:
        """Take the root by another method from now on; ``head.root`` names the one in use.

        The method has no parameters: the state dict stays the same, and a model's configuration records the switch as
        ``head_args={"root": head.root}``.

        Raises:
            ZooError: unknown method.
        """
        if root not in ROOTS:
            raise unknown_name("root", root, ROOTS)
        self.root = root

    def square_root(self, x: Tensor, center: bool = True) -> Tensor:
        """Root of the covariance, or of the second moment, of ``(B, d, M)``."""
        return square_root(x, self.root, self.iterations, center)

    def normalize(self, x: Tensor) -> Tensor:
        return self.square_root(x)


def register(name: str) -> Callable[[type[Head]], type[Head]]:
    """Class decorator: make a head known by ``name``."""

    def add(cls: type[Head]) -> type[Head]:
        cls.name = name
        REGISTRY[name] = cls
        return cls

    return add


def head_class(name: str) -> type[Head]:
    """The class behind a head's name; an unknown name is a :class:`~gcpzoo.errors.ZooError` with the nearest ones."""
    if name not in REGISTRY:
        raise unknown_name("head", name, REGISTRY)
    return REGISTRY[name]


def head_arguments(name: str) -> dict[str, Any]:
    """The arguments that a head takes beside ``in_features`` and ``dim``, with their defaults."""
    arguments: dict[str, Any] = {}
    for cls in reversed(head_class(name).__mro__):
        if "__init__" in cls.__dict__ and issubclass(cls, Head):
            for p in inspect.signature(cls).parameters.values():
                if p.kind is not p.VAR_KEYWORD and p.name not in ("in_features", "dim"):
                    arguments[p.name] = p.default
    return arguments


def check_arguments(name: str, keys: Iterable[str]) -> None:
    """An argument that the head does not take is a :class:`~gcpzoo.errors.ZooError` with the nearest ones."""
    known = head_arguments(name)
    for key in keys:
        if key not in known:
            raise unknown_name(f"argument of head {name!r}", key, known)


def create_head(name: str, in_features: int, dim: int | Sequence[int] | None = None, **kwargs: Any) -> Head:
    """A head by name, usable alone: ``create_head("isqrt", in_features=256, iterations=5)``.

    Args:
        name: one of :func:`list_heads`.
        in_features: channels ``C`` of the feature map ``(B, C, h, w)``.
        dim: channels after the reduction layer; ``None``: no reduction layer.
        kwargs: the head's own arguments, e.g. ``iterations=5``.

    Raises:
        ZooError: unknown head or argument (with what there is), or a value that the head refuses.
    """
    check_arguments(name, kwargs)
    make: Callable[..., Head] = head_class(name)
    try:
        return make(in_features=in_features, dim=dim, **kwargs)
    except TypeError as error:  # a value of another kind, which only its use finds out
        raise ZooError(f"head {name!r} refuses its arguments {kwargs}: {error}") from error


def list_heads() -> list[str]:
    """Names of all heads, sorted."""
    return sorted(REGISTRY)
