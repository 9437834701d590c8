"""Adapters of a frozen vision transformer (PSRP)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock

from gcpzoo.errors import ZooError
from gcpzoo.functional.checks import check_count


class PSRP(nn.Module):
    r"""Recalibration of an MLP's output m: scale and shift from the tokens x before it, by partly shared matrices.

    .. math:: W_b a + (1 + W_u a)\odot m,\qquad a = \operatorname{ReLU}(W_d x)

    Scale and shift share :math:`W_d`; no layer has a bias.

    Args:
        channels: C of the tokens ``(..., C)``.
        dim: rows of :math:`W_d`.

    Released code: starts all three matrices from a normal distribution with σ = 0.02, as here; the effect at the start
    is small, not zero. On ConvNeXt it feeds x = m instead.

    >>> import torch
    >>> PSRP(32, dim=4)(torch.ones(2, 6, 32), torch.ones(2, 6, 32)).shape
    torch.Size([2, 6, 32])

    Source: Gao et al., "Tuning Pre-trained Model via Moment Probing", ICCV 2023, section 3.2.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {"down": "down", "up_weight": "scale", "up_bias": "shift"}

    def __init__(self, channels: int, dim: int = 16) -> None:
        super().__init__()
        self.down = nn.Linear(channels, dim, bias=False)
        self.scale = nn.Linear(dim, channels, bias=False)
        self.shift = nn.Linear(dim, channels, bias=False)
        for layer in (self.down, self.scale, self.shift):
            nn.init.trunc_normal_(layer.weight, std=0.02)

    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        a = F.relu(self.down(x))
        out: Tensor = self.shift(a) + (1 + self.scale(a)) * m
        return out


class PSRPBlock(nn.Module):
    """A block of a vision transformer with :class:`PSRP` on its MLP; its parameters keep their names.

    Args:
        block: of torchvision's or timm's ``VisionTransformer``.
        psrp: for as many channels as the block has.

    >>> import torch
    >>> block = EncoderBlock(num_heads=2, hidden_dim=8, mlp_dim=16, dropout=0.0, attention_dropout=0.0)
    >>> PSRPBlock(block, PSRP(8, dim=4))(torch.ones(2, 6, 8)).shape
    torch.Size([2, 6, 8])
    """

    def __init__(self, block: nn.Module, psrp: PSRP) -> None:
        super().__init__()
        for name, module in block.named_children():
            self.add_module(name, module)
        self.psrp = psrp
        self.of_torchvision = isinstance(block, EncoderBlock)

    def forward(self, x: Tensor, **masks: Any) -> Tensor:
        block: Any = self  # with the children of the library's block
        if self.of_torchvision:
            y = block.ln_1(x)
            x = x + block.dropout(block.self_attention(y, y, y, need_weights=False)[0])
            branch = self.psrp(x, block.mlp(block.ln_2(x)))
        else:
            x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x), **masks)))
            branch = block.drop_path2(block.ls2(self.psrp(x, block.mlp(block.norm2(x)))))
        out: Tensor = x + branch
        return out


def insert_psrp(backbone: nn.Module, dim: int = 16) -> nn.Module:
    """Put a :class:`PSRP` adapter on the MLP of each block of a vision transformer, in place.

    With the head ``moment_probing`` this is MP+. Adapters are trained in a frozen backbone too.

    Args:
        backbone: a module with the blocks of torchvision's ``VisionTransformer`` (``vit_b_16``), or of timm's
            (``timm:vit_*``, ``timm:deit_*``).
        dim: rows of the shared matrix.

    Returns:
        ``backbone``.

    Raises:
        ZooError: another kind of network.

    >>> from torchvision.models import VisionTransformer
    >>> net = VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16)
    >>> [type(block).__name__ for block in insert_psrp(net, dim=4).encoder.layers]
    ['PSRPBlock', 'PSRPBlock']

    Source: Gao et al., "Tuning Pre-trained Model via Moment Probing", ICCV 2023, section 3.2.
    """
    from timm.models.vision_transformer import Block  # slow to import

    check_count("dim", dim)
    found = [
        (parent, name, child)
        for parent in backbone.modules()
        for name, child in parent.named_children()
        if type(child) in (Block, EncoderBlock)  # a subclass may compute something else
    ]
    if not found:
        raise ZooError(
            "psrp: the backbone has no blocks of torchvision's or timm's VisionTransformer (vit_b_16, timm:vit_*, "
            "timm:deit_*)"
        )
    with torch.random.fork_rng(devices=[]):
        for parent, name, block in found:
            norm: Any = block.ln_2 if isinstance(block, EncoderBlock) else block.norm2
            setattr(parent, name, PSRPBlock(block, PSRP(norm.normalized_shape[0], dim)))
    return backbone
