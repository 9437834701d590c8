"""Decorrelated batch normalization: channels are whitened by an approximate inverse root of their covariance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gcpzoo.errors import ZooError
from gcpzoo.functional import covariance, mpa_sqrt
from gcpzoo.functional.checks import check_count, check_name, check_positive
from gcpzoo.functional.precision import at_least_float32, without_autocast


class ZCAWhitening(nn.Module):
    r"""Batch normalization that takes the correlation of channels away too, in groups of them.

    .. math:: y = w \odot (R^{-1}X_c) + b,\qquad R \approx \Bigl(\tfrac{1}{NHW}X_cX_c^\top + \epsilon I\Bigr)^{1/2}

    with the root of :func:`~gcpzoo.functional.mpa_sqrt` and its Lyapunov gradient, for each group by itself. In
    evaluation the running averages of the mean and of :math:`R^{-1}` take their place. Several processes whiten each
    its own part of a batch.

    Args:
        channels: C of ``(N, C, H, W)``.
        groups: groups of neighbouring channels.
        eps: ε.
        momentum: weight of a batch in the running averages.

    When to use: to reproduce the paper. The approximant is far from the root for small eigenvalues, so that the
    output's covariance differs from I by 0.2 to 0.8 of its norm; ε alone takes part of that.

    Released code: draws w from [0, 1) instead of starting at 1, and has w, b and the mean in the shape (g, C/g, 1).

    >>> x = torch.randn(8, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    >>> x[:, 1] += x[:, 0]  # correlation 0.7
    >>> float(torch.corrcoef(ZCAWhitening(2)(x).transpose(0, 1).flatten(1))[0, 1].abs()) < 0.01
    True

    Source: Song et al., "Fast Differentiable Matrix Square Root", ICLR 2022; decorrelated batch normalization: Huang
    et al., CVPR 2018.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        "weight": "weight",
        "bias": "bias",
        "running_mean": "running_mean",
        "running_subspace": "running_whitening",
    }
    running_mean: Tensor
    running_whitening: Tensor

    def __init__(self, channels: int, groups: int = 1, eps: float = 1e-2, momentum: float = 0.1) -> None:
        super().__init__()
        check_count("channels", channels)
        check_count("groups", groups)
        check_positive("eps", eps)
        if channels % groups:
            raise ZooError(f"groups must divide the {channels} channels, got {groups}")
        self.groups, self.eps, self.momentum = groups, eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_whitening", torch.eye(channels // groups).repeat(groups, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.training and n * h * w < 2:
            raise ZooError(f"zca_whitening needs more than 1 value per channel in training, got {tuple(x.shape)}")
        with without_autocast(x):
            rows = at_least_float32(x).transpose(0, 1).reshape(self.groups, c // self.groups, n * h * w)
            if self.training:
                mean = rows.mean(2, keepdim=True)
                rows = rows - mean
                sigma = covariance(rows, center=False)
                sigma = sigma + self.eps * torch.eye(sigma.shape[1], dtype=sigma.dtype, device=sigma.device)
                whitening = torch.linalg.inv(mpa_sqrt(sigma))
                with torch.no_grad():
                    self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), self.momentum)
                    self.running_whitening.lerp_(whitening.to(self.running_whitening.dtype), self.momentum)
            else:
                rows = rows - self.running_mean.view(self.groups, -1, 1)
                whitening = self.running_whitening.to(rows.dtype)
            y = (whitening @ rows) * self.weight.view(self.groups, -1, 1) + self.bias.view(self.groups, -1, 1)
        out: Tensor = y.reshape(c, n, h, w).transpose(0, 1).to(x.dtype)
        return out


def insert_zca_whitening(backbone: nn.Module, layers: Sequence[str] = ("bn1",), groups: int = 1) -> nn.Module:
    """Put :class:`ZCAWhitening` in the place of batch normalizations of a network, in place.

    It starts with their weights and means, and with the inverse of each channel's own standard deviation, so that a
    pretrained network computes in evaluation what it did.

    Args:
        backbone: a network.
        layers: paths of its batch normalizations, by default the first one of a torchvision ResNet, as in the paper.
        groups: see :class:`ZCAWhitening`; it must divide the channels of all layers.

    Returns:
        ``backbone``.

    Raises:
        ZooError: a path that names no batch normalization, or groups that do not divide the channels.

    >>> from torchvision.models import resnet18
    >>> type(insert_zca_whitening(resnet18(), groups=4).bn1).__name__
    'ZCAWhitening'
    """
    if isinstance(layers, str) or not layers:
        raise ZooError(f"zca_whitening: layers must be a list of paths such as [bn1], got {layers!r}")
    norms: dict[str, Any] = {n: m for n, m in backbone.named_modules() if type(m) is nn.BatchNorm2d}
    for path in layers:
        check_name("batch normalization for zca_whitening", path, norms)
        old = norms[path]
        new = ZCAWhitening(old.num_features, groups).train(old.training)
        new.weight, new.bias, new.running_mean = old.weight, old.bias, old.running_mean
        new.running_whitening = torch.diag_embed((old.running_var + old.eps).rsqrt().view(groups, -1))
        parent, _, name = path.rpartition(".")
        setattr(backbone.get_submodule(parent), name, new)
    return backbone
