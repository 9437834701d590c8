"""Which positions and which pairs of channels speak for a class: by the covariance, by the features, by Grad-CAM."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gcpzoo.analysis.explanations.covariance_gradient import is_of_covariance, matrix_gradient
from gcpzoo.errors import ZooError
from gcpzoo.functional.covariance import centered
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.surgery import evaluating


@dataclass(frozen=True)
class Pair:
    """What a pair of channels adds to a class's logit; for i < j both of its equal entries of the covariance.

    >>> Pair(3, 8, contribution=0.2, covariance=0.5, correlation=0.9).contribution
    0.2
    """

    i: int
    j: int
    contribution: float
    covariance: float
    correlation: float


@dataclass(frozen=True)
class SecondOrderView:
    """What a head's covariance says for a class, see :func:`second_order`.

    Attributes:
        logit: of the class.
        map: m(p) of each position, ``(h, w)``, in units of the logit; its sum is that of ``contributions``.
        contributions: :math:`G_{ij}\\Sigma_{ij}`, ``(d, d)``; with ``cov_groups`` zero outside the groups' blocks.
        covariance: Σ, ``(d, d)``; the same.
        gradient: G, ``(d, d)``; the same.
        features: :math:`\\bar x_p` of each position, ``(d, h, w)``.
        first_order: what the mean of the features adds by a head that reads it too, or by the network's other branch.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "isqrt", 3, dim=4, until="layer1")
    >>> view = second_order(model, torch.rand(3, 32, 32), 0)
    >>> view.map.shape, view.contributions.shape, view.pair_map(0, 1).shape
    (torch.Size([8, 8]), torch.Size([4, 4]), torch.Size([8, 8]))
    """

    logit: float
    map: Tensor
    contributions: Tensor
    covariance: Tensor
    gradient: Tensor
    features: Tensor
    first_order: Tensor | None = None

    def pairs(self, count: int, against: bool = False) -> list[Pair]:
        """List the pairs i ≤ j that speak most for the class, or against it; fewer where no more do."""
        once = torch.triu(2 * self.contributions, 1) + self.contributions.diag().diag()
        values, places = (-once if against else once).flatten().topk(min(count, once.numel()))
        spread = self.covariance.diag().sqrt()
        found = []
        for value, place in zip(values.tolist(), places.tolist()):
            i, j = divmod(place, len(once))
            if value > 0:
                covariance, scale = float(self.covariance[i, j]), float(spread[i] * spread[j])
                found.append(Pair(i, j, -value if against else value, covariance, covariance / scale))
        return found

    def pair_map(self, i: int, j: int) -> Tensor:
        """Where a pair of channels speaks for the class, ``(h, w)``; the sum is the pair's contribution."""
        weight = self.gradient[i, j] * (1 if i == j else 2) / self.features[0].numel()
        return weight * self.features[i] * self.features[j]


