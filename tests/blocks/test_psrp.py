"""PSRP: the base test, the authors' values, and its place in vision transformers of both libraries."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from module_tester import Compiles, Exports, ModuleTester, golden, noise, our_name, relative
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.models import VisionTransformer, resnet18
from torchvision.models.vision_transformer import EncoderBlock

from gcpzoo.blocks import PSRP, PSRPBlock, insert
from gcpzoo.errors import ZooError
from gcpzoo.models import create_backbone, create_model
from gcpzoo.models.complexity import parameters
from gcpzoo.models.surgery import find_modules, freeze
from gcpzoo.training import ClassificationTask


class OnMaps(nn.Module):
    """A block of tokens on a map (B, C, h, w)."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x.flatten(2).mT)
        return out.mT.reshape(x.shape)


def encoder_block(channels: int) -> nn.Module:
    return EncoderBlock(num_heads=2, hidden_dim=channels, mlp_dim=12, dropout=0.0, attention_dropout=0.0)


def timm_block(channels: int) -> nn.Module:
    return Block(channels, num_heads=2, init_values=0.5)


def adapted(block: nn.Module, channels: int) -> PSRPBlock:
    torch.manual_seed(0)
    psrp = PSRP(channels, dim=4)
    for p in psrp.parameters():
        nn.init.normal_(p)
    return PSRPBlock(block, psrp)


class PSRPTester(ModuleTester):
    half_tolerance = (2e-2, 1e-1)  # everything runs in half precision

    def output_shape(self, module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


class TestTorchvision(Compiles, Exports, PSRPTester):
    def make(self) -> nn.Module:
        return OnMaps(adapted(encoder_block(self.channels), self.channels))


class TestTimm(Compiles, Exports, PSRPTester):
    def make(self) -> nn.Module:
        return OnMaps(adapted(timm_block(self.channels), self.channels))


@pytest.mark.parametrize("case", [c for c in golden("heads2/moment_probing") if "param/down.weight" in c.values[0]])
def test_scale_and_shift_are_the_authors(case: dict[str, Tensor]) -> None:
    psrp = PSRP(32, dim=16)
    names = [key.removeprefix("param/") for key in case if key.startswith("param/")]
    psrp.load_state_dict({our_name(psrp, name): case[f"param/{name}"] for name in names})
    x = case["x"].clone().requires_grad_()
    shift = psrp(x, torch.zeros_like(x))
    scale = psrp(x, torch.ones_like(x)) - shift - 1
    out = torch.cat([scale, shift], 2).flatten(1)
    assert relative(out, case["out"]) < 1e-5
    (out * case["cotangent"]).sum().backward()
    assert relative(x.grad, case["grad"]) < 1e-4
    own = dict(psrp.named_parameters())
    for name in names:
        assert relative(own[our_name(psrp, name)].grad, case[f"grad_param/{name}"]) < 1e-4, name


@pytest.mark.parametrize("make", [encoder_block, timm_block])
def test_without_scale_and_shift_the_block_is_the_plain_one(make: Any) -> None:
    plain = make(8).eval()
    block = adapted(plain, 8).eval()
    x = noise(2, 5, 8)
    assert not torch.allclose(block(x), plain(x))
    nn.init.zeros_(block.psrp.scale.weight)
    nn.init.zeros_(block.psrp.shift.weight)
    assert torch.equal(block(x), plain(x))


@pytest.mark.parametrize("make", [encoder_block, timm_block])
def test_adapter_sees_the_tokens_before_the_norm_and_the_output_of_the_mlp(make: Any) -> None:
    plain = make(8).eval()
    block = adapted(copy.deepcopy(plain), 8).eval()
    seen: list[Tensor] = []
    norm, mlp = (plain.ln_2, plain.mlp) if hasattr(plain, "ln_2") else (plain.norm2, plain.mlp)
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mlp.register_forward_hook(lambda _, __, output: seen.append(output))
    x = noise(2, 5, 8)
    plain(x)
    tokens, m = seen
    a = (tokens @ block.psrp.down.weight.T).relu()
    branch = a @ block.psrp.shift.weight.T + (1 + a @ block.psrp.scale.weight.T) * m
    scaled = plain.ls2(branch) if hasattr(plain, "ls2") else branch
    torch.testing.assert_close(block(x), tokens + scaled)


def test_masks_of_the_attention_reach_it() -> None:
    plain = timm_block(8).eval()
    block = adapted(plain, 8).eval()
    nn.init.zeros_(block.psrp.scale.weight)
    nn.init.zeros_(block.psrp.shift.weight)
    x, mask = noise(2, 5, 8), torch.ones(5, 5).tril().bool()
    assert torch.equal(block(x, attn_mask=mask), plain(x, attn_mask=mask))
    assert not torch.allclose(block(x, attn_mask=mask), block(x))


def test_adapters_start_as_released_and_leave_the_global_random_state_alone() -> None:
    net = VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=512, mlp_dim=8)
    before = torch.get_rng_state()
    insert(net, {"psrp": {}})
    assert torch.equal(before, torch.get_rng_state())
    adapters = [m for m in net.modules() if isinstance(m, PSRP)]
    for layer in (adapters[0].down, adapters[0].scale, adapters[0].shift):
        assert abs(layer.weight.std().item() - 0.02) < 1e-3
    assert not torch.equal(adapters[0].down.weight, adapters[1].down.weight)


