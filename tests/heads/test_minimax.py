"""Heads whose root is the chain of minimax polynomials, and its use in place of an eigendecomposition in ONNX."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from head_tester import HeadTester
from module_tester import Compiles, Exports, features, relative
from torch import nn

from gcpzoo.errors import ZooError
from gcpzoo.functional import minimax_sqrt, triangle
from gcpzoo.heads import create_head, list_heads


class TestMinimax(Compiles, Exports, HeadTester):
    head = "isqrt"
    args: ClassVar = {"root": "minimax"}


class TestMinimaxSixStepsGroups(HeadTester):
    head = "isqrt"
    args: ClassVar = {"root": "minimax", "steps": 6, "cov_groups": 2}


@pytest.mark.parametrize("name", ["mpn_cov", *(name for name in list_heads() if name.startswith("svd_"))])
class TestSubstitute(Exports):
    """Any head of the exact root, exported with ``switch_root("minimax")``."""

    channels = 6

    @pytest.fixture(autouse=True)
    def _named(self, name: str) -> None:
        self.name = name

    def make(self) -> nn.Module:
        head = create_head(self.name, in_features=self.channels)
        head.switch_root("minimax")  # type: ignore[operator]
        return head

    def test_it_is_near_the_exact_root(self) -> None:
        x = features(2, self.channels, 4, 5)
        exact = create_head("mpn_cov", in_features=self.channels)(x)
        assert relative(self.make()(x), exact) < 4.1e-3  # of the polynomials


def test_steps_are_the_heads_own_argument() -> None:
    x = features(2, 6, 4, 5)
    head = create_head("isqrt", in_features=6, root="minimax", iterations=9, steps=3)
    assert torch.equal(head(x), triangle(minimax_sqrt(x, 3)))
    assert torch.equal(create_head("isqrt", in_features=6, root="minimax")(x), triangle(minimax_sqrt(x, 4)))
    with pytest.raises(ZooError, match="steps must be 3, 4, 5 or 6, got 2"):
        create_head("isqrt", in_features=6, steps=2)


@pytest.mark.parametrize("args", [{"alpha": 0.7}, {"norm": "l2"}, {"logarithm": True}], ids=str)
def test_mpn_cov_refuses_another_root_where_it_is_not_a_square_root(args: dict[str, Any]) -> None:
    head = create_head("mpn_cov", in_features=6, **args)
    with pytest.raises(ZooError, match="root must be 'exact' unless alpha is 0.5 without norm or logarithm"):
        head.switch_root("minimax")  # type: ignore[operator]
    with pytest.raises(ZooError, match="got 'minimax'"):
        create_head("mpn_cov", in_features=6, root="minimax", **args)
    with pytest.raises(ZooError, match="did you mean minimax"):
        head.switch_root("minimix")  # type: ignore[operator]
    assert head.root == "exact"
