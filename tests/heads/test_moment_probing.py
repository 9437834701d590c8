"""Moment probing: both layouts through the base test, the authors' logits with two classifiers, and its sizes."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from head_tester import HeadTester
from module_tester import Compiles, Exports, features, golden, noise, our_name, relative
from torch import Tensor, nn

from gcpzoo.errors import ZooError
from gcpzoo.heads import create_head
from gcpzoo.models import GCPNet
from gcpzoo.models.base import Backbone
from gcpzoo.models.complexity import parameters

PARTS = {"classifier1.": "first_classifier.", "classifier2.": "classifier.", "cls_head.": "first_classifier."}
LOGITS = [case for case in golden("heads2/moment_probing") if "mhc3" in case.values[0]]


class TestMomentProbing(Compiles, Exports, HeadTester):
    head = "moment_probing"
    args: ClassVar = {"heads": 3, "head_dim": 16}
    half_tolerance = (5e-3, 4e-2)  # the projection runs in half precision


class TestMomentProbingInterleaved(HeadTester):
    head = "moment_probing"
    args: ClassVar = {**TestMomentProbing.args, "layout": "interleaved"}
    half_tolerance = TestMomentProbing.half_tolerance


def released(case: dict[str, Tensor]) -> tuple[GCPNet, dict[str, str]]:
    """The released network after its backbone, and our names of its parameters."""
    maps = case["x"].ndim == 4
    backbone = Backbone()
    backbone.num_features = case["x"].shape[1 if maps else 2]
    backbone.num_prefix_tokens = 0 if maps else 1
    layout, fusion = ("interleaved", "mean_norm") if maps else ("contiguous", "mean")
    head_dim = len(case["param/ln.weight"])
    head = create_head("moment_probing", backbone.num_features, heads=4, head_dim=head_dim, layout=layout)
    model = GCPNet(backbone, head, case["out"].shape[1], fusion)
    names = {}
    for name in (key.removeprefix("param/") for key in case if key.startswith("param/")):
        part = next((part for part in PARTS if name.startswith(part)), None)
        names[name] = PARTS[part] + name.removeprefix(part) if part else f"head.{our_name(head, name)}"
    model.load_state_dict({ours: case[f"param/{name}"] for name, ours in names.items()})
    return model.eval(), names


@pytest.mark.parametrize("case", LOGITS)
def test_logits_of_two_classifiers_are_the_authors(case: dict[str, Tensor]) -> None:
    model, names = released(case)
    x = case["x"].clone().requires_grad_()
    f = x if x.ndim == 4 else x.mT[..., None]
    assert relative(model.forward_head(f, pre_logits=True), case["mhc3"]) < 1e-5
    out = model.forward_head(f)
    assert relative(out, case["out"]) < 1e-5
    (out * case["cotangent"]).sum().backward()
    assert relative(x.grad, case["grad"]) < 1e-4
    own = dict(model.named_parameters())
    for name, ours in names.items():
        assert relative(own[ours].grad.flatten(), case[f"grad_param/{name}"].flatten()) < 1e-4, name


@pytest.mark.parametrize("case", LOGITS)
def test_tokens_are_read_as_a_map_is(case: dict[str, Tensor]) -> None:
    model, _ = released(case)
    x = case["x"]
    tokens = x.flatten(2).mT if x.ndim == 4 else x[:, 1:]
    assert relative(model.head(tokens, tokens=True), case["mhc3"]) < 1e-5


def test_interleaved_channels_are_contiguous_ones_in_another_order() -> None:
    x = features(2, 6, 4, 5)
    one = create_head("moment_probing", in_features=6, heads=3, head_dim=16)
    other = create_head("moment_probing", in_features=6, heads=3, head_dim=16, layout="interleaved")
    other.load_state_dict(one.state_dict())
    for p in (other.projection.weight, other.projection.bias):
        p.data = p.data.reshape(3, 16, -1).transpose(0, 1).reshape(p.shape)
    nn.init.normal_(one.projection.bias)
    other.projection.bias.data = one.projection.bias.data.reshape(3, 16).T.flatten()
    assert relative(other(x), one(x)) < 1e-5


def test_columns_have_norm_one_and_the_mean_is_one_number_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    head = create_head("moment_probing", in_features=6, heads=3, head_dim=16).double()
    nn.init.normal_(head.norm.bias)
    seen: list[Tensor] = []
    convolve = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, *args, **kwargs: (seen.append(x), convolve(x, *args, **kwargs))[1])
    x = features(1, 6, 3, 3, dtype=torch.float64)
    head(x)
    q = head.norm(head.projection(x.flatten(2).mT).reshape(9, 3, 16)).transpose(0, 1)  # (H, N, k)
    q = q - q.mean((1, 2), keepdim=True)
    for h in range(2):
        c = q[h].T @ q[h + 1] / 9
        assert relative(seen[0][0, h], c / c.norm(dim=0)) < 1e-10


@pytest.mark.parametrize(
    ("heads", "head_dim", "size"), [(4, 128, 2883), (4, 16, 27), (2, 7, 1), (6, 24, 5 * 25), (3, 64, 2 * 225)]
)
def test_output_size_follows_from_heads_and_their_channels(heads: int, head_dim: int, size: int) -> None:
    head = create_head("moment_probing", in_features=6, heads=heads, head_dim=head_dim)
    assert head.out_features == size
    assert head(features(2, 6, 3, 3)).shape == (2, size)


def test_what_is_trained_on_a_vit_b_has_the_released_number_of_parameters() -> None:
    backbone = Backbone()
    backbone.num_features, backbone.num_prefix_tokens = 768, 1
    model = GCPNet(backbone, create_head("moment_probing", 768), 1000, "mean")
    assert parameters(model) == 4_047_146
    assert parameters(model) - parameters(model.head.projection) == 3_653_418  # what the paper counts


def test_parameters_start_as_released() -> None:
    head = create_head("moment_probing", in_features=768)
    assert abs(head.projection.weight.std().item() - 0.02) < 1e-3
    assert not head.projection.bias.any()
    assert head.norm.eps == 1e-5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"heads": 1}, "heads must be at least 2, because neighbours are crossed, got 1"),
        ({"head_dim": 6}, "head_dim must be at least 7, or the convolutions leave nothing, got 6"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"head_dim": 16.0}, "head_dim must be a whole number, got 16.0"),
        ({"layout": "cnn"}, "layout must be 'contiguous' or 'interleaved', got 'cnn'"),
    ],
)
def test_values_that_cannot_work_are_named(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create_head("moment_probing", in_features=6, **args)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision_runs(dtype: torch.dtype) -> None:
    head = create_head("moment_probing", in_features=6, heads=3, head_dim=16)
    x = features(2, 6, 4, 5)
    expected = head(x)
    out = head.to(dtype)(x.to(dtype))
    assert out.dtype == torch.float32
    assert relative(out, expected) < 5e-2


def test_weights_of_a_projection_reach_it_from_a_convolution_too() -> None:
    head = create_head("moment_probing", in_features=6, heads=3, head_dim=16)
    weight = noise(48, 6, 1, 1)
    head.load_state_dict({**head.state_dict(), "projection.weight": weight})
    assert torch.equal(head.projection.weight, weight[..., 0, 0])
