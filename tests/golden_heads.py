"""Heads against the authors' values, gradients and gradients of the parameters."""

from __future__ import annotations

from module_tester import our_name, relative
from torch import Tensor, nn

Case = dict[str, Tensor]
OUT, GRADIENT = 1e-5, 1e-4  # float32 results of the authors' code


def load_released(head: nn.Module, case: Case) -> None:
    """Load a case's parameters under the authors' names; each of the file's must have its place, and each of ours."""
    found = {our_name(head, k.removeprefix("param/")): v for k, v in case.items() if k.startswith("param/")}
    head.load_state_dict(found, strict=True)


def check_case(head: nn.Module, case: Case) -> None:
    """Compare output, gradient, and the gradients of the parameters."""
    x = case["x"].clone().requires_grad_()
    out = head(x)
    assert relative(out, case["out"]) < OUT
    (out * case["cotangent"]).sum().backward()
    assert relative(x.grad, case["grad"]) < GRADIENT
    for key, value in case.items():
        if key.startswith("grad_param/"):
            grad = head.get_parameter(our_name(head, key.removeprefix("grad_param/"))).grad
            assert relative(grad, value) < GRADIENT