def second_order(model: GCPNet, image: Tensor, label: int) -> SecondOrderView:
    r"""Attribute a class's logit to the covariance Σ of the head: to pairs of channels, and to positions.

    .. math:: z_c = f_c(\Sigma),\quad \Sigma = \tfrac1M \bar X \bar X^\top,\qquad
              G = \frac{\partial z_c}{\partial \Sigma} = G^\top,\qquad
              \langle G, \Sigma\rangle = \sum_{ij} G_{ij}\Sigma_{ij}
              = \sum_p m(p),\quad m(p) = \tfrac1M\, \bar x_p^\top G\, \bar x_p

    with the data matrix :math:`\bar X` ``(d, M)`` that the head forms its covariance of, centered where the head
    centers. :math:`G_{ij}\Sigma_{ij}` is gradient × input for the pair of channels (i, j), m(p) what position p has of
    the sum. Where the matrix of the head is homogeneous of degree α in Σ and the classifier linear with bias b, Euler's
    theorem makes the sum exact: :math:`\langle G, \Sigma\rangle = \alpha (z_c - b_c)`, with α = 1 for the plain
    covariance and ½ for its square root.

    No head has to know of this: by the chain rule its gradient with respect to the data matrix is
    :math:`\frac{\partial z_c}{\partial X} = \frac2M G \bar X`, so that
    :math:`m(p) = \tfrac12 \bar x_p^\top \frac{\partial z_c}{\partial x_p}`, and G follows by the pseudo-inverse of
    :math:`\bar X`. What G does outside the range of Σ, where no position has features and a root has no derivative,
    is set to zero; the sum, m, and everything that a small change of the features does stay the same. A head is such a
    function of Σ if and only if :math:`\bar X^\top \frac{\partial z_c}{\partial X}` is symmetric and the gradient
    vanishes where :math:`\bar X` does; this is checked for every image.

    A part of the gradient that is equal at all positions belongs to the mean of the features: ``gaussian`` reads it
    beside the covariance. It is kept apart in ``first_order``, as is the first-order branch of a network with
    ``fusion``. Computed in float64 on the CPU from the head on; a head whose published gradient is an approximation is
    given the exact one.

    Args:
        model: with a head that works on a covariance or second moment; its mode and gradients are left as they were.
        image: preprocessed, ``(3, H, W)``.
        label: number of the class.

    Raises:
        ZooError: if the head is no function of a covariance alone (``gap``, ``mgcrp``, ``moment_probing``,
            ``gamma_democratic``, heads of clips), see :func:`feature_attribution`; or the label is no class.

    Source: gradient × input is Shrikumar et al., ICML 2017, section 2; for bilinear forms, layer-wise relevance of
    pairs, Eberle et al., "Building and Interpreting Deep Similarity Models", TPAMI 2022.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "isqrt", 3, dim=4, until="layer1").eval()
    >>> image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> view = second_order(model, image, label=1)
    >>> half = (view.logit - float(model.classifier.bias[1])) / 2  # the square root has degree ½
    >>> torch.allclose(view.map.sum(), torch.tensor(half).double(), rtol=1e-3)
    True
    """
    name = model.head.name
    remedy = "use feature_attribution (gradient × features), which works for every head of images"
    _check(model, image, label)
    if not hasattr(model.head, "normalize"):
        raise ZooError(f"head {name} forms no covariance: {remedy}")
    with evaluating(model):
        f = _features(model, image)
        twin = _exact_twin(model, name, remedy)
        seen: list[Tensor] = []
        normalize = twin.head.normalize

        def watched(x: Tensor) -> Tensor:
            seen.append(x.detach().requires_grad_())
            return normalize(seen[0])

        twin.head.normalize = watched
        twin.head.register_forward_pre_hook(lambda _, inputs: tuple(x.detach() for x in inputs))
        with torch.enable_grad():
            f.requires_grad_()
            logit = twin.forward_head(f)[0, label]
            gradient, direct = torch.autograd.grad(logit, [seen[0], f], allow_unused=True)
    x, h, w = seen[0].detach(), *_grid(model, f, image)
    prefix = model.backbone.num_prefix_tokens
    skipped = prefix if model.fusion == "all" else 0  # tokens that are no position
    if x.shape[2] != h * w + skipped:
        raise ZooError(f"head {name} forms its covariance of {x.shape[2]} vectors for {h * w} positions: {remedy}")
    mean = gradient.sum(2, keepdim=True) if twin.head.centered else torch.zeros_like(gradient[:, :, :1])
    c = centered(x) if twin.head.centered else x
    within = gradient - mean / x.shape[2]
    if not is_of_covariance(c, within):
        raise ZooError(f"head {name} is no function of the covariance alone: {remedy}")
    g = matrix_gradient(c, within)
    covariance = c @ c.mT / x.shape[2]
    first = (mean * x).sum((0, 1))[skipped:].reshape(h, w) / x.shape[2]
    if direct is not None:
        first = first + (direct * f.detach())[0, :, prefix:].sum(0).reshape(h, w)
    return SecondOrderView(
        logit=float(logit.detach()),
        map=(c * within / 2).sum((0, 1))[skipped:].reshape(h, w),
        contributions=torch.block_diag(*(g * covariance)),
        covariance=torch.block_diag(*covariance),
        gradient=torch.block_diag(*g),
        features=c.flatten(0, 1)[:, skipped:].reshape(-1, h, w),
        first_order=first if first.abs().sum() > 1e-9 * gradient.abs().sum() else None,
    )


def feature_attribution(model: GCPNet, image: Tensor, label: int) -> Tensor:
    r"""Attribute a class's logit to the positions of the backbone's features, by gradient × input, for every head.

    .. math:: m(p) = \sum_i x_{ip} \frac{\partial z_c}{\partial x_{ip}}

    For ``gap`` with a linear classifier and no reduction the sum over the positions is exact, :math:`z_c - b_c`.

    Args:
        model: of images; its mode and gradients are left as they were.
        image: preprocessed, ``(3, H, W)``.
        label: number of the class.

    Returns:
        ``(h, w)`` in float64, in units of the logit; class tokens, which are no position, are left out.

    Raises:
        ZooError: if the head reads clips, or the label is no class.

    Source: Shrikumar et al., "Learning Important Features Through Propagating Activation Differences", ICML 2017,
    section 2.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 3, until="layer1").eval()
    >>> image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> logit = model(image[None])[0, 1] - model.classifier.bias[1]
    >>> torch.allclose(feature_attribution(model, image, 1).sum().float(), logit, rtol=1e-3)
    True
    """
    _check(model, image, label)
    with evaluating(model):
        f = _features(model, image).requires_grad_()
        twin = _twin(model)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(twin.forward_head(f)[0, label], f)
    product = (f.detach() * gradient)[0, :, model.backbone.num_prefix_tokens :].sum(0)
    return product.reshape(_grid(model, f, image))


