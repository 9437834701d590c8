"""GSoP's attentions and the moved strides against what their formulas say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from module_tester import features, relative
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck

from gcpzoo.blocks import GSoP, GSoPBlock, insert, stride_in_first
from gcpzoo.blocks.gsop import ChannelAttention, PositionAttention
from gcpzoo.errors import ZooError


def attended(attention: str) -> tuple[GSoP, Tensor, Tensor, Tensor]:
    """The module, an input with both signs, and what each of its attentions makes of it."""
    gsop = GSoP(8, attention=attention, attention_dim=5).eval()
    x = features(2, 8, 6, 7) - 0.5
    assert gsop.channel is not None
    assert gsop.position is not None
    return gsop, x, x * gsop.channel(x), F.relu(x * gsop.position(x))


def test_average_is_the_sum_of_both_attentions() -> None:
    gsop, x, by_channel, by_position = attended("average")
    torch.testing.assert_close(gsop(x), by_channel + by_position)


def test_maximum_is_taken_element_by_element() -> None:
    gsop, x, by_channel, by_position = attended("maximum")
    torch.testing.assert_close(gsop(x), torch.maximum(by_channel, by_position))


def test_concatenation_convolves_each_attention_and_normalizes_their_sum() -> None:
    gsop, x, by_channel, by_position = attended("concatenation")
    torch.testing.assert_close(gsop(x), gsop.norm(gsop.first(by_channel) + gsop.second(by_position)))
    assert not torch.allclose(gsop.first(by_channel), gsop.second(by_channel))


@pytest.mark.parametrize(("channels", "groups", "rows"), [(64, 1, 15), (256, 4, 11), (512, 8, 9), (96, 1, 15)])
def test_concatenation_has_a_group_for_64_channels_and_longer_kernels_for_fewer(
    channels: int, groups: int, rows: int
) -> None:
    gsop = GSoP(channels, attention="concatenation", attention_dim=4)
    for convolution in (gsop.first, gsop.second):
        assert convolution.groups == groups
        assert convolution.kernel_size == (rows, 1)
        assert convolution.padding == (rows // 2, 0)


@pytest.mark.parametrize("attention", ["channel", "position"])
def test_a_single_attention_has_no_other_in_it(attention: str) -> None:
    gsop = GSoP(8, attention=attention, attention_dim=5).eval()
    x = features(2, 8, 6, 7) - 0.5
    if attention == "channel":
        assert gsop.position is None
        torch.testing.assert_close(gsop(x), x * gsop.channel(x))
    else:
        assert gsop.channel is None
        torch.testing.assert_close(gsop(x), F.relu(x * gsop.position(x)))


@pytest.mark.parametrize("stride", [1, 2])
def test_channel_attention_reads_the_covariance_of_reduced_channels(stride: int) -> None:
    attention = ChannelAttention(8, 5, stride).eval()
    nn.init.normal_(attention.weights.norm.weight)  # tells rows from columns
    x = features(2, 8, 6, 7) - 0.5
    z = F.relu(attention.norm(F.conv2d(F.relu(x), attention.reduce.weight, attention.reduce.bias, stride)))
    sigma = torch.stack([torch.cov(sample, correction=0) for sample in z.flatten(2)])
    rows = attention.weights.norm(sigma[..., None])[..., 0]  # (B, row, column)
    kernels = attention.weights.rows.weight[:, 0, :, 0].view(5, 4, 5)
    read = torch.einsum("bij,ikj->bik", rows, kernels)
    mixed = attention.weights.mix((read.flatten(1) + attention.weights.rows.bias)[..., None, None])
    torch.testing.assert_close(attention(x), mixed.sigmoid())


@pytest.mark.parametrize("centering", ["released", "exact"])
@pytest.mark.parametrize("dim", [5, 64])
def test_position_attention_reads_the_covariance_of_an_8x8_grid(centering: str, dim: int) -> None:
    attention = PositionAttention(8, dim, centering).eval()
    seen: list[Tensor] = []
    attention.weights.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0][..., 0]))
    x = features(2, 8, 16, 24) - 0.5
    weights = attention(x)
    z = F.adaptive_avg_pool2d(attention.norm(attention.reduce(F.relu(x))), 8).flatten(2).mT  # (B, 64, d)
    total = z.sum(2, keepdim=True)
    share = {"released": 1 / 64, "exact": 1 / dim}[centering]
    assert relative(seen[0], (z @ z.mT - share * total @ total.mT) / 64) < 1e-4  # float32
    if dim == 64:  # the two agree: the covariance over channels
        expected = torch.stack([torch.cov(sample, correction=0) for sample in z])
        assert relative(seen[0], expected) < 1e-4  # float32
    rows = attention.weights.rows(attention.weights.norm(seen[0][..., None]))
    grid = attention.weights.mix(F.relu(rows)).sigmoid().view(2, 1, 8, 8)
    torch.testing.assert_close(weights, F.adaptive_avg_pool2d(grid, (16, 24)))


@pytest.mark.parametrize("attention_dim", [4, 128])
def test_options_of_the_insertion_reach_every_block(attention_dim: int) -> None:
    options = {"stages": [2, 4], "attention": "average", "attention_dim": attention_dim, "centering": "exact"}
    net = insert(resnet18(), {"gsop": options})
    blocks = {name: m for name, m in net.named_modules() if isinstance(m, GSoPBlock)}
    assert list(blocks) == ["layer2.1", "layer4.1"]
    for block in blocks.values():
        assert block.gsop.attention == "average"
        assert block.gsop.channel.norm.num_features == attention_dim
        assert block.gsop.position.norm.num_features == attention_dim
        assert block.gsop.position.centering == "exact"


def test_defaults_are_those_of_gsop_net1() -> None:
    net = insert(resnet18(), {"gsop": {}})
    blocks = [m for m in net.modules() if isinstance(m, GSoPBlock)]
    assert len(blocks) == 4
    assert {b.gsop.attention for b in blocks} == {"channel"}
    assert {b.gsop.channel.norm.num_features for b in blocks} == {128}
    assert [b.gsop.channel.reduce.stride for b in blocks] == [(2, 2), (1, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_attention_acts_on_the_residual_branch_before_the_addition(kind: type) -> None:
    channels = 16 if kind is BasicBlock else 64
    block = kind(channels, 16).eval()
    x = features(2, channels, 6, 6)
    plain = block(x)
    gated = GSoPBlock(block, GSoP(channels, attention_dim=4)).eval()
    gated.gsop.forward = lambda branch: branch  # type: ignore[method-assign]
    torch.testing.assert_close(gated(x), plain)
    gated.gsop.forward = lambda branch: 0 * branch  # type: ignore[method-assign]
    torch.testing.assert_close(gated(x), F.relu(x))


def test_strides_move_to_the_first_convolution_of_every_bottleneck() -> None:
    plain, moved = resnet50().eval(), stride_in_first(resnet50()).eval()
    moved.load_state_dict(plain.state_dict())
    strides = [(m.conv1.stride, m.conv2.stride) for m in moved.modules() if isinstance(m, Bottleneck)]
    assert [i for i, s in enumerate(strides) if s == ((2, 2), (1, 1))] == [3, 7, 13]
    assert all(s == ((1, 1), (1, 1)) for i, s in enumerate(strides) if i not in (3, 7, 13))
    x = features(1, 3, 64, 64)
    assert moved(x).shape == plain(x).shape
    assert not torch.allclose(moved(x), plain(x))


def test_strides_of_a_network_without_bottlenecks_cannot_move() -> None:
    for net in (resnet18(), nn.Sequential(nn.Conv2d(3, 4, 1))):
        with pytest.raises(ZooError, match="no bottlenecks"):
            insert(net, {"stride_in_first": {}})
