"""The adaptive rate of DropCov."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from gcpzoo.functional import adaptive_drop_rate, channel_importance, covariance


def batch() -> tuple[Tensor, Tensor]:
    """Features of 4 samples and an importance of their 64 channels that is far from their covariances."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(4, 64, 30, generator=g), torch.randn(4, 64, generator=g).softmax(1)


def rate_of_a_half(rank: int, store: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    x, importance = batch()
    half = slice(2 * rank, 2 * rank + 2)
    torch.save(adaptive_drop_rate(x[half], importance[half]), f"{folder}/{rank}")
    dist.destroy_process_group()


def test_rate_is_the_same_in_all_processes_and_that_of_the_whole_batch(tmp_path: Path) -> None:
    mp.spawn(rate_of_a_half, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    whole = adaptive_drop_rate(*batch())
    halves = [adaptive_drop_rate(*(t[i : i + 2] for t in batch())) for i in (0, 2)]
    assert halves[0] != halves[1]
    assert first == second
    assert torch.allclose(first, whole)
    assert 0 < whole < 1


@pytest.mark.parametrize("d", [2, 8, 64])
def test_rate_is_its_formula_averaged_over_the_batch(d: int) -> None:
    x, importance = (t[:, :d].double() for t in batch())
    cosines = torch.nn.functional.cosine_similarity(importance, covariance(x).sum(2), dim=1)
    expected = (1 - 10 / math.log2(d) * cosines.mean()).clamp(0, 1)
    torch.testing.assert_close(adaptive_drop_rate(x, importance), expected)


def test_importance_is_the_softmax_of_a_convolution_over_channels() -> None:
    x, weight = batch()[0], torch.tensor([[[0.5, 2.0, -1.0]]])
    mean = torch.nn.functional.pad(x.mean(2), (1, 1))
    expected = (0.5 * mean[:, :-2] + 2 * mean[:, 1:-1] - mean[:, 2:]).softmax(1)
    torch.testing.assert_close(channel_importance(x, weight), expected)


def test_channels_that_matter_as_they_covary_are_all_kept() -> None:
    x, _ = batch()
    x = x * torch.arange(1.0, 65)[:, None]
    rows = torch.cov(x[0], correction=0).sum(1).clamp_min(0)
    assert adaptive_drop_rate(x[:1], (rows / rows.sum())[None]) == 0


def test_one_channel_has_no_rate() -> None:
    with pytest.raises(ValueError, match="two channels or more"):
        adaptive_drop_rate(torch.ones(2, 1, 4), torch.ones(2, 1))
