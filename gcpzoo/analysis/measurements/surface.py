"""The loss as a function of a network's weights, or of activations in it; the network itself is never changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.surgery import evaluating

Batches = Sequence[tuple[Tensor, Tensor]]
"""Preprocessed images ``(B, 3, H, W)`` and labels ``(B,)``."""
Point = dict[str, Tensor]
"""Named tensors, read as one long vector."""


@dataclass(frozen=True)
class Surface:
    """A loss over named tensors: the sum of parts, of which each is computed by itself to save memory.

    Args:
        origin: where the network is.
        parts: functions of a point that give a scalar each.

    >>> bowl = Surface({"x": torch.tensor([3.0, 4.0])}, [lambda point: point["x"].square().sum() / 2])
    >>> bowl.loss(bowl.origin)
    12.5
    >>> bowl.gradient(bowl.origin)
    (12.5, {'x': tensor([3., 4.])})
    """

    origin: Point
    parts: Sequence[Callable[[Point], Tensor]]

    @torch.no_grad()
    def loss(self, point: Point) -> float:
        """Give the loss at a point.

        >>> Surface({}, [lambda point: 2 * point["x"], lambda point: -point["x"]]).loss({"x": torch.tensor(1.5)})
        1.5
        """
        return sum(float(part(point)) for part in self.parts)

    def gradient(self, point: Point) -> tuple[float, Point]:
        """Give the loss at a point and its gradient, zero for tensors that the loss does not depend on.

        >>> Surface({}, [lambda point: point["x"] ** 2]).gradient({"x": torch.tensor(3.0), "y": torch.tensor(1.0)})
        (9.0, {'x': tensor(6.), 'y': tensor(0.)})
        """
        total, sums = 0.0, {name: torch.zeros_like(t) for name, t in point.items()}
        for part in self.parts:
            leaves = {name: t.detach().requires_grad_() for name, t in point.items()}
            value = part(leaves)
            total += float(value.detach())
            for name, g in _gradients(value, leaves).items():
                sums[name] += g
        return total, sums

    def hessian_product(self, point: Point, direction: Point) -> Point:
        """Multiply the Hessian at a point by a direction, by differentiating twice.

        Raises:
            RuntimeError: if a part of the network has no second derivative, as most covariance heads.

        >>> cube = Surface({}, [lambda point: point["x"] ** 3])
        >>> cube.hessian_product({"x": torch.tensor(2.0)}, {"x": torch.tensor(1.0)})
        {'x': tensor(12.)}
        """
        sums = {name: torch.zeros_like(t) for name, t in point.items()}
        for part in self.parts:
            leaves = {name: t.detach().requires_grad_() for name, t in point.items()}
            first = _gradients(part(leaves), leaves, create_graph=True)
            along = sum((g * direction[name]).sum() for name, g in first.items())
            for name, g in _gradients(along, leaves).items():  # type: ignore[arg-type]
                sums[name] += g
        return sums


def _gradients(value: Tensor, leaves: Point, create_graph: bool = False) -> Point:
    if not value.requires_grad:  # a loss that is linear has a constant gradient
        return {name: torch.zeros_like(t) for name, t in leaves.items()}
    found = torch.autograd.grad(
        value, list(leaves.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, found))


def dot(a: Point, b: Point) -> float:
    """Give the inner product of two points, summed in float64.

    >>> dot({"x": torch.tensor([1.0, 2.0])}, {"x": torch.tensor([3.0, 4.0])})
    11.0
    """
    return float(sum((t.double() * b[name].double()).sum() for name, t in a.items()))


def norm(a: Point) -> float:
    """Give the ℓ2 norm of a point.

    >>> norm({"x": torch.tensor([3.0]), "y": torch.tensor([4.0])})
    5.0
    """
    return dot(a, a) ** 0.5


def move(start: Point, direction: Point, length: float) -> Point:
    """Give ``start + length · direction``.

    >>> move({"x": torch.tensor(1.0)}, {"x": torch.tensor(2.0)}, -0.5)
    {'x': tensor(0.)}
    """
    return {name: t + length * direction[name] for name, t in start.items()}


def weight_surface(
    model: nn.Module,
    batches: Batches,
    part: str = "",
    batch_statistics: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Surface:
    """Read the mean cross-entropy over images as a function of a network's weights.

    Args:
        model: logits of images; it is in evaluation mode in the computation and as before afterwards.
        batches: images and labels.
        part: path of a module whose weights vary, e.g. ``head`` or ``backbone.layer3``; empty: all weights.
        batch_statistics: batch norm takes the statistics of each batch, as in training; else its running ones.
        dtype: of the computation.

    Raises:
        ZooError: if there are no images, or no such module or weights in it.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 2, until="layer1")
    >>> surface = weight_surface(model, [(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]))], "classifier")
    >>> list(surface.origin)
    ['classifier.weight', 'classifier.bias']
    """
    _module(model, part)
    inside = f"{part}." if part else ""
    origin = {name: p.detach().to(dtype, copy=True) for name, p in model.named_parameters() if name.startswith(inside)}
    if not origin:
        raise ZooError(f"the module {part!r} has no weights; name another one")

    def loss(x: Tensor, y: Tensor, share: float) -> Callable[[Point], Tensor]:
        return lambda point: share * _loss(model, x.to(dtype), y, point, batch_statistics)

    return Surface(origin, [loss(x, y, share) for x, y, share in _shares(batches)])


def activation_surface(
    model: nn.Module,
    batches: Batches,
    module: str | None = None,
    batch_statistics: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Surface:
    """Read the mean cross-entropy over images as a function of what a module gives for them.

    Args:
        model, batches, batch_statistics, dtype: as in :func:`weight_surface`.
        module: path of the module; null: the network's :func:`stem`.

    Raises:
        ZooError: if there are no images, no such module, or it does not give one tensor.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 2, until="layer1")
    >>> surface = activation_surface(model, [(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]))])
    >>> surface.origin["0"].shape
    torch.Size([2, 64, 8, 8])
    """
    path = stem(model) if module is None else module
    inner = _module(model, path)
    origin, parts = {}, []
    for i, (x, y, share) in enumerate(_shares(batches)):
        seen: list[Any] = []

        def keep(module: nn.Module, args: Any, output: Any, seen: list[Any] = seen) -> None:
            seen.append(output.detach().clone() if isinstance(output, Tensor) else output)

        with torch.no_grad(), _hooked(inner, keep):
            _loss(model, x.to(dtype), y, {}, batch_statistics)
        if len(seen) != 1 or not isinstance(seen[0], Tensor):
            raise ZooError(f"the module {path!r} must run once and give a tensor; name another one")
        origin[str(i)] = seen[0]

        def loss(point: Point, x: Tensor = x, y: Tensor = y, share: float = share, name: str = str(i)) -> Tensor:
            with _hooked(inner, lambda module, args, output: point[name].clone()):
                return share * _loss(model, x.to(dtype), y, {}, batch_statistics)

        parts.append(loss)
    return Surface(origin, parts)


def stem(model: Any) -> str:
    """Name the module whose output goes into the first block of a network's backbone: the last one before its stages.

    >>> from gcpzoo.models import create_model
    >>> stem(create_model("resnet18", "gap", 2)), stem(create_model("mobilenet_v2", "gap", 2))
    ('backbone.maxpool', 'backbone.features.0')
    """
    network = model.backbone.network
    prefix = next(name for name, module in model.named_modules() if module is network)
    before = ""
    for name, child in network.named_children():
        if isinstance(child, nn.Sequential) and len(child):
            return f"{prefix}.{before or f'{name}.{next(n for n, _ in child.named_children())}'}"
        before = name
    raise ZooError("the backbone has no stages, so it is not clear what its stem is; name a module")


def _module(model: nn.Module, path: str) -> nn.Module:
    modules = dict(model.named_modules())
    if path not in modules:
        raise unknown_name("module", path, [name for name in modules if name])
    return modules[path]


def _shares(batches: Batches) -> list[tuple[Tensor, Tensor, float]]:
    total = sum(len(y) for _, y in batches)
    if not total:
        raise ZooError("a loss needs images, got none")
    return [(x, y, len(y) / total) for x, y in batches if len(y)]


def _loss(model: nn.Module, x: Tensor, y: Tensor, point: Mapping[str, Tensor], batch_statistics: bool) -> Tensor:
    """The mean loss with some weights replaced; all others and the buffers are copies that ask for no gradient."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    copies = {
        name: t.detach().to(x.dtype if t.is_floating_point() else t.dtype, copy=True)
        for name, t in own.items()
        if name not in point
    }
    device = next(model.parameters()).device
    with _evaluating(model, batch_statistics):
        logits = functional_call(model, {**copies, **point}, (x.to(device),))
    return nn.functional.cross_entropy(logits, y.to(device))


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _evaluating(model: nn.Module, batch_statistics: bool) -> Iterator[None]:
    with evaluating(model):
        for module in model.modules() if batch_statistics else ():
            if isinstance(module, _BatchNorm):
                module.train()
        yield
