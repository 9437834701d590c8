"""GCPNet: image → backbone → (reduction → second-order matrix → vector: the head) → classifier."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from gcpzoo.blocks import insert
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.heads import Head, create_head, head_arguments
from gcpzoo.heads.registry import check_arguments, head_class
from gcpzoo.models.backbones import create_backbone
from gcpzoo.models.base import Backbone
from gcpzoo.models.bounded import bounded
from gcpzoo.models.checks import as_mapping, check_backbone_args, check_classes, check_model
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.models.stages import FeatureMaps

TWO_CLASSIFIERS = ("sum", "mean", "mean_norm")
"""Fusions of the logits of a classifier of first-order features with those of the head's."""


class GCPNet(nn.Module):
    """A backbone, a head and a classifier, with timm's contract for features.

    Args:
        backbone: images to features, see :func:`~gcpzoo.models.create_backbone`.
        head: features to a vector, see :func:`~gcpzoo.heads.create_head`.
        num_classes: number of classes of the classifier.
        fusion, hidden, dropout: as in :func:`create_model`.

    Attributes:
        config: the arguments of :func:`create_model` except weights, every choice resolved, as plain JSON values:
            ``GCPNet.from_config(model.config)`` is the same network.
        num_features: length of the vector that the classifier sees.
        class_names: ids of the classes in the order of the logits, if known.
        class_descriptions: what people read in place of the ids, if known.
        preprocessing, record: what a loaded checkpoint knows of itself, else ``None``.

    >>> import torch
    >>> model = create_model("resnet18", "isqrt", num_classes=10, dim=16, until="layer2").eval()
    >>> model(torch.zeros(2, 3, 64, 64)).shape, model.num_features
    (torch.Size([2, 10]), 136)
    """

    CONFIG_KEYS = (
        "backbone", "head", "num_classes", "dim", "head_args", "last_stride", "until", "fusion", "hidden", "dropout",
        "blocks", "backbone_args",
    )  # fmt: skip

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        num_classes: int,
        fusion: str | None = None,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if head.frames > 1 and fusion not in (None, "all"):
            raise ZooError(f"fusion must be null or 'all' with a head that pools clips, {head.name}, got {fusion!r}")
        self.backbone, self.head = backbone, head
        self.fusion, self.hidden, self.dropout = fusion, tuple(hidden), dropout
        self.config: dict[str, Any] = {}
        self.class_names: list[str] | None = None
        self.class_descriptions: list[str] | None = None
        self.preprocessing: Preprocessing | None = None
        self.record: Any = None
        first = backbone.num_features if fusion == "concat" else 0
        self.num_features: int = head.out_features + first
        self.reset_classifier(num_classes)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> GCPNet:
        """Build the network of a configuration, with random weights.

        Raises:
            ZooError: if a key is unknown or missing, or a value cannot work.

        >>> model = GCPNet.from_config({"backbone": "resnet18", "until": "layer1", "num_classes": 3, "dim": 8})
        >>> model.num_classes, model.config["head"]
        (3, 'isqrt')
        """
        for key in config:
            if key not in cls.CONFIG_KEYS:
                raise unknown_name("key of a model's configuration", str(key), cls.CONFIG_KEYS)
        if missing := [key for key in ("backbone", "num_classes") if key not in config]:
            raise ZooError(
                "a model's configuration needs at least 'backbone' and 'num_classes', got none for "
                + " and ".join(map(repr, missing))
            )
        model: GCPNet = create_model(**config)
        return model

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one for ``num_classes`` classes, with random weights.

        >>> model = create_model("resnet18", "gap", num_classes=10, until="layer1")
        >>> model.reset_classifier(3)
        >>> model.classifier
        Linear(in_features=64, out_features=3, bias=True)
        """
        check_classes(num_classes)
        sizes = [self.num_features, *self.hidden]
        layers: list[nn.Module] = []
        for size, out in zip(sizes, self.hidden):
            layers += [nn.Linear(size, out), nn.ReLU(inplace=True), nn.Dropout(0.5)]
        linear = nn.Linear(sizes[-1], num_classes)
        self.classifier: nn.Module = nn.Sequential(*layers, linear) if layers else linear
        if self.fusion in TWO_CLASSIFIERS:
            channels = self.backbone.num_features
            self.first_classifier: nn.Module = nn.Linear(channels, num_classes)
            if self.fusion == "mean_norm":
                norm = nn.LayerNorm(channels, eps=1e-6)
                self.first_classifier = nn.Sequential(OrderedDict(norm=norm, fc=self.first_classifier))
        self.num_classes = num_classes
        self.config["num_classes"] = num_classes
        self.class_names = self.class_descriptions = self.record = None

    @property
    def transform(self) -> Any:
        """The torchvision transform from a PIL image to the network's input, as its metrics were measured.

        >>> from PIL import Image
        >>> model = create_model("resnet18", "gap", num_classes=10, until="layer1")
        >>> model.transform(Image.new("RGB", (300, 400))).shape
        torch.Size([3, 224, 224])
        """
        return (self.preprocessing or Preprocessing()).transform()

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to the backbone's features ``(B, C, h, w)``, or ``(B, C, N, 1)`` for tokens.

        >>> import torch
        >>> model = create_model("resnet18", "gap", num_classes=10, until="layer1").eval()
        >>> model.forward_features(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 64, 16, 16])
        """
        features: Tensor = self.backbone(x)
        return features

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to logits ``(B, num_classes)``; with ``pre_logits`` to the vector ``(B, num_features)``.

        >>> import torch
        >>> model = create_model("resnet18", "gap", num_classes=10, until="layer1").eval()
        >>> f = torch.zeros(1, 64, 16, 16)
        >>> model.forward_head(f).shape, model.forward_head(f, pre_logits=True).shape
        (torch.Size([1, 10]), torch.Size([1, 64]))
        """
        prefix: int = self.backbone.num_prefix_tokens
        positions = f if self.fusion == "all" else f[:, :, prefix:]
        v: Tensor = self.head(positions)
        if self.fusion in (*TWO_CLASSIFIERS, "concat"):
            first = f[:, :, 0, 0] if prefix else f.mean((2, 3))
            if self.fusion == "concat":
                v = torch.cat([v, first.to(v.dtype)], 1)
        if pre_logits:
            return v
        dtype = next(self.classifier.parameters()).dtype  # the head gives at least float32
        logits: Tensor = self.classifier(nn.functional.dropout(v, self.dropout, self.training).to(dtype))
        if self.fusion in TWO_CLASSIFIERS:
            logits = logits + self.first_classifier(first)
            return logits if self.fusion == "sum" else logits / 2
        return logits

    def forward_clips(self, clips: Tensor) -> Tensor:
        """Clips ``(B, T, 3, H, W)`` to logits ``(B, num_classes)`` by a head of T frames; the backbone sees each alone.

        Raises:
            ZooError: if this is not a batch of clips with as many frames as the head reads.

        >>> import torch
        >>> model = create_model("resnet18", "tcp", 10, dim=8, until="layer1", head_args={"frames": 4}).eval()
        >>> model.forward_clips(torch.zeros(2, 4, 3, 64, 64)).shape
        torch.Size([2, 10])
        """
        frames = self.head.frames
        if clips.ndim != 5 or clips.shape[1] != frames:
            raise ZooError(
                f"head {self.head.name} with frames={frames} reads clips (B, {frames}, 3, H, W), got shape "
                f"{tuple(clips.shape)}; head='tcp' with head_args={{'frames': T}} pools T frames"
            )
        if frames == 1:
            return self(clips[:, 0])  # type: ignore[no-any-return]
        return self.forward_head(self.forward_features(clips.flatten(0, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)``, or clips where the head reads clips, to logits ``(B, num_classes)``.

        Raises:
            ZooError: if images are given in place of clips, or a second-order head would see a single position, whose
                covariance is zero.

        >>> import torch
        >>> model = create_model("resnet18", "isqrt", num_classes=10, dim=16, until="layer1").eval()
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 10])
        """
        if self.head.frames > 1:
            return self.forward_clips(x)
        f = self.forward_features(x)
        if f.shape[2] * f.shape[3] == 1 and self.head.second_order:
            raise ZooError(
                f"images of {x.shape[3]}×{x.shape[2]} px leave one position in the feature map of "
                f"{self.config.get('backbone')}, whose covariance is zero: use larger images, last_stride=1, "
                "or an earlier stage (until)"
            )
        return self.forward_head(f)


