"""The base test that every head goes through."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from module_tester import ModuleTester, features, relative
from torch import nn

from gcpzoo.errors import ZooError
from gcpzoo.heads import create_head


class HeadTester(ModuleTester):
    """Attributes:
    weights_tolerance: of weighted positions against repeated ones; wider where a released layer rounds to float32.
    """

    head: str
    args: ClassVar = {}
    weights_tolerance = 1e-9

    def make(self) -> nn.Module:
        return create_head(self.head, in_features=self.channels, **self.args)

    def output_shape(self, module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], module.out_features)

    def test_leaves_the_global_random_state_alone(self) -> None:
        before = torch.get_rng_state()
        self.make()
        assert torch.equal(before, torch.get_rng_state())

    def test_reduces_before_pooling(self) -> None:
        x = features(2, 10, 4, 5)
        head = create_head(self.head, in_features=10, dim=[8, 4], **self.args).eval()
        alone = create_head(self.head, in_features=4, **self.args).eval()
        rest = {k: v for k, v in head.state_dict().items() if not k.startswith("reduction.")}
        alone.load_state_dict(rest)
        assert torch.equal(head(x), alone(head.reduction(x)))

    def test_reads_tokens_when_told_so(self) -> None:
        head = self.make().eval()
        x = features(2, self.channels, 4, 5)
        assert torch.equal(head(x.flatten(2).mT, tokens=True), head(x))
        with pytest.raises(ZooError, match=r"expects \(B, N, 6\) with tokens=True, got shape"):
            head(x.flatten(2), tokens=True)

    def test_a_masked_position_is_left_out_whatever_it_holds(self) -> None:
        head = self.make().double().eval()
        x = features(2, self.channels, 1, 12, dtype=torch.float64)
        weights = torch.ones(2, 12)
        weights[:, [1, 4, 5, 11]] = 0
        kept = head(x[..., weights[0] > 0])
        x[..., [4, 11]] = torch.nan
        assert relative(head(x, weights=weights), kept) < self.weights_tolerance

    def test_a_position_of_weight_two_counts_twice(self) -> None:
        head = self.make().double().eval()
        x = features(2, self.channels, 1, 12, dtype=torch.float64)
        weights = torch.ones(2, 12)
        weights[:, 3] = 2
        twice = head(torch.cat([x, x[..., 3:4]], 3))
        assert relative(head(x, weights=weights), twice) < self.weights_tolerance
