"""How fast a network is and what a training step keeps in memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

Run = Callable[[], None]


def inference(model: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> Run:
    """Make a function that classifies a batch, and waits until the device is done; autocast computes in ``dtype``.

    >>> inference(nn.Flatten(), torch.ones(2, 3, 4))()
    """
    model.eval()

    def run() -> None:
        with torch.inference_mode(), torch.autocast(x.device.type, dtype, enabled=dtype is not torch.float32):
            model(x)
        _wait(x)

    return run


def training_step(
    model: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, dtype: torch.dtype = torch.float32
) -> Run:
    """Make a function that trains one step: forward, backward, optimizer. It waits until the device is done.

    Args:
        model: a classifier; it is set to train.
        x, y: images and labels.
        optimizer: of the model's parameters.
        dtype: what autocast computes in.

    >>> net = nn.Linear(3, 2)
    >>> training_step(net, torch.ones(4, 3), torch.tensor([0, 1, 1, 1]), torch.optim.SGD(net.parameters()))()
    >>> net.weight.grad.shape
    torch.Size([2, 3])
    """
    model.train()

    def run() -> None:
        with torch.autocast(x.device.type, dtype, enabled=dtype is not torch.float32):
            loss = nn.functional.cross_entropy(model(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _wait(x)

    return run


def in_turns(runs: Sequence[Run], rounds: int) -> list[list[float]]:
    """Measure the wall-clock seconds of several functions that take turns, so that a busy moment meets all of them.

    Each is called once before. Returns one list a function, one value a round.

    >>> [len(seconds) for seconds in in_turns([lambda: None, lambda: None], rounds=3)]
    [3, 3]
    """
    for run in runs:
        run()
    found: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, seconds in zip(runs, found):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    return found


def median_ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles of the ratios of two functions' seconds, round by round.

    >>> median_ratio([2.0, 4.0, 6.0], [1.0, 1.0, 1.0])
    (4.0, 2.0, 6.0)
    """
    ratios = sorted(a / b for a, b in zip(first, second))
    quarter = len(ratios) // 4
    return statistics.median(ratios), ratios[quarter], ratios[-1 - quarter]


def kept_bytes(forward: Callable[[], Tensor]) -> dict[int, int]:
    """Bytes that a forward pass keeps for the backward pass: address of each storage → its size, every one once.

    Only numbers with gradients count, no indices or masks. The same on every device.

    >>> w = torch.ones(5, requires_grad=True)
    >>> sum(kept_bytes(lambda: (w * w).sum()).values())
    20
    """
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.is_floating_point():
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        out = forward()
    del out
    return kept


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()
