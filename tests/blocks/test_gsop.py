"""GSoP: every attention through the base test, the authors' values, and its place in a network."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import pytest
import torch
from module_tester import GOLDEN, Compiles, Exports, ModuleTester, NeedsTwoValues, features, noise, relative
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck

from gcpzoo.blocks import insert
from gcpzoo.blocks.gsop import ATTENTIONS, GSoP, GSoPBlock
from gcpzoo.errors import ZooError
from gcpzoo.hub.convert.common import rename, renames
from gcpzoo.models.gcpnet import create_model


def in_stage(block: nn.Module, **args: Any) -> GSoPBlock:
    """One residual block with GSoP in it."""
    net = nn.Module()
    net.layer1 = nn.Sequential(block)
    insert(net, {"gsop": {"stages": [1], **args}})
    return net.layer1[0]


class GSoPTester(NeedsTwoValues, ModuleTester):
    attention: str
    channels = 8
    gradcheck_sizes = ((2, 3),)
    half_tolerance = (2e-2, 1e-1)  # the convolutions run in half precision

    def make(self) -> nn.Module:
        torch.manual_seed(0)
        return in_stage(Bottleneck(8, 2), attention=self.attention, attention_dim=5)

    def output_shape(self, module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


class TestChannel(GSoPTester):
    attention = "channel"


class TestPosition(GSoPTester):
    attention = "position"


class TestAverage(GSoPTester):
    attention = "average"


class TestMaximum(GSoPTester):
    attention = "maximum"


class TestConcatenation(Compiles, Exports, GSoPTester):  # has both attentions in it
    attention = "concatenation"


def made(key: str, shape: list[int]) -> Tensor:
    """The weights that the authors' values were computed with, by a rule that needs only names and shapes."""
    g = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if key.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=g)
    value = torch.randn(shape, generator=g)
    if len(shape) >= 2:
        return value * math.sqrt(2 / value[0].numel())
    return 1 + 0.1 * value if key.endswith("weight") else 0.1 * value


@pytest.mark.parametrize("name", ["gsop_channel_stride1", "gsop_channel_stride2", "gsop_position"])
def test_block_gives_the_authors_values_and_gradients(name: str) -> None:
    facts = json.loads((GOLDEN / "blocks" / f"{name}.json").read_text())
    case = load_file(GOLDEN / "blocks" / f"{name}.safetensors")
    planes = facts["planes"]
    block = in_stage(Bottleneck(4 * planes, planes), attention=facts["attention"], attention_dim=facts["attention_dim"])
    theirs = {k: made(k, shape) for k, shape in facts["state_dict"].items()}
    block.load_state_dict(rename(theirs, renames(GSoP.RELEASED_NAMES, ours="gsop.")))
    x = case["x"].clone().requires_grad_()
    out = block.eval()(x)
    assert relative(out, case["out"]) < 1e-5  # float32
    if "grad" in case:  # the authors' position attention does not run backward
        (grad,) = torch.autograd.grad((out * case["cotangent"]).sum(), x)
        assert relative(grad, case["grad"]) < 1e-5  # float32


def test_exact_centering_is_blind_to_what_all_channels_share() -> None:
    block = in_stage(Bottleneck(16, 4), attention="position", attention_dim=5, centering="exact").eval()
    attention = block.gsop.position
    x = features(1, 16, 8, 8)
    shared = features(1, 1, 8, 8, seed=3)

    def weights(shift: Tensor | float) -> Tensor:
        attention.norm.forward = lambda z: z + shift  # type: ignore[method-assign]
        return attention(x)

    assert relative(weights(shared), weights(0.0)) < 1e-5  # float32
    attention.centering = "released"
    assert relative(weights(shared), weights(0.0)) > 1e-3


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_residual_branch_without_response_leaves_the_identity(attention: str, block: type) -> None:
    channels = 16 if block is BasicBlock else 64
    module = in_stage(block(channels, 16), attention=attention, attention_dim=4).eval()
    last = module.bn2 if block is BasicBlock else module.bn3
    nn.init.zeros_(last.weight)
    x = features(2, channels, 6, 6)
    if attention == "concatenation":  # its convolutions have a bias
        nn.init.zeros_(module.gsop.first.bias)
        nn.init.zeros_(module.gsop.second.bias)
    assert torch.allclose(module(x), x)


def test_net1_and_net2_are_configurations() -> None:
    net1 = create_model("resnet18", head="gap", num_classes=3, blocks={"gsop": {"attention_dim": 8}})
    args = {"stages": [1, 2, 3], "attention_dim": 8}
    net2 = create_model("resnet18", "isqrt", 3, dim=8, head_args={"iterations": 3}, blocks={"gsop": args})
    for net, inserted in ((net1, 4), (net2, 3)):
        assert sum(isinstance(m, GSoPBlock) for m in net.modules()) == inserted
        assert net.eval()(noise(1, 3, 64, 64)).shape == (1, 3)


def test_weights_of_the_plain_network_keep_their_names() -> None:
    plain = resnet50()
    net = insert(resnet50(), {"gsop": None})
    missing, unexpected = net.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(".gsop." in key for key in missing)
    strides = {f"layer{i}": getattr(net, f"layer{i}")[-1].gsop.channel.reduce.stride for i in (1, 2, 3, 4)}
    assert strides == {"layer1": (2, 2), "layer2": (1, 1), "layer3": (1, 1), "layer4": (1, 1)}


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"gsp": {}}, "unknown block 'gsp': did you mean gsop"),
        ({"gsop": {"stage": [1]}}, "unknown argument of block 'gsop' 'stage': did you mean stages"),
        ({"gsop": {"stages": [5]}}, "no stage 5, it has layer1, layer2, layer3, layer4"),
        ({"gsop": {"stages": [1, 1]}}, "different stages"),
        ({"gsop": {"attention": "chanel"}}, "did you mean channel"),
        ({"gsop": {"attention_dim": 0}}, "attention_dim must be at least 1"),
        ({"gsop": [1]}, "must be a mapping, got"),
    ],
)
def test_mistakes_are_named_with_their_remedy(blocks: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        insert(resnet18(), blocks)


def test_other_networks_are_refused() -> None:
    with pytest.raises(ZooError, match="not a ResNet"):
        insert(nn.Sequential(nn.Conv2d(3, 4, 1)), {"gsop": {}})