@overload
def create_model(
    backbone: str,
    *,
    features_only: Literal[True],
    last_stride: int | None = ...,
    until: str | None = ...,
    blocks: Mapping[str, Any] | None = ...,
    backbone_args: Mapping[str, Any] | None = ...,
    pretrained_backbone: bool | str = ...,
    backbone_weights: str | Path | Mapping[str, Tensor] | None = ...,
    allow_partial: bool = ...,
) -> FeatureMaps: ...
@overload
def create_model(
    backbone: str,
    head: str = ...,
    num_classes: int = ...,
    dim: int | Sequence[int] | str | None = ...,
    head_args: Mapping[str, Any] | None = ...,
    last_stride: int | None = ...,
    until: str | None = ...,
    fusion: str | None = ...,
    hidden: Sequence[int] = ...,
    dropout: float = ...,
    blocks: Mapping[str, Any] | None = ...,
    backbone_args: Mapping[str, Any] | None = ...,
    pretrained_backbone: bool | str = ...,
    backbone_weights: str | Path | Mapping[str, Tensor] | None = ...,
    allow_partial: bool = ...,
) -> GCPNet: ...
def create_model(
    backbone: str,
    head: str = "isqrt",
    num_classes: int = 1000,
    dim: int | Sequence[int] | str | None = "auto",
    head_args: Mapping[str, Any] | None = None,
    last_stride: int | None = None,
    until: str | None = None,
    fusion: str | None = None,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    blocks: Mapping[str, Any] | None = None,
    backbone_args: Mapping[str, Any] | None = None,
    pretrained_backbone: bool | str = False,
    backbone_weights: str | Path | Mapping[str, Tensor] | None = None,
    allow_partial: bool = False,
    features_only: bool = False,
) -> GCPNet | FeatureMaps:
    """Create a network of any backbone with any head.

    Args:
        backbone: a classification network of torchvision, ``timm:NAME``, or one of ``sovit_drop_*``.
        head: one of ``gcpzoo.list_heads()``.
        num_classes: number of classes of the classifier.
        dim: channels after the reduction layer, or a list to reduce step by step; ``None``: no reduction layer;
            ``"auto"``: the head's own, 256 for most, none for ``gap``, heads of tokens and maps of no more channels.
        head_args: the head's own arguments, e.g. ``{"iterations": 5}``.
        last_stride: 1: the last stage of a ResNet (VGG: the last pooling) keeps the resolution; ``None``: 1 for
            second-order heads if the backbone has the choice, its own 2 for ``gap``. Use the same in a control.
        until: cut the backbone after this stage, e.g. ``"layer3"``.
        fusion: also use the class token (if there is none: the mean over the positions): ``"sum"`` adds the logits of
            two classifiers, ``"mean"`` gives half their sum, ``"mean_norm"`` too with a layer norm before the first
            (moment probing on maps), ``"concat"`` joins the vectors, ``"all"`` gives all tokens to the head.
        hidden: sizes of hidden layers of the classifier (VGG: ``[4096, 4096]``).
        dropout: probability of the dropout before the classifier.
        blocks: parts to insert into the backbone, e.g. ``{"gsop": {"stages": [1, 2, 3]}}`` into a ResNet.
        backbone_args: arguments of the backbone's own constructor.
        pretrained_backbone: fetch the backbone's ImageNet weights from torchvision or timm.
        backbone_weights: a local file (safetensors, pth) or a state dict with the backbone's weights.
        allow_partial: accept backbone weights that lack tensors.
        features_only: give the backbone alone, as :class:`~gcpzoo.models.FeatureMaps` of its stages, without a head.

    Raises:
        ZooError: if a name, argument or stage is unknown, a value cannot work, or weights do not fit.

    >>> import torch
    >>> model = create_model("resnet18", "isqrt", num_classes=200, dim=64, head_args={"iterations": 3}).eval()
    >>> model(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 200])
    >>> create_model("resnet18", "isqr")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown head 'isqr': did you mean isqrt?
    """
    check_model(backbone, head, num_classes, dim, fusion, hidden, dropout)
    head_args, blocks = as_mapping("head_args", head_args), as_mapping("blocks", blocks)
    backbone_args = check_backbone_args(backbone_args)
    check_arguments(head, head_args)
    second_order = head_class(head).second_order
    with bounded():
        net = create_backbone(
            backbone,
            pretrained_backbone,
            backbone_weights,
            last_stride,
            until,
            allow_partial,
            keep_resolution=second_order and not features_only,
            **backbone_args,
        )
        if isinstance(dim, str):  # "auto"
            own = head_class(head).default_dim
            last = own[-1] if isinstance(own, Sequence) else own
            dim = None if last is None or net.num_features <= last else own
        insert(net, blocks)
        if features_only:
            return FeatureMaps(net)
        pooled = create_head(head, net.num_features, dim, **head_args)
        model = GCPNet(net, pooled, num_classes, fusion, hidden, dropout)
    size = net.input_size
    model.preprocessing = Preprocessing(resize=round(size * 8 / 7), crop=size, mean=net.mean, std=net.std)
    model.config = {
        "backbone": backbone,
        "head": head,
        "dim": list(dim) if isinstance(dim, Sequence) else dim,
        "head_args": {**head_arguments(head), **copy.deepcopy(head_args)},
        "num_classes": num_classes,
        "last_stride": net.last_stride,
        "until": until,
        "fusion": fusion,
        "hidden": list(hidden),
        "dropout": dropout,
        "blocks": copy.deepcopy(blocks) or None,
        "backbone_args": backbone_args,
    }
    return model
