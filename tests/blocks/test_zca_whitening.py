"""Decorrelated batch normalization: the authors' values, what it does to correlations, its place in a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from module_tester import Exports, ModuleTester, NeedsTwoValues, features, golden, noise, relative
from torch import Tensor, nn
from torchvision.models import resnet18

from gcpzoo.blocks import ZCAWhitening, insert
from gcpzoo.errors import ZooError
from gcpzoo.hub.convert.common import rename, renames
from gcpzoo.models.gcpnet import create_model

# float32 of the released code is 7e-5 from float64.
VALUE, GRADIENT = 5e-4, 1e-3
CASES = [pytest.param(*p.values, int(p.id[-1]), id=p.id) for p in golden("heads2/zca_whitening")]


class TestZCAWhitening(NeedsTwoValues, Exports, ModuleTester):
    def make(self) -> nn.Module:
        return ZCAWhitening(6, groups=2)

    def output_shape(self, module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


@pytest.mark.parametrize(("case", "groups"), CASES)
def test_a_training_step_and_evaluation_give_the_authors_values(case: dict[str, Tensor], groups: int) -> None:
    c = case["x"].shape[1]
    module = ZCAWhitening(c, groups)
    theirs = {name.removeprefix("param/"): value.flatten() for name, value in case.items() if name.startswith("param/")}
    module.load_state_dict(rename(theirs, renames(ZCAWhitening.RELEASED_NAMES)), strict=False)
    x = case["x"].clone().requires_grad_()
    out = module(x)
    assert relative(out, case["out"]) < VALUE
    grads = torch.autograd.grad((out * case["cotangent"]).sum(), [x, module.weight, module.bias])
    for name, found in zip(("grad", "grad_param/weight", "grad_param/bias"), grads, strict=True):
        assert relative(found.flatten(), case[name].flatten()) < GRADIENT, name
    assert relative(module.running_mean, case["running_mean"].flatten()) < VALUE
    assert relative(module.running_whitening, case["running_subspace"]) < VALUE
    assert relative(module.eval()(case["eval_x"]), case["eval_out"]) < VALUE


def correlations(x: Tensor) -> Tensor:
    return torch.corrcoef(x.transpose(0, 1).flatten(1)).fill_diagonal_(0)


def test_channels_of_a_group_lose_their_correlation_and_others_keep_it() -> None:
    x = noise(64, 3, 6, 6)
    x = torch.cat([x, x + 0.5 * x.roll(1, 1)], 1)  # channel k resembles k + 3
    before, after = correlations(x), correlations(ZCAWhitening(6, groups=2)(x).detach())
    assert float(before[3:, 3:].abs().max()) > 0.3
    assert float(after[3:, 3:].abs().max()) < 0.03
    assert float(after[0, 3]) > 0.8


def test_groups_are_whitened_each_by_itself() -> None:
    x = features(8, 6, 4, 4)
    together = ZCAWhitening(6, groups=2)(x)
    apart = torch.cat([ZCAWhitening(3)(x[:, :3]), ZCAWhitening(3)(x[:, 3:])], 1)
    torch.testing.assert_close(together, apart)


def test_a_pretrained_network_computes_in_evaluation_what_it_did() -> None:
    net = resnet18()
    net(noise(4, 3, 32, 32))
    nn.init.uniform_(net.bn1.weight, 0.5, 1.5)
    x = noise(2, 3, 32, 32, seed=1)
    before = net.eval()(x)
    insert(net, {"zca_whitening": {"groups": 4}})
    assert isinstance(net.bn1, ZCAWhitening)
    torch.testing.assert_close(net(x), before)


def test_any_batch_normalization_can_be_replaced_by_its_path() -> None:
    blocks = {"zca_whitening": {"layers": ["bn1", "layer1.0.bn2"], "groups": 16}}
    model = create_model("resnet18", "isqrt", 3, dim=8, until="layer1", blocks=blocks)
    replaced = [name for name, m in model.backbone.named_modules() if isinstance(m, ZCAWhitening)]
    assert replaced == ["bn1", "layer1.0.bn2"]
    assert model.backbone.bn1.groups == 16
    assert model(noise(4, 3, 32, 32)).shape == (4, 3)
    again = type(model).from_config(model.config)
    again.load_state_dict(model.state_dict())
    x = noise(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), model.eval()(x))


def test_half_precision_is_whitened_in_float32() -> None:
    x = features(8, 6, 4, 4).bfloat16()
    module = ZCAWhitening(6)
    out = module(x)
    assert out.dtype == torch.bfloat16
    assert relative(out, ZCAWhitening(6)(x.float())) < 1e-2  # bfloat16 rounds the output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ["bn2"]}, "unknown batch normalization for zca_whitening 'bn2': did you mean bn1"),
        ({"layers": ["conv1"]}, "unknown batch normalization for zca_whitening 'conv1'"),
        ({"layers": "bn1"}, r"layers must be a list of paths such as \[bn1\], got 'bn1'"),
        ({"layers": []}, "layers must be a list of paths"),
        ({"groups": 5}, "groups must divide the 64 channels, got 5"),
        ({"groups": 0}, "groups must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named_with_their_remedy(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        insert(resnet18(), {"zca_whitening": arguments})
