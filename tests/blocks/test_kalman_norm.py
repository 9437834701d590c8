"""Batch Kalman normalization: the authors' values, the way of the prediction through a network, and its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from module_tester import Compiles, Exports, ModuleTester, NeedsTwoValues, features, golden, noise, relative
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck

from gcpzoo.blocks import insert
from gcpzoo.blocks.kalman_norm import Carried, KalmanBlock, KalmanNorm, kalman_filter, predict
from gcpzoo.errors import ZooError
from gcpzoo.hub.convert.common import rename, renames
from gcpzoo.models.gcpnet import create_model

CASES = golden("heads2/kalman_norm")
FILTERED = [p for p in CASES if "split" in p.id and p.id != "first_split2"]
FIRST, SWITCHED_OFF = (next(p.values[0] for p in CASES if p.id == name) for name in ("first_split2", "switched_off"))
Case = dict[str, Tensor]


def settings(case: Case) -> tuple[int, float]:
    """Micro-batches, and the rate at which that number of micro-batches was recorded."""
    split = len(case["mean"]) // case["x"].shape[1]
    return split, 0.05 if split == 1 else 0.9


class KalmanTester(NeedsTwoValues, ModuleTester):
    channels = 8
    gradcheck_sizes = ((2, 3),)
    half_tolerance = (2e-2, 1e-1)  # the convolutions run in half precision

    def make(self) -> nn.Module:
        torch.manual_seed(0)
        blocks = KalmanBlock(BasicBlock(8, 8), 2, 0.9), KalmanBlock(Bottleneck(8, 2), 2, 0.9, last=True)
        return nn.Sequential(KalmanNorm(8, split_num=2, rate=0.9), *blocks)

    def output_shape(self, module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


class TestKalmanNorm(Compiles, Exports, KalmanTester):
    pass


@pytest.mark.parametrize("case", FILTERED)
def test_filtered_normalization_gives_the_authors_values_and_gradients(case: Case) -> None:
    split, rate = settings(case)
    norm = KalmanNorm(case["x"].shape[1], split, rate)
    theirs = {name.removeprefix("param/"): value for name, value in case.items() if name.startswith("param/")}
    norm.load_state_dict(rename(theirs, renames(KalmanNorm.RELEASED_NAMES)), strict=False)
    x, mean, variance = (case[name].clone().requires_grad_() for name in ("x", "pre_mean", "pre_var"))
    out = norm(Carried(x, mean.view(split, -1), variance.view(split, -1)))
    assert relative(out.x, case["out"]) < 1e-5  # float32
    assert relative(out.mean.flatten(), case["mean"]) < 1e-5
    assert relative(out.variance.flatten(), case["var"]) < 1e-5
    inputs = [x, mean, variance, norm.weight, norm.bias]
    names = ["grad", "grad_pre_mean", "grad_pre_var", "grad_param/gamma", "grad_param/beta"]
    for name, found in zip(names, torch.autograd.grad((out.x * case["cotangent"]).sum(), inputs), strict=True):
        assert relative(found, case[name]) < 1e-4, name
    c = x.shape[1]  # the running averages follow the first micro-batch
    torch.testing.assert_close(norm.running_mean, 0.1 * case["mean"][:c])
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * case["var"][:c])


@pytest.mark.parametrize("case", FILTERED)
def test_prediction_gives_the_authors_values_for_their_noise(case: Case) -> None:
    split, _ = settings(case)
    out, c, h, w = *case["conv"].shape[:2], *case["x"].shape[2:]
    conv = nn.Conv2d(c, out, 3, padding=1, bias=False)
    conv.weight.data = case["conv"]
    drawn = case["noise"].permute(0, 3, 1, 2).reshape(split, c, h, w)
    mean, variance = predict(case["mean"].view(split, c), case["var"].view(split, c), conv, drawn)
    assert relative(mean.flatten(), case["next_pre_mean"]) < 1e-5
    assert relative(variance.flatten(), case["next_pre_var"]) < 1e-5


def test_first_layer_gives_the_authors_values_and_hands_on_the_corrected_variance() -> None:
    split, _ = settings(FIRST)
    out = KalmanNorm(FIRST["x"].shape[1], split)(FIRST["x"])
    assert relative(out.x, FIRST["out"]) < 1e-5
    assert relative(out.mean.flatten(), FIRST["mean"]) < 1e-5
    assert relative(out.variance.flatten(), FIRST["var"]) < 1e-5


def test_a_prediction_of_a_hundred_times_the_variance_is_ignored_as_by_the_authors() -> None:
    case = SWITCHED_OFF
    given = Carried(case["x"], case["pre_mean"][None], case["pre_var"][None])
    out = KalmanNorm(case["x"].shape[1], rate=0.9)(given)
    assert relative(out.x, case["out"]) < 1e-5
    assert relative(out.variance[0], case["var"]) < 1e-5


@pytest.mark.parametrize(("ratio", "trusted"), [(99.0, True), (100.0, False), (torch.nan, False), (torch.inf, False)])
def test_one_mean_ratio_decides_for_all_channels(ratio: float, trusted: bool) -> None:
    predicted = torch.tensor([[1.0, 2 * ratio - 1]])
    mean, variance = kalman_filter(torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2), predicted, rate=0.5)
    assert torch.equal(mean, torch.full((1, 2), 0.5 if trusted else 0.0))
    assert bool(variance[0, 0] > 1) == trusted


def test_one_micro_batch_without_a_prediction_is_batch_normalization() -> None:
    plain, ours = nn.BatchNorm2d(6), KalmanNorm(6)
    x = features(4, 6, 5, 5) * 3 + 1
    out = ours(x)
    torch.testing.assert_close(out.x, plain(x))
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))


def test_evaluation_is_that_of_the_whole_network_with_batch_normalization() -> None:
    plain = resnet18()
    plain(noise(4, 3, 32, 32))  # running averages of its own
    ours = resnet18()
    ours.load_state_dict(plain.state_dict())
    insert(ours.eval(), {"kalman_norm": {"split_num": 2, "rate": 0.9}})
    assert list(ours.state_dict()) == list(plain.state_dict())
    x = noise(3, 3, 32, 32, seed=1)
    torch.testing.assert_close(ours(x), plain.eval()(x))
    again = insert(resnet18(), {"kalman_norm": {}})
    again.load_state_dict(plain.state_dict())  # weights of the plain network fit afterwards too
    assert torch.equal(again.eval()(x), ours(x))


@pytest.mark.parametrize("network", [resnet18, resnet50])
def test_all_batch_normalizations_of_a_resnet_are_replaced(network: Any) -> None:
    net = insert(network(), {"kalman_norm": {"split_num": 4, "rate": 0.3}})
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    norms = [m for m in net.modules() if isinstance(m, KalmanNorm)]
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in network().modules())
    assert {(m.split_num, m.rate, m.eps, m.momentum) for m in norms} == {(4, 0.3, 1e-5, 0.1)}


def test_prediction_takes_the_way_of_the_features_through_a_block() -> None:
    shortcut = nn.Sequential(nn.Conv2d(4, 6, 1, 2, bias=False), nn.BatchNorm2d(6))
    block = KalmanBlock(BasicBlock(4, 6, 2, shortcut), split_num=2, rate=0.9)
    x, mean, variance = features(4, 4, 6, 6), noise(2, 4), noise(2, 4, seed=1).exp()
    torch.manual_seed(3)
    out = block(Carried(x, mean, variance))
    torch.manual_seed(3)
    a = block.bn1(Carried(block.conv1(x), *predict(mean, variance, block.conv1, torch.randn(2, 4, 6, 6))))
    second = predict(a.mean, a.variance, block.conv2, torch.randn(2, 6, 3, 3))
    b = block.bn2(Carried(block.conv2(F.relu(a.x)), *second))
    beside = predict(mean, variance, block.downsample[0], torch.randn(2, 4, 6, 6))
    c = block.downsample[1](Carried(block.downsample[0](x), *beside))
    torch.testing.assert_close(out.x, F.relu(b.x + c.x))
    torch.testing.assert_close(out.mean, b.mean + c.mean)
    torch.testing.assert_close(out.variance, b.variance + c.variance)
    identity = KalmanBlock(BasicBlock(4, 4), split_num=2, rate=0.9)
    nn.init.zeros_(identity.conv1.weight)
    nn.init.zeros_(identity.conv2.weight)
    through = identity(Carried(x, mean, variance))
    torch.testing.assert_close(through.mean, mean)
    torch.testing.assert_close(through.variance, variance)


def small(**arguments: Any) -> nn.Module:
    return create_model("resnet18", "gap", 3, until="layer2", blocks={"kalman_norm": {"split_num": 2, **arguments}})


def trained(model: nn.Module, seed: int, x: Tensor) -> list[Tensor]:
    torch.manual_seed(seed)
    model.zero_grad()
    out = model.train()(x)
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in model.parameters())]


def test_a_step_follows_from_the_seed_of_torch_and_from_nothing_else() -> None:
    x, model = noise(4, 3, 32, 32), small(rate=0.9)
    first, second, other = (trained(model, seed, x) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.allclose(first[0], other[0])
    model = small(rate=0.0)
    assert torch.allclose(trained(model, 0, x)[0], trained(model, 1, x)[0])  # without weight no random map counts


def test_gradients_flow_through_the_prediction_to_the_layer_before() -> None:
    x = noise(4, 3, 32, 32)
    model = small(rate=0.9)
    first, last = model.backbone.bn1.train(), model.backbone.layer1[0].bn1
    carried = first(model.backbone.conv1(x))
    conv = model.backbone.layer1[0].conv1
    mean, variance = predict(carried.mean, carried.variance, conv, noise(2, 64, 8, 8))
    out = last(Carried(conv(noise(4, 64, 8, 8)), mean, variance))
    out.x.square().sum().backward()
    assert model.backbone.conv1.weight.grad.abs().sum() > 0


def test_recomputing_a_block_in_the_backward_pass_gives_the_same_gradient() -> None:
    model = small(rate=0.9).backbone.train()
    x = noise(4, 3, 32, 32)
    grads = []
    for again in (False, True):
        torch.manual_seed(0)
        model.zero_grad()
        y = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        for block in (*model.layer1, *model.layer2):
            y = checkpoint(block, y, use_reentrant=False) if again else block(y)
        y.square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("images", "split", "parts"), [(5, 2, [(0, 3), (3, 5)]), (2, 8, [(0, 1), (1, 2)])])
def test_a_batch_that_the_number_of_micro_batches_does_not_divide(images: int, split: int, parts: list) -> None:
    x = features(images, 4, 3, 3)
    out = KalmanNorm(4, split_num=split)(x)
    assert out.mean.shape == (len(parts), 4)
    for k, (start, stop) in enumerate(parts):
        alone = nn.BatchNorm2d(4)
        torch.testing.assert_close(out.x[start:stop], alone(x[start:stop]))
        torch.testing.assert_close(out.mean[k], 10 * alone.running_mean)


def test_layers_behind_a_frozen_stem_start_without_a_prediction() -> None:
    model = small(rate=0.9).backbone.train()
    for frozen in (model.bn1, model.layer1):
        frozen.eval()
    before = {k: v.clone() for k, v in model.bn1.state_dict().items()}
    x = noise(4, 3, 32, 32)
    out = model(x)
    assert isinstance(out, Tensor)
    assert all(torch.equal(v, before[k]) for k, v in model.bn1.state_dict().items())
    y = model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(x)))))
    assert isinstance(y, Tensor)
    first = model.layer2[0]
    reference = nn.BatchNorm2d(128)
    torch.testing.assert_close(first.bn1(first.conv1(y)).x[:2], reference(first.conv1(y)[:2]))


def test_half_precision_keeps_statistics_in_float32() -> None:
    out = KalmanNorm(4)(features(2, 4, 5, 5).bfloat16())
    assert out.x.dtype == torch.bfloat16
    assert out.mean.dtype == out.variance.dtype == torch.float32


def test_a_dead_channel_has_a_finite_gradient() -> None:
    conv = nn.Conv2d(2, 3, 1)
    variance = torch.tensor([[0.0, 1.0]], requires_grad=True)
    for statistic in predict(torch.zeros(1, 2), variance, conv, noise(1, 2, 4, 4)):
        statistic.sum().backward(retain_graph=True)
    assert variance.grad.isfinite().all()
    assert variance.grad[0, 1] != 0


def step_of_a_half(rank: int, store: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(KalmanTester().make())
    trained(model, rank, features(4, 8, 6, 6)[2 * rank : 2 * rank + 2])
    torch.save([p.grad for p in model.parameters()], f"{folder}/{rank}")
    dist.destroy_process_group()


def test_two_processes_end_with_one_gradient(tmp_path: Path) -> None:
    mp.spawn(step_of_a_half, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(g.isfinite().all() for g in first)
    assert first[0].abs().max() > 0


@pytest.mark.parametrize(
    ("net", "arguments", "message"),
    [
        (resnet18, {"split_num": 0}, "split_num must be at least 1, got 0"),
        (resnet18, {"rate": 1.5}, "rate must be a number between 0 and 1, got 1.5"),
        (resnet18, {"rate": float("nan")}, "rate must be a number between 0 and 1, got nan"),
        (resnet18, {"splits": 2}, "did you mean split_num"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1)), {}, "must be a ResNet of torchvision"),
        (lambda: insert(resnet18(), {"gsop": {"stages": [2]}}), {}, "those of torchvision's ResNets, got GSoPBlock"),
        (lambda: insert(resnet18(), {"kalman_norm": {}}), {}, "must be a ResNet of torchvision"),
    ],
)
def test_mistakes_are_named_with_their_remedy(net: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        insert(net(), {"kalman_norm": arguments})


def test_a_network_without_a_residual_block_is_refused() -> None:
    with pytest.raises(ZooError, match="with at least its first stage"):
        create_model("resnet18", "gap", 3, until="maxpool", blocks={"kalman_norm": {}})


def test_micro_batches_of_one_value_a_channel_are_refused_in_the_first_layer_only() -> None:
    with pytest.raises(ZooError, match=r"more than 1 value per channel .* got \(2, 4, 1, 1\) for 2 micro-batches"):
        KalmanNorm(4, split_num=2)(features(2, 4, 1, 1))
    out = KalmanNorm(4, split_num=2, rate=0.9)(Carried(features(2, 4, 1, 1), noise(2, 4), torch.ones(2, 4)))
    assert out.x.isfinite().all()
