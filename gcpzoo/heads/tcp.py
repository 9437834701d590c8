"""Temporal-attentive covariance pooling of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcpzoo.errors import ZooError
from gcpzoo.functional.checks import check_choice, check_count
from gcpzoo.heads.base import RootHead
from gcpzoo.heads.registry import register


class SpatialAttention(nn.Module):
    r"""Attention between the positions of the two frames before (TSA), ``(B, T, d, P)`` to the same shape.

    .. math:: y_t = x_t + \mathrm{BN}\Bigl(\phi_0x_t\,
              \operatorname{softmax}\bigl((\phi_1x_{t-1})^\top\phi_2x_{t-2}/\sqrt d\bigr)^\top\Bigr)

    The first frame stands for those before it; :math:`\phi` are 1×1 convolutions.

    >>> import torch
    >>> SpatialAttention(8)(torch.ones(2, 4, 8, 9)).shape
    torch.Size([2, 4, 8, 9])
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {"conv_phi0": "value", "conv_phi_1": "query", "conv_phi_2": "key"}

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value, self.query, self.key = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.norm = nn.BatchNorm2d(channels)
        for phi in (self.value, self.query, self.key):
            nn.init.kaiming_normal_(phi.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(phi.bias)  # type: ignore[arg-type]  # it has one
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d, p = x.shape

        def applied(layer: nn.Module, before: int) -> Tensor:
            frames = torch.cat([x[:, :1]] * min(before, t) + [x[:, : max(t - before, 0)]], 1)
            mapped: Tensor = layer(frames.reshape(b * t, d, p, 1))
            return mapped.reshape(b, t, d, p).mT

        y = F.scaled_dot_product_attention(applied(self.query, 1), applied(self.key, 2), applied(self.value, 0)).mT
        normed: Tensor = self.norm(y.reshape(b * t, d, p, 1))
        return x + normed.reshape(b, t, d, p)


class ChannelAttention(nn.Module):
    r"""Weights of the channels of each frame by how their means change (TCA), ``(B, T, d, P)`` to ``(B, T, d, 1)``.

    .. math:: \tfrac12\Bigl(g(m_t - m_{t-1}) + g\bigl(\tfrac12(m_t - m_{t-2})\bigr)\Bigr),\qquad
              g(m) = \operatorname{sigmoid}(G_2\operatorname{ReLU}(G_1m))

    with the mean :math:`m_t` over positions; the last frames come before the first. G are 1×1 convolutions with 4d
    channels between them.

    >>> import torch
    >>> ChannelAttention(8)(torch.ones(2, 4, 8, 9)).shape
    torch.Size([2, 4, 8, 1])
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {"g1": "expand", "g2": "contract"}

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand, self.contract = nn.Conv2d(channels, 4 * channels, 1), nn.Conv2d(4 * channels, channels, 1)
        for layer in (self.expand, self.contract):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, x: Tensor) -> Tensor:
        b, t, d, _ = x.shape
        m = x.mean(3)
        changes = torch.stack([m - m.roll(1, 1), (m - m.roll(2, 1)) / 2])
        hidden = F.relu(self.expand(changes.reshape(2 * b * t, d, 1, 1)))
        weights: Tensor = self.contract(hidden).sigmoid()
        return weights.reshape(2, b, t, d, 1).mean(0)


class TemporalAttention(nn.Module):
    r"""Attention across the frames of a clip, ``(B, T, d, P)`` to the same shape.

    .. math:: \operatorname{ReLU}\bigl(x + K * (\mathrm{TCA}(x)\cdot\mathrm{TSA}(x))\bigr)

    K is a convolution along time with a kernel of ⌊T/2⌋ + 1 frames and circular padding that keeps T. At the start it
    is zero: the attention is the identity for x ≥ 0.

    Args:
        channels: d.
        frames: T.

    >>> import torch
    >>> x = torch.rand(2, 4, 8, 9)
    >>> torch.equal(TemporalAttention(8, frames=4)(x), x)
    True
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        "conv_1d": "temporal",
        **{f"TSA.{theirs}": f"spatial.{ours}" for theirs, ours in SpatialAttention.RELEASED_NAMES.items()},
        "TSA.norm": "spatial.norm",
        **{f"TCA.{theirs}": f"channel.{ours}" for theirs, ours in ChannelAttention.RELEASED_NAMES.items()},
    }

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.spatial, self.channel = SpatialAttention(channels), ChannelAttention(channels)
        self.temporal = nn.Conv3d(channels, channels, (frames // 2 + 1, 1, 1))
        nn.init.zeros_(self.temporal.weight)
        nn.init.zeros_(self.temporal.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, x: Tensor) -> Tensor:
        y = (self.channel(x) * self.spatial(x)).transpose(1, 2)  # (B, d, T, P)
        t, kernel = y.shape[2], self.temporal.kernel_size[0]
        before, after = kernel // 2, (kernel - 1) // 2
        y = torch.cat([y[:, :, t - before :], y, y[:, :, :after]], 2)
        return F.relu(x + self.temporal(y[..., None])[..., 0].transpose(1, 2))


@register("tcp")
class TemporalCovariancePooling(RootHead):
    r"""TCP: attention across the frames of a clip, then one covariance of all their positions and its root.

    .. math:: \operatorname{tri}\bigl(\sqrt{t}\;\mathrm{NS}_N(\Sigma/t)\bigr),\qquad t = \operatorname{tr}\Sigma,

    with Σ over the M = T·h·w positions of a clip's T frames. Output size d(d+1)/2, 8256 for d = 128.

    ``head(x)`` reads frames ``(B·T, C, h, w)``, the T frames of a clip one after the other, and gives ``(B, …)``;
    weights of positions are ``(B, T·h·w)``. In a model the backbone sees each frame alone; ``model.forward_clips`` (or
    ``model(clips)``) reads clips ``(B, T, 3, H, W)``, and images in their place are refused::

        model = create_model("resnet50", "tcp", 400, dim=[256, 128], head_args={"frames": 8}, dropout=0.5)

    Args:
        in_features: channels of the feature maps.
        dim: channels after the reduction; a model's ``"auto"`` is ``[256, 128]`` as published.
        frames: T; 1: an image is a clip.
        attention: put the attention before the pooling.
        root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`.

    When to use: to classify clips with a backbone for images.

    Released code: chooses the padding of the temporal convolution by comparing versions of PyTorch as text, which fails
    from version 2.10 on; its kernels for T = 6 and 10, which are even, change the number of frames. Here the circular
    padding has one frame more before than after an even kernel. Positions can be weighed without attention only: it
    mixes them. At the start the attention is the identity.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> head = create_head("tcp", in_features=32, dim=[16, 8], frames=4).eval()
    >>> head(torch.ones(2 * 4, 32, 3, 3)).shape
    torch.Size([2, 36])

    Source: Gao et al., "Temporal-attentive Covariance Pooling Networks for Video Recognition", NeurIPS 2021.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        "layer_reduce1": "reduction.0",
        "layer_reduce_bn1": "reduction.1",
        "layer_reduce2": "reduction.3",
        "layer_reduce_bn2": "reduction.4",
        **{f"TCP_att.{theirs}": f"attention.{ours}" for theirs, ours in TemporalAttention.RELEASED_NAMES.items()},
    }
    default_dim: ClassVar[int | Sequence[int] | None] = (256, 128)

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        frames: int = 1,
        attention: bool = True,
        root: str | None = None,
        iterations: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, dim, root, iterations, **kwargs)
        check_count("frames", frames)
        check_choice("attention", attention, (True, False))
        self.frames = frames
        with torch.random.fork_rng(devices=[]):
            self.attention = TemporalAttention(self.dim, frames) if attention else None

    def reduce(self, x: Tensor, tokens: bool = False, weights: Tensor | None = None) -> Tensor:
        """Reduce the channels of the frames and apply the attention.

        Args:
            x: ``(B·T, C, h, w)``, or ``(B·T, C, M)``, of a floating-point dtype.
            tokens: ``x`` is ``(B·T, N, C)`` instead.
            weights: ``(B, T·M)``, see :meth:`Head.reduce`.

        Returns:
            ``(B, dim, T, h·w)``.

        Raises:
            ZooError: another shape or dtype, or frames that do not make whole clips.

        >>> import torch
        >>> from gcpzoo.heads import create_head
        >>> create_head("tcp", in_features=8, frames=4).reduce(torch.ones(12, 8, 3, 3)).shape
        torch.Size([3, 8, 4, 9])
        """
        if x.ndim and x.shape[0] % self.frames:
            raise ZooError(
                f"tcp with frames={self.frames} expects whole clips, a multiple of {self.frames} maps, got {x.shape[0]}"
            )
        x = super().reduce(x, tokens, weights)
        clips = x.reshape(x.shape[0] // self.frames, self.frames, self.dim, x.shape[2] * x.shape[3])
        if self.attention is not None:
            clips = self.attention(clips)
        return clips.transpose(1, 2)

    def forward(self, x: Tensor, tokens: bool = False, weights: Tensor | None = None) -> Tensor:
        if weights is not None and self.attention is not None:
            raise ZooError(
                "tcp weighs positions without attention only, which mixes them: create it with attention=False, "
                "or leave out weights"
            )
        return super().forward(x, tokens, weights)
