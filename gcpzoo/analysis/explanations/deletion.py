"""Attributions checked by deletion: hiding what is marked must lower the class more than hiding as much at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from gcpzoo.errors import ZooError
from gcpzoo.functional.checks import check_choice, check_count
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.surgery import evaluating

FILLS = ("blur", "mean")


@dataclass(frozen=True)
class Deletion:
    """Probability of each image's class, ``(N,)``: of the whole image, and with positions hidden.

    Attributes:
        whole: of the image as it is.
        marked: without the positions that are marked highest.
        random: without as many random ones, averaged over the draws.

    >>> Deletion(torch.tensor([0.9]), torch.tensor([0.2]), torch.tensor([0.8])).advantage
    tensor([0.6000])
    """

    whole: Tensor
    marked: Tensor
    random: Tensor

    @property
    def advantage(self) -> Tensor:
        """How much more the marked positions lower the class than random ones: the drops' difference."""
        return self.random - self.marked


def cover(image: Tensor, fill: str = "blur") -> Tensor:
    """Make what takes the place of hidden positions, an image of the same shape.

    Args:
        image: preprocessed, ``(3, H, W)``.
        fill: ``blur``, a Gaussian blur whose σ is an eighth of the shorter side, or ``mean``, the mean color.

    >>> cover(torch.tensor([[[1.0, 2.0, 3.0, 6.0]]]), "mean")
    tensor([[[3., 3., 3., 3.]]])
    """
    check_choice("fill", fill, FILLS)
    if fill == "mean":
        return image.mean((1, 2), keepdim=True).expand_as(image)
    sigma = min(image.shape[1:]) / 8
    height, width = (2 * min(round(3 * sigma), side - 1) + 1 for side in image.shape[1:])
    across: Tensor = gaussian_blur(image, [width, 1], [sigma, sigma])  # one direction at a time: the same, faster
    return gaussian_blur(across, [1, height], [sigma, sigma])


def hide(image: Tensor, hidden: Tensor, other: Tensor) -> Tensor:
    """Hide positions of an image behind another image.

    Args:
        image: preprocessed, ``(3, H, W)``.
        hidden: which positions of the feature map, bool ``(h, w)``; each stands for its rectangle of the image.
        other: what takes their place, see :func:`cover`.

    >>> hide(torch.tensor([[[1.0, 2.0, 3.0, 6.0]]]), torch.tensor([[True, False]]), torch.zeros(1, 1, 4))
    tensor([[[0., 0., 3., 6.]]])
    """
    where = F.interpolate(hidden[None, None].float(), image.shape[1:], mode="nearest-exact")[0, 0] > 0.5
    return torch.where(where, other, image)


@torch.no_grad()
def deletion(
    model: GCPNet,
    images: Sequence[Tensor],
    maps: Sequence[Tensor],
    labels: Sequence[int],
    share: float = 0.2,
    fill: str = "blur",
    draws: int = 5,
    seed: int = 0,
) -> Deletion:
    r"""Hide the highest-marked positions of images, and as many random ones, and measure the class's probability.

    Args:
        model: whose evaluation this is; its mode is left as it was.
        images: preprocessed, each ``(3, H, W)``.
        maps: an attribution of each, ``(h, w)`` on the grid of the positions.
        labels: the class that each was made for.
        share: of the positions to hide; their number is rounded, and at least 1.
        fill: as in :func:`cover`.
        draws: random choices of positions for each image.
        seed: of the random choices.

    Raises:
        ZooError: if there are no images, the lengths differ, or the share is not between 0 and 1.

    Source: the deletion metric is Petsiuk et al., "RISE", BMVC 2018, section 4.3; here at a fixed share, beside chance.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "isqrt", 3, dim=4, until="layer1")
    >>> measured = deletion(model, [torch.rand(3, 32, 32)], [torch.rand(8, 8)], labels=[0])
    >>> measured.whole.shape
    torch.Size([1])
    """
    if not images or not len(images) == len(maps) == len(labels):
        raise ZooError(f"a map and a label for each image, got {len(images)}, {len(maps)} and {len(labels)}")
    if not 0 < share < 1:
        raise ZooError(f"share must be between 0 and 1, got {share}")
    check_count("draws", draws)
    generator = torch.Generator().manual_seed(seed)
    parameter = next(model.parameters())
    rows = []
    with evaluating(model):
        for image, marks, label in zip(images, maps, labels):
            n = max(1, round(share * marks.numel()))
            choices = [marks.flatten().argsort(descending=True)[:n]]
            choices += [torch.randperm(marks.numel(), generator=generator)[:n] for _ in range(draws)]
            views, other = [image], cover(image, fill)
            for chosen in choices:
                hidden = torch.zeros(marks.numel(), dtype=torch.bool)
                hidden[chosen.cpu()] = True
                views.append(hide(image, hidden.view(marks.shape), other))
            p = model(torch.stack(views).to(parameter.device, parameter.dtype)).double().softmax(1)[:, label].cpu()
            rows.append(torch.stack([p[0], p[1], p[2:].mean()]))
    return Deletion(*torch.stack(rows).unbind(1))