def grad_cam(model: GCPNet, image: Tensor, label: int) -> Tensor:
    r"""Mark what speaks for a class by Grad-CAM on the backbone's features, computed by the package ``grad-cam``.

    .. math:: \operatorname{ReLU}\Bigl(\sum_i \alpha_i x_{ip}\Bigr),\qquad
              \alpha_i = \tfrac1M\sum_p \frac{\partial z_c}{\partial x_{ip}}

    Args:
        model: of images; its mode and gradients are left as they were.
        image: preprocessed, ``(3, H, W)``.
        label: number of the class.

    Returns:
        ``(H, W)``, from 0 to 1 in each image.

    Raises:
        ModuleNotFoundError: without the extra ``explain``.
        ZooError: if the head reads clips, or the label is no class.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization",
    ICCV 2017.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "isqrt", 3, dim=4, until="layer1")
    >>> grad_cam(model, torch.rand(3, 32, 32), label=1).shape
    torch.Size([32, 32])
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    _check(model, image, label)
    prefix = model.backbone.num_prefix_tokens

    def as_map(f: Tensor) -> Tensor:
        return f[:, :, prefix:].reshape(*f.shape[:2], *_grid(model, f, image))

    parameter = next(model.parameters())
    x = image.detach()[None].to(parameter.device, parameter.dtype).requires_grad_()
    with (
        evaluating(model),
        _without_gradients(model),
        torch.enable_grad(),
        GradCAM(model, [model.backbone], reshape_transform=as_map) as cam,
    ):
        marked = cam(x, [ClassifierOutputTarget(label)])
    return torch.from_numpy(marked)[0]


def _check(model: GCPNet, image: Tensor, label: int) -> None:
    if model.head.frames > 1:
        raise ZooError(f"head {model.head.name} reads clips of {model.head.frames} frames: only images are explained")
    if image.ndim != 3:
        raise ZooError(f"an image to explain must be (3, H, W), got shape {tuple(image.shape)}")
    if not 0 <= label < model.num_classes:
        raise ZooError(f"label must be between 0 and {model.num_classes - 1}, got {label}")


@torch.no_grad()
def _features(model: GCPNet, image: Tensor) -> Tensor:
    """Features ``(1, C, h, w)`` of the backbone, computed in its own precision, in float64."""
    parameter = next(model.parameters())
    f = model.forward_features(image[None].to(parameter.device, parameter.dtype))
    return f.to("cpu", torch.float64)


def _twin(model: GCPNet) -> Any:
    """Copy everything after the backbone, in float64 on the CPU."""
    twin: Any = copy.deepcopy(model, {id(model.backbone): model.backbone})
    for name, part in twin.named_children():
        if name != "backbone":
            part.to("cpu", torch.float64).requires_grad_(False)
    twin.head.recompute = False
    return twin


def _exact_twin(model: GCPNet, name: str, remedy: str) -> Any:
    """Copy everything after the backbone, with exact gradients in place of published approximations."""
    twin = _twin(model)
    root = str(getattr(twin.head, "root", ""))
    if root == "svd_topn":
        raise ZooError(f"head {name} removes eigenvalues, which has no gradient: {remedy}")
    if root.startswith("svd_"):
        twin.head.switch_root("exact")
    elif getattr(twin.head, "backward", "exact") != "exact":  # seb
        twin.head.backward, twin.head.parity = "exact", None
    return twin


def _grid(model: GCPNet, f: Tensor, image: Tensor) -> tuple[int, int]:
    """Rows and columns of the positions; tokens are laid out as the image is."""
    h, w = f.shape[2:]
    if w > 1:
        return h, w
    n, (height, width) = h - model.backbone.num_prefix_tokens, image.shape[1:]
    rows = max(1, round(math.sqrt(n * height / width)))
    columns = n // rows
    if rows * columns != n:
        raise ZooError(f"{n} tokens of an image of {width}×{height} px do not make a grid: they have no place to show")
    return rows, columns


@contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    """Keep the gradients of a network's parameters from what a backward pass would write, and clear."""
    kept = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    try:
        for p, _, _ in kept:
            p.grad = None
            p.requires_grad_(False)
        yield
    finally:
        for p, required, gradient in kept:
            p.requires_grad_(required)
            p.grad = gradient
