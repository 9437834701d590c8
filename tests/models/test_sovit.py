"""DropCov's transformers: the released networks' sizes, what they refuse, and how they train."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.models import create_backbone, list_backbones
from gcpzoo.models.sovit import SIZES, SoViT, sinusoids

HEAD = {"normalization": None, "token_dropout": 0.2, "dropout": 0.5}


def small(**arguments: float) -> SoViT:
    torch.manual_seed(0)
    return SoViT(8, depth=3, heads=2, mlp_ratio=2, **{"image_size": 48, **arguments})  # type: ignore[arg-type]


def images(n: int = 2, side: int = 48) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "heads", "head_dim", "released"),
    [
        ("tiny", 6, 14, 8_057_408),
        ("small", 6, 24, 25_668_656),
        ("base", 12, 24, 93_879_728),
        ("14", 6, 24, 25_081_136),
    ],
)
def test_parameters_are_the_released_networks(name: str, heads: int, head_dim: int, released: int) -> None:
    """The released code also counts its fixed positions and a projection that nothing uses."""
    args = {"heads": heads, "head_dim": head_dim, **HEAD}
    with torch.device("meta"):
        model = gcpzoo.create_model(f"sovit_drop_{name}", "mgcrp", 1000, head_args=args, fusion="sum")
    channels = model.backbone.num_features
    unused = 197 * channels + heads * head_dim * channels
    assert sum(p.numel() for p in model.parameters()) + unused == released


def test_all_sizes_are_listed_and_give_their_class_token_first() -> None:
    assert set(SIZES) < set(list_backbones())
    backbone = create_backbone("sovit_drop_tiny", image_size=64)
    assert (backbone.num_features, backbone.num_prefix_tokens, backbone.input_size) == (240, 1, 64)
    with torch.inference_mode():
        assert backbone.eval()(images(1, 64)).shape == (1, 240, 1 + 16, 1)
    assert create_backbone("sovit_drop_tiny").input_size == 224


def test_positions_are_fixed_and_not_in_the_state_dict() -> None:
    net = small()
    assert torch.equal(net.positions, sinusoids(10, 8))
    assert not [key for key in net.state_dict() if "positions" in key]
    assert torch.allclose(net.positions[0], torch.tensor([0.0, 1.0]).repeat(4))
    second = torch.tensor([math.sin(0.2), math.cos(0.2)])  # 2 · 10000^(-2/8)
    assert torch.allclose(net.positions[2, 2:4], second)


def test_weights_of_one_image_size_serve_another() -> None:
    net = small()
    larger = small(image_size=64)
    larger.load_state_dict(net.state_dict(), strict=True)
    assert larger.eval()(images(1, 64)).shape == (1, 8, 17, 1)


@pytest.mark.parametrize("shape", [(32, 32), (32, 72), (48, 64)])
def test_images_of_another_size_are_refused_also_with_as_many_tokens(shape: tuple[int, int]) -> None:
    with pytest.raises(ZooError, match=rf"expects images of 48×48 px, got {shape[1]}×{shape[0]}: set backbone_args"):
        small()(torch.zeros(1, 3, *shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 100}, "image_size must be a multiple of 16, got 100"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"image_size": 2**20}, "image_size must be at most 2048, got 1048576"),
        ({"drop_path_rate": 2}, "drop_path_rate must be a number between 0 and 1, got 2"),
        ({"depth": 3}, "has the arguments drop_path_rate and image_size, got 'depth'"),
        ({"until": "blocks"}, "cannot be cut"),
        ({"pretrained": True}, "has no pretrained weights of its own"),
        ({"last_stride": 1}, "no last stage whose stride could be 1"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create_backbone("sovit_drop_tiny", **arguments)


def test_blocks_are_skipped_in_training_at_a_rate_that_grows() -> None:
    net = small(drop_path_rate=0.4)
    rates = [getattr(block.drop_path1, "drop_prob", 0) for block in net.blocks]
    assert rates == pytest.approx([0, 0.2, 0.4])
    x = images()
    assert torch.equal(net.eval()(x), net(x))
    assert not torch.equal(net.train()(x), net(x))


def test_a_model_trains_with_both_dropouts_and_evaluates_without() -> None:
    args = {"heads": 2, "head_dim": 3, **HEAD}
    torch.manual_seed(0)
    model = gcpzoo.create_model(
        "sovit_drop_tiny", "mgcrp", 5, head_args=args, fusion="sum", backbone_args={"image_size": 32}
    )
    x = images(2, 32)
    model.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert torch.equal(model.eval()(x), model(x))
        again = gcpzoo.GCPNet.from_config(copy.deepcopy(model.config)).eval()
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(x), model(x))
