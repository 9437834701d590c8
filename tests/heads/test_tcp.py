"""TCP: through the base test with clips of one and of four frames, the authors' values, and clips in a network."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from head_tester import HeadTester
from module_tester import Compiles, Exports, ModuleTester, NeedsTwoValues, features, golden, noise, our_name, relative
from torch import Tensor, nn

from gcpzoo.errors import ZooError
from gcpzoo.heads import create_head
from gcpzoo.heads.tcp import TemporalAttention
from gcpzoo.models import create_model
from gcpzoo.models.complexity import model_complexity, parameters
from gcpzoo.training import ClassificationTask

CASES = golden("heads2/tcp")
VANISHING = ("TSA.conv_phi_2.bias", "TSA.conv_phi0.bias")
"""A shift of all keys changes no softmax, one of all values no batch normalization in training: rounding is left."""


def random(module: nn.Module) -> nn.Module:
    """Parameters that make the attention more than the identity."""
    for i, p in enumerate(module.parameters()):
        p.data.add_(0.3 * noise(*p.shape, seed=i))
    return module


class TestTcp(Compiles, Exports, HeadTester):
    head = "tcp"
    args: ClassVar = {"attention": False}


class TestTcpAttention(NeedsTwoValues, HeadTester):
    head = "tcp"
    half_tolerance = (3e-3, 2e-2)  # the attention runs in half precision

    def test_a_masked_position_is_left_out_whatever_it_holds(self) -> None:
        with pytest.raises(ZooError, match="create it with attention=False"):
            self.make()(features(2, self.channels, 1, 12), weights=torch.ones(2, 12))

    test_a_position_of_weight_two_counts_twice = None


class Clips(nn.Module):
    """A head on clips of four different frames that are made of one map each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = random(create_head("tcp", in_features=6, frames=4))

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.stack([x, x.flip(3) * 0.5, x.roll(1, 1), x.flip(2) + 0.1], 1)
        out: Tensor = self.head(frames.flatten(0, 1))
        return out


class TestTcpClips(Compiles, Exports, ModuleTester):
    half_tolerance = (1e-2, 1e-1)  # the attention runs in half precision

    def make(self) -> nn.Module:
        return Clips()

    def output_shape(self, module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], 21)


def released(tag: str, case: dict[str, Tensor]) -> nn.Module:
    size = {part[0]: int(part[1:]) for part in tag.split("_")[1:]}
    head = create_head("tcp", in_features=size["c"], dim=[256, size["d"]], frames=size["t"])
    state = {k.split("/", 1)[1]: v for k, v in case.items() if k.startswith(("param/", "buffer/"))}
    head.load_state_dict({our_name(head, name): value for name, value in state.items()})
    return head.train(tag.startswith("train"))


@pytest.mark.parametrize(("tag", "case"), [pytest.param(p.id, *p.values, id=p.id) for p in CASES])
def test_values_and_gradients_are_the_authors(tag: str, case: dict[str, Tensor]) -> None:
    head = released(tag, case)
    seen: list[Tensor] = []
    head.attention.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    x = case["x"].clone().requires_grad_()
    out = head(x)
    assert relative(out, case["out"]) < 1e-5
    for ours, theirs in zip(seen, ("attention_in", "attention_out"), strict=True):
        assert relative(ours.reshape(case[theirs].shape), case[theirs]) < 1e-5
    (out * case["cotangent"]).sum().backward()
    assert relative(x.grad, case["grad"]) < 1e-4
    own = dict(head.named_parameters())
    for name in (key.removeprefix("grad_param/") for key in case if key.startswith("grad_param/")):
        grad, expected = own[our_name(head, name)].grad, case[f"grad_param/{name}"]
        if expected.norm() < 1e-6:
            assert name.endswith(VANISHING)
            assert grad.norm() < 1e-5
        else:
            assert relative(grad, expected) < 1e-4, name
    if head.training:
        assert head.attention.spatial.norm.num_batches_tracked == 1


def test_all_frames_of_a_clip_are_pooled_into_one_covariance() -> None:
    x = features(8, 6, 3, 4)
    head = create_head("tcp", in_features=6, frames=4, attention=False)
    clips = x.reshape(2, 4, 6, 12).transpose(1, 2).flatten(2)
    assert torch.equal(head(x), create_head("isqrt", in_features=6, iterations=3)(clips))


def test_weights_of_positions_run_through_the_frames_of_a_clip() -> None:
    x = features(8, 6, 1, 5, dtype=torch.float64)
    head = create_head("tcp", in_features=6, frames=4, attention=False)
    weights = torch.ones(2, 20)
    weights[:, 15:] = 0  # the last frame
    three = create_head("tcp", in_features=6, frames=3, attention=False)
    assert relative(head(x, weights=weights), three(x[[0, 1, 2, 4, 5, 6]])) < 1e-9
    with pytest.raises(ZooError, match=r"weights must be \(B, M\) = \(2, 20\), .* got shape \(8, 5\)"):
        head(x, weights=weights.reshape(8, 5))


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 8, 10, 16])
def test_attention_is_the_identity_at_the_start_and_keeps_every_number_of_frames(frames: int) -> None:
    x = features(2 * frames, 6, 3, 3).reshape(2, frames, 6, 9)
    attention = TemporalAttention(6, frames)
    assert torch.equal(attention(x), x)
    assert random(attention)(x).shape == x.shape


