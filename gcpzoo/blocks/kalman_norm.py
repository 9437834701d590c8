"""Batch Kalman normalization in place of batch normalization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from gcpzoo.errors import ZooError
from gcpzoo.functional.checks import check_count, check_probability
from gcpzoo.functional.precision import at_least_float32, without_autocast

TRUSTED = 100.0  # mean ratio of predicted to measured variances from which on a prediction is ignored


class Carried(NamedTuple):
    """A feature map on its way through a network in training, and statistics of its channels in each micro-batch.

    Behind a normalization they are those that it used, behind a convolution those that are predicted for its output.

    Attributes:
        x: ``(N, C, H, W)``.
        mean, variance: ``(S, C)``, S micro-batches.

    >>> Carried(torch.zeros(4, 3, 2, 2), torch.zeros(2, 3), torch.ones(2, 3)).mean.shape
    torch.Size([2, 3])
    """

    x: Tensor
    mean: Tensor
    variance: Tensor


Signal = Tensor | Carried


def kalman_filter(
    mean: Tensor, variance: Tensor, predicted_mean: Tensor, predicted_variance: Tensor, rate: float
) -> tuple[Tensor, Tensor]:
    r"""Measured statistics, corrected by those that the layer before predicts.

    .. math:: m \leftarrow p\hat m + (1-p)m,\qquad v \leftarrow p\hat v + (1-p)v + p(1-p)(m-\hat m)^2

    Where the mean over all channels of :math:`\hat v/v` is 100 or more, or is no number, nothing is corrected.

    Args:
        mean, variance, predicted_mean, predicted_variance: of one shape.
        rate: p.

    Returns:
        Mean and variance.

    >>> kalman_filter(torch.zeros(1), torch.ones(1), torch.ones(1), torch.ones(1), rate=0.5)
    (tensor([0.5000]), tensor([1.2500]))
    """
    trusted = (predicted_variance / variance).mean() < TRUSTED
    between = rate * (1 - rate) * (mean - predicted_mean).square()
    return (
        torch.where(trusted, rate * predicted_mean + (1 - rate) * mean, mean),
        torch.where(trusted, rate * predicted_variance + (1 - rate) * variance + between, variance),
    )


def predict(mean: Tensor, variance: Tensor, conv: nn.Conv2d, noise: Tensor) -> tuple[Tensor, Tensor]:
    r"""Statistics of a convolution's output from those before the ReLU in front of it, by one random map.

    .. math:: \mathrm{conv}\bigl(\mathrm{ReLU}(\sqrt v\,\epsilon + m)\bigr),\qquad \epsilon\sim N(0, 1)

    Args:
        mean, variance: ``(S, C)``.
        conv: from C channels to C'.
        noise: ε, ``(S, C, H, W)``.

    Returns:
        Mean and biased variance over positions, ``(S, C')``.

    >>> conv = nn.Conv2d(2, 3, 1)
    >>> predict(torch.zeros(1, 2), torch.ones(1, 2), conv, torch.ones(1, 2, 4, 4))[1]  # of a constant map
    tensor([[0., 0., 0.]], grad_fn=<VarMeanBackward0>)
    """
    deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()  # a root of 0 has no gradient
    x = F.relu(noise * deviation[:, :, None, None] + mean[:, :, None, None])
    weight, bias = conv.weight.to(x.dtype), None if conv.bias is None else conv.bias.to(x.dtype)
    y = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    variance, mean = torch.var_mean(y, (2, 3), correction=0)
    return mean, variance


class KalmanNorm(nn.Module):
    r"""Batch normalization in micro-batches, whose statistics are filtered with a prediction by the layer before.

    .. math:: y = \gamma\,\frac{x - m}{\sqrt{v + \epsilon}} + \beta

    with m and v of :func:`kalman_filter`, for each channel and micro-batch. Without a prediction, as in a network's
    first layer, it is batch normalization in micro-batches. In evaluation it is batch normalization by running
    averages, which follow the first micro-batch. Parameters and buffers are named as in ``nn.BatchNorm2d``.

    ``module(x)`` gives a :class:`Carried` in training and a tensor in evaluation, and takes either. Several processes
    normalize each its own part of a batch.

    Args:
        channels: C.
        split_num: micro-batches S of a batch. A batch that it does not divide has micro-batches of two sizes, and one
            of fewer images as many micro-batches as images.
        rate: p, the weight of the prediction, from 0 to 1.
        eps: ε.
        momentum: weight of a batch in the running averages.

    >>> norm = KalmanNorm(3, split_num=2)
    >>> norm(torch.randn(4, 3, 5, 5)).variance.shape, norm.eval()(torch.randn(4, 3, 5, 5)).shape
    (torch.Size([2, 3]), torch.Size([4, 3, 5, 5]))

    Source: Wang et al., "Batch Kalman Normalization: Towards Training Deep Neural Networks with Micro-Batches",
    arXiv 1802.03133. Without a prediction it hands on the variance with Bessel's correction, with one the biased
    variance, as the released code does.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        "gamma": "weight",
        "beta": "bias",
        "mean/EMA": "running_mean",
        "variance/EMA": "running_var",
    }
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, channels: int, split_num: int = 1, rate: float = 0.05, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        check_count("split_num", split_num)
        check_probability("rate", rate)
        self.split_num, self.rate, self.eps, self.momentum = split_num, rate, eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    @classmethod
    def of(cls, norm: Any, split_num: int, rate: float) -> KalmanNorm:
        """Take over the parameters and running averages of an ``nn.BatchNorm2d``.

        >>> KalmanNorm.of(nn.BatchNorm2d(3), split_num=2, rate=0.9).rate
        0.9
        """
        new = cls(norm.num_features, split_num, rate, norm.eps, norm.momentum or 0.1)
        new.load_state_dict(norm.state_dict(), assign=True)
        return new.train(norm.training)

    def forward(self, signal: Signal) -> Signal:
        x = signal.x if isinstance(signal, Carried) else signal
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        split = min(self.split_num, len(x))
        values = len(x) // max(split, 1) * x.shape[2] * x.shape[3]  # of a channel in the smallest micro-batch
        if values < 1 + isinstance(signal, Tensor):
            raise ZooError(
                f"kalman_norm needs more than 1 value per channel in each micro-batch, got {tuple(x.shape)} for "
                f"{split} micro-batches: take larger batches, larger images or a smaller split_num"
            )
        with without_autocast(x):
            wide = at_least_float32(x)
            part = torch.arange(len(x), device=x.device) * split // len(x)  # the micro-batch of each image
            members = (part == torch.arange(split, device=x.device)[:, None]).to(wide.dtype)
            counts = members.sum(1, keepdim=True)
            mean = members @ wide.mean((2, 3)) / counts
            variance = members @ (wide - mean[part][..., None, None]).square().mean((2, 3)) / counts
            carried = variance
            if isinstance(signal, Carried):
                mean, variance = kalman_filter(mean, variance, signal.mean, signal.variance, self.rate)
                carried = variance
            else:
                numbers = counts * (x.shape[2] * x.shape[3])
                carried = variance * (numbers / (numbers - 1))
            scale = self.weight * (variance + self.eps).rsqrt()
            y = (wide - mean[part][..., None, None]) * scale[part][..., None, None] + self.bias[:, None, None]
        with torch.no_grad():
            self.running_mean.lerp_(mean[0].to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(carried[0].to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        return Carried(y.to(x.dtype), mean, carried)


class OnMap(nn.Module):
    """A module that works on the map of a :class:`Carried` and leaves its statistics as they are.

    >>> OnMap(nn.ReLU())(Carried(-torch.ones(1, 1, 1, 1), torch.zeros(1, 1), torch.ones(1, 1))).x
    tensor([[[[0.]]]])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, signal: Signal) -> Signal:
        if isinstance(signal, Carried):
            return signal._replace(x=self.module(signal.x))
        out: Tensor = self.module(signal)
        return out


class KalmanBlock(nn.Module):
    """A residual block of torchvision with :class:`KalmanNorm`; its parameters keep their names.

    The prediction goes the way of the features: through each convolution by :func:`predict`, along the shortcut too,
    and the two predictions add where the features do.

    Args:
        block: the block.
        split_num, rate: see :class:`KalmanNorm`.
        last: whether no block follows, so that it gives a tensor in training too.

    >>> KalmanBlock(BasicBlock(16, 16), split_num=2, rate=0.9, last=True)(torch.randn(4, 16, 7, 7)).shape
    torch.Size([4, 16, 7, 7])
    """

    def __init__(self, block: BasicBlock | Bottleneck, split_num: int, rate: float, last: bool = False) -> None:
        super().__init__()
        self.convolutions = 3 if isinstance(block, Bottleneck) else 2
        self.last = last
        self.downsample: Any = None
        for name, module in block.named_children():
            if isinstance(module, nn.Sequential):  # the shortcut: a convolution and a normalization
                module[1] = KalmanNorm.of(module[1], split_num, rate)
            elif isinstance(module, nn.BatchNorm2d):
                module = KalmanNorm.of(module, split_num, rate)
            setattr(self, name, module)

    def forward(self, signal: Signal) -> Signal:
        out = signal
        for k in range(1, self.convolutions + 1):
            out = getattr(self, f"bn{k}")(_convolve(out, getattr(self, f"conv{k}")))
            if k < self.convolutions:
                out = _relu(out)
        shortcut = signal if self.downsample is None else self.downsample[1](_convolve(signal, self.downsample[0]))
        out = _relu(_add(out, shortcut))
        return out.x if self.last and isinstance(out, Carried) else out


def _convolve(signal: Signal, conv: nn.Conv2d) -> Signal:
    """The convolution's output with the prediction for it, which takes a random map of the input's size."""
    if not isinstance(signal, Carried):
        out: Tensor = conv(signal)
        return out
    x, mean, variance = signal
    with without_autocast(x):
        noise = torch.randn(*mean.shape, *x.shape[2:], dtype=mean.dtype, device=x.device)
        statistics = predict(mean, variance, conv, noise)
    return Carried(conv(x), *statistics)


def _relu(signal: Signal) -> Signal:
    return signal._replace(x=F.relu(signal.x)) if isinstance(signal, Carried) else F.relu(signal)


def _add(a: Signal, b: Signal) -> Signal:
    """The sum of maps and predictions; where only one comes with a prediction, without."""
    if isinstance(a, Carried) and isinstance(b, Carried):
        return Carried(a.x + b.x, a.mean + b.mean, a.variance + b.variance)
    return (a.x if isinstance(a, Carried) else a) + (b.x if isinstance(b, Carried) else b)


def insert_kalman_norm(backbone: nn.Module, split_num: int = 1, rate: float = 0.05) -> nn.Module:
    """Put :class:`KalmanNorm` in the place of every batch normalization of a torchvision ResNet, in place.

    The first one has no prediction and is batch normalization in micro-batches. Weights and running averages of a
    pretrained network are taken over. A convolution counts once more in training, on one map a micro-batch. The
    random maps come from PyTorch's generator, which the trainer seeds for every step.

    Args:
        backbone: a network of torchvision's BasicBlock or Bottleneck. Other blocks are inserted before this one.
        split_num, rate: see :class:`KalmanNorm`. The authors take 0.9 for micro-batches of 2 images, and 0.05 for one
            batch of 128 (``split_num=1``).

    Returns:
        ``backbone``.

    Raises:
        ZooError: another kind of network.

    >>> from torchvision.models import resnet18
    >>> net = insert_kalman_norm(resnet18(), split_num=2, rate=0.9)
    >>> type(net.layer1[0].bn2).__name__, net(torch.randn(4, 3, 64, 64)).shape
    ('KalmanNorm', torch.Size([4, 1000]))

    Released code: its shortcuts pad channels with zeros, and so it pads their prediction, across the borders of
    micro-batches. torchvision's shortcuts are convolutions, through which the prediction goes. The paper learns the
    transition from layer to layer; code and this block predict by a random map. The pooling behind the first
    convolution is left out of the prediction.

    Source: Wang et al., "Batch Kalman Normalization: Towards Training Deep Neural Networks with Micro-Batches",
    arXiv 1802.03133.
    """
    stages = [m for n, m in backbone.named_children() if n.startswith("layer") and isinstance(m, nn.Sequential)]
    blocks = [block for stage in stages for block in stage]
    first = getattr(backbone, "bn1", None)
    if not blocks or not isinstance(first, nn.BatchNorm2d):
        raise ZooError("kalman_norm: the backbone must be a ResNet of torchvision with at least its first stage")
    for block in blocks:
        if type(block) not in (BasicBlock, Bottleneck):  # a subclass may compute something else
            raise ZooError(
                f"kalman_norm: the blocks must be those of torchvision's ResNets, got {type(block).__name__}"
            )
    backbone.bn1 = KalmanNorm.of(first, split_num, rate)
    for name in ("relu", "maxpool"):
        setattr(backbone, name, OnMap(getattr(backbone, name)))
    for stage in stages:
        for k, block in enumerate(stage):
            stage[k] = KalmanBlock(block, split_num, rate, last=block is blocks[-1])
    return backbone