def test_weights_of_the_plain_network_keep_their_names() -> None:
    with torch.device("meta"):
        nets = [create_backbone("vit_b_16"), timm.create_model("vit_base_patch16_224", num_classes=0)]
        for net in nets:
            before = {k: v.shape for k, v in net.state_dict().items()}
            plain = parameters(net)
            insert(net, {"psrp": {"dim": 16}})
            after = {k: v.shape for k, v in net.state_dict().items()}
            assert before == {k: v for k, v in after.items() if ".psrp." not in k}
            assert parameters(net) - plain == 442_368  # what MP+ adds


@pytest.mark.parametrize("backbone", ["vit_b_16", "timm:test_vit"])
def test_network_with_adapters_gives_logits(backbone: str) -> None:
    model = create_model(
        backbone, "moment_probing", 3, head_args={"head_dim": 8}, fusion="mean", blocks={"psrp": {"dim": 4}},
    ).eval()  # fmt: skip
    size = model.backbone.input_size
    with torch.no_grad():
        assert model(noise(1, 3, size, size)).shape == (1, 3)


def test_frozen_backbone_trains_nothing_but_its_adapters() -> None:
    task = ClassificationTask(
        num_classes=3, backbone="timm:test_vit", head="moment_probing", fusion="mean", frozen=["backbone"],
        blocks={"psrp": {"dim": 4}},
    )  # fmt: skip
    trained = {name for name, p in task.model.named_parameters() if p.requires_grad}
    assert not any(name.startswith("backbone.") and ".psrp." not in name for name in trained)
    assert any(".psrp." in name for name in trained)
    assert {name.split(".")[0] for name in trained} == {"backbone", "head", "classifier", "first_classifier"}


def test_the_whole_backbone_has_a_name_of_its_own() -> None:
    backbone = create_backbone("timm:test_vit")
    assert find_modules(backbone, ["backbone"]) == [backbone]
    freeze([backbone])
    assert not any(p.requires_grad for p in backbone.parameters())  # the class token too


@pytest.mark.parametrize(
    ("net", "blocks", "message"),
    [
        (resnet18, {"psrp": {}}, "psrp: the backbone has no blocks of torchvision's or timm's VisionTransformer"),
        (lambda: adapted(timm_block(8), 8), {"psrp": {"dim": 0}}, "dim must be at least 1, got 0"),
        (lambda: nn.Sequential(timm_block(8)), {"psrp": {"rank": 4}}, "unknown argument of block 'psrp' 'rank'"),
    ],
)
def test_mistakes_are_named_with_their_remedy(net: Any, blocks: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        insert(net(), blocks)