@pytest.mark.parametrize(("frames", "before", "after"), [(4, 1, 1), (6, 2, 1), (8, 2, 2), (10, 3, 2), (5, 1, 1)])
def test_temporal_convolution_wraps_around_the_clip(frames: int, before: int, after: int) -> None:
    attention = TemporalAttention(3, frames).double()
    assert attention.temporal.kernel_size == (before + 1 + after, 1, 1)
    nn.init.normal_(attention.temporal.weight)
    x = features(frames, 3, 2, 2, dtype=torch.float64).reshape(1, frames, 3, 4)
    y = (attention.channel(x) * attention.spatial(x))[0]
    w = attention.temporal.weight[..., 0, 0]
    for t in range(frames):
        mixed = sum(w[:, :, j] @ y[(t + j - before) % frames] for j in range(before + 1 + after))
        torch.testing.assert_close(attention(x)[0, t], F.relu(x[0, t] + mixed))


@pytest.mark.parametrize(("frames", "count"), [(8, 821_376), (16, 886_912)])
def test_number_of_parameters_is_the_published_one(frames: int, count: int) -> None:
    assert parameters(create_head("tcp", in_features=2048, dim=[256, 128], frames=frames)) == count


def test_frames_that_make_no_whole_clips_are_refused() -> None:
    head = create_head("tcp", in_features=6, frames=4)
    with pytest.raises(ZooError, match="tcp with frames=4 expects whole clips, a multiple of 4 maps, got 6"):
        head(features(6, 6, 3, 3))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"frames": 2.0}, "frames must be a whole number, got 2.0"),
        ({"attention": "yes"}, "attention must be True or False, got 'yes'"),
    ],
)
def test_values_that_cannot_work_are_named(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create_head("tcp", in_features=6, **args)


def small(backbone: str = "resnet18", **args: Any) -> nn.Module:
    until = "layer1" if backbone == "resnet18" else None
    return random(create_model(backbone, "tcp", 5, dim=[8, 6], until=until, head_args={"frames": 3, **args})).eval()


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("backbone", ["resnet18", "timm:test_vit"])
def test_clips_go_frame_by_frame_through_any_backbone(backbone: str, attention: bool) -> None:
    model = small(backbone, attention=attention)
    clips = noise(2, 3, 3, 160, 160)
    with torch.no_grad():
        logits = model.forward_clips(clips)
        maps = torch.stack([model.forward_features(clips[:, t]) for t in range(3)], 1)
        assert logits.shape == (2, 5)
        torch.testing.assert_close(logits, model.forward_head(maps.flatten(0, 1)), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(model.forward_clips(clips[1:]), logits[1:], rtol=1e-3, atol=1e-4)
        assert torch.equal(model(clips), logits)
        backwards = model.forward_clips(clips.flip(1))
        assert torch.allclose(backwards, logits, rtol=1e-3, atol=1e-4) != attention


@pytest.mark.parametrize("shape", [(6, 3, 64, 64), (2, 4, 3, 64, 64), (3, 3, 3, 3, 64, 64)])
def test_what_is_no_clip_of_the_heads_frames_is_refused(shape: tuple[int, ...]) -> None:
    model = small()
    for call in (model, model.forward_clips):
        with pytest.raises(ZooError, match=r"head tcp with frames=3 reads clips \(B, 3, 3, H, W\), got shape"):
            call(torch.zeros(shape))


def test_a_head_of_images_takes_a_clip_of_one_frame_only() -> None:
    model = create_model("resnet18", "isqrt", 5, dim=8, until="layer1").eval()
    x = noise(2, 1, 3, 64, 64)
    assert torch.equal(model.forward_clips(x), model(x[:, 0]))
    with pytest.raises(ZooError, match=r"head='tcp' with head_args=\{'frames': T\} pools T frames"):
        model.forward_clips(noise(2, 4, 3, 64, 64))


@pytest.mark.parametrize("fusion", ["sum", "mean", "mean_norm", "concat"])
def test_a_first_order_classifier_of_clips_is_refused(fusion: str) -> None:
    with pytest.raises(ZooError, match=f"null or 'all' with a head that pools clips, tcp, got '{fusion}'"):
        create_model("resnet18", "tcp", 5, until="layer1", fusion=fusion, head_args={"frames": 4})


def test_a_model_reduces_as_published_and_keeps_the_resolution() -> None:
    model = create_model("resnet18", "tcp", 5, head_args={"frames": 4})
    assert model.config["dim"] == [256, 128]
    assert model.config["last_stride"] == 1
    assert model.num_features == 8256
    assert create_model("resnet18", "tcp", 5, until="layer1").config["dim"] is None  # 64 channels


def test_a_training_takes_clips_for_clips_not_for_views() -> None:
    torch.manual_seed(0)
    task = ClassificationTask(
        num_classes=5, backbone="resnet18", until="layer1", head="tcp", dim=8, head_args={"frames": 3},
        channels_last=True,
    ).eval()  # fmt: skip
    clips = noise(2, 3, 3, 64, 64)
    torch.testing.assert_close(task(clips), task.model.forward_clips(clips))


def test_costs_are_counted_for_a_clip() -> None:
    def cost(frames: int) -> int:
        model = create_model("resnet18", "tcp", 5, dim=8, until="layer1", head_args={"frames": frames})
        return model_complexity(model, 64)["multiply_adds"]["backbone"]

    assert cost(4) == 4 * cost(1)


def test_a_copy_keeps_its_own_attention() -> None:
    head = create_head("tcp", in_features=6, frames=4)
    twin = copy.deepcopy(head)
    random(twin)
    x = features(4, 6, 3, 3)
    assert not torch.equal(head(x), twin(x))
