"""Every head on an imagined CUDA device: no tensor on the wrong device, no wait for the device, forward and backward.

PyTorch's fake tensors know shapes, dtypes and devices and compute nothing, so that no GPU is needed. Autograd's engine
would need one: each hand-written backward pass is called straight after its forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torchvision.models import resnet18

import gcpzoo
import gcpzoo.functional
from gcpzoo.blocks import insert
from gcpzoo.blocks.gsop import ATTENTIONS, GSoP
from gcpzoo.heads import create_head

Function = torch.autograd.Function


class Context:
    saved_tensors: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *_: Tensor) -> None:
        pass


def functions(parent: Any = Function) -> Iterator[Any]:
    for child in parent.__subclasses__():
        if child.__module__.startswith("gcpzoo."):
            yield child
        yield from functions(child)


@pytest.fixture
def imagined(monkeypatch: pytest.MonkeyPatch) -> None:
    def both_ways(function: Any, *args: Any) -> Any:
        context: Any = Context()
        context.needs_input_grad = tuple(isinstance(a, Tensor) and a.is_floating_point() for a in args)
        out = function.forward(context, *args)
        cotangents = [torch.randn_like(o) for o in (out if isinstance(out, tuple) else (out,))]
        found = function.backward(context, *cotangents)
        for a, gradient in zip(args, found if isinstance(found, tuple) else (found,)):
            if isinstance(gradient, Tensor):
                assert (gradient.device, gradient.dtype, gradient.shape) == (a.device, a.dtype, a.shape)
        return out

    def gradients(_: Any, inputs: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return tuple(torch.randn_like(i) for i in (inputs if isinstance(inputs, (tuple, list)) else (inputs,)))

    for function in set(functions()):
        monkeypatch.setattr(function, "apply", lambda *args, function=function: both_ways(function, *args))
    monkeypatch.setattr(torch.autograd, "grad", gradients)


@torch.no_grad()
def run(module: nn.Module, *shape: int) -> None:
    with FakeTensorMode():
        state = {
            name: torch.empty(t.shape, dtype=t.dtype, device="cuda")
            for name, t in [*module.named_parameters(), *module.named_buffers()]
        }
        out = torch.func.functional_call(module, state, torch.randn(*shape, device="cuda"))
    assert out.device.type == "cuda"


@pytest.mark.parametrize("side", [4, 8])
@pytest.mark.parametrize("head", gcpzoo.list_heads())
def test_head(head: str, side: int, imagined: None) -> None:
    dim = None if head in ("gap", "mgcrp") else 32
    for training in (True, False):
        run(create_head(head, 64, dim).train(training), 4, 64, side, side)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_gsop(attention: str, imagined: None) -> None:
    run(GSoP(64, attention), 2, 64, 16, 16)


@pytest.mark.parametrize("block", [{"kalman_norm": {"split_num": 2}}, {"zca_whitening": {"groups": 4}}], ids=str)
def test_a_network_with_other_normalizations(block: dict[str, Any], imagined: None) -> None:
    for training in (True, False):
        run(insert(resnet18(), block).train(training), 4, 3, 64, 64)


class Wrong(nn.Module):
    def __init__(self, wait: bool) -> None:
        super().__init__()
        self.wait = wait

    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.mean()) if self.wait else x @ torch.eye(x.shape[-1])


@pytest.mark.parametrize(("wait", "error"), [(True, DataDependentOutputException), (False, RuntimeError)])
def test_that_this_finds_faults(wait: bool, error: type[Exception], imagined: None) -> None:
    with pytest.raises(error):
        run(Wrong(wait), 2, 3, 4, 4)
