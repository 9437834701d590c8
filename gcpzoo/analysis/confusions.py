"""Which classes are taken for which, worst first."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Confusion:
    """How many of the images of a class were taken for another.

    >>> Confusion(true=0, predicted=1, count=3, images=12).share
    0.25
    """

    true: int
    predicted: int
    count: int
    images: int

    @property
    def share(self) -> float:
        """Share of the true class's images."""
        return self.count / self.images


def worst_confusions(counts: Tensor, most: int) -> list[Confusion]:
    """List the confusions of most images, of equal ones those of the larger share of their class first.

    Args:
        counts: images of each true class (row) that were predicted as each class (column), ``(n, n)``.
        most: so many at most; fewer where fewer classes are confused.

    >>> import torch
    >>> worst_confusions(torch.tensor([[9, 1], [3, 7]]), most=1)
    [Confusion(true=1, predicted=0, count=3, images=10)]
    """
    images = counts.sum(1).tolist()
    found = [Confusion(i, j, int(counts[i, j]), int(images[i])) for i, j in counts.nonzero().tolist() if i != j]
    return sorted(found, key=lambda c: (-c.count, -c.share, c.true, c.predicted))[:most]
