"""GCPNet: image → backbone → (reduction → second-order matrix → vector: the head) → classifier."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.heads import create_head, head_arguments
from gcpzoo.heads.registry import check_arguments, head_class
from gcpzoo.models.backbones import FILES, create_backbone
from gcpzoo.models.preprocessing import Preprocessing

FUSIONS = ("sum", "concat", "all")


class GCPNet(nn.Module):
    """A backbone, a head and a classifier, with timm's contract for features.

    Args:
        config: what :func:`create_model` takes but for weights, as plain JSON values; see there.

    Attributes:
        config: the configuration with every choice resolved; ``GCPNet.from_config(model.config)`` is the same network.
        num_features: length of the vector that the classifier sees.
        class_names: ids of the classes in the order of the logits, where known.
        class_descriptions: what people read in place of the ids, where known.
        preprocessing, record: what a loaded checkpoint knows of itself, else ``None``.
    """

    CONFIG_KEYS = (
        "backbone", "head", "num_classes", "dim", "head_args", "last_stride", "until", "fusion", "hidden", "dropout",
        "blocks", "backbone_args",
    )  # fmt: skip

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        num_classes: int,
        fusion: str | None = None,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ZooError(f"num_classes must be at least 1, got {num_classes}")
        if fusion is not None and fusion not in FUSIONS:
            raise unknown_name("fusion", fusion, FUSIONS)
        self.backbone, self.head = backbone, head
        self.fusion, self.hidden, self.dropout = fusion, tuple(hidden), dropout
        self.config: dict[str, Any] = {}
        self.class_names: list[str] | None = None
        self.class_descriptions: list[str] | None = None
        self.preprocessing: Preprocessing | None = None
        self.record: Any = None
        first = backbone.num_features if fusion == "concat" else 0
        self.num_features: int = head.out_features + first  # type: ignore[operator, assignment]
        self.reset_classifier(num_classes)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> GCPNet:
        """The network of a configuration, with random weights; unknown keys are an error that names the known ones."""
        for key in config:
            if key not in cls.CONFIG_KEYS:
                raise unknown_name("key of a model's configuration", key, cls.CONFIG_KEYS)
        if "backbone" not in config:
            raise ZooError("a model's configuration needs at least 'backbone'")
        return create_model(**config)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one for ``num_classes`` classes, started at random."""
        sizes = [self.num_features, *self.hidden]
        layers: list[nn.Module] = []
        for size, out in zip(sizes, self.hidden):
            layers += [nn.Linear(size, out), nn.ReLU(inplace=True), nn.Dropout(0.5)]
        linear = nn.Linear(sizes[-1], num_classes)
        self.classifier: nn.Module = nn.Sequential(*layers, linear) if layers else linear
        if self.fusion == "sum":
            self.first_classifier = nn.Linear(self.backbone.num_features, num_classes)  # type: ignore[arg-type]
        self.num_classes = num_classes
        self.config["num_classes"] = num_classes
        self.class_names = self.class_descriptions = self.record = None

    @property
    def transform(self) -> Any:
        """The torchvision transform from a PIL image to the network's input, as its metrics were measured."""
        return (self.preprocessing or Preprocessing()).transform()

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to the backbone's features ``(B, C, h, w)``, or ``(B, C, N, 1)`` for tokens."""
        return self.backbone(x)

    def forward_head(self, f: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to logits ``(B, num_classes)``; with ``pre_logits`` to the vector ``(B, num_features)``."""
        prefix: int = self.backbone.num_prefix_tokens  # type: ignore[assignment]
        positions = f if self.fusion == "all" else f[:, :, prefix:]
        v = self.head(positions)
        if self.fusion in ("sum", "concat"):
            first = f[:, :, 0, 0] if prefix else f.mean((2, 3))
            if self.fusion == "concat":
                v = torch.cat([v, first.to(v.dtype)], 1)
        if pre_logits:
            return v
        dtype = next(self.classifier.parameters()).dtype  # the head answers in float32 at least
        logits = self.classifier(nn.functional.dropout(v, self.dropout, self.training).to(dtype))
        return logits + self.first_classifier(first) if self.fusion == "sum" else logits

    def forward(self, x: Tensor) -> Tensor:
        f = self.forward_features(x)
        if f.shape[2] * f.shape[3] == 1 and self.head.second_order:
            raise ZooError(
                f"images of {x.shape[3]}×{x.shape[2]} px leave one position in the feature map of "
                f"{self.config.get('backbone')}, whose covariance is zero: use larger images, last_stride=1, "
                "or an earlier stage (until)"
            )
        return self.forward_head(f)


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
) -> GCPNet:
    """Any backbone with any head.

    Args:
        backbone: a classification network of torchvision, or ``timm:NAME``.
        head: one of ``gcpzoo.list_heads()``.
        num_classes: classes of the classifier.
        dim: channels after the reduction layer, or a list (step by step); ``None``: no reduction layer;
            ``"auto"``: the head's own, 256 for most, none for ``gap``, ``mgcrp`` and maps of no more channels.
        head_args: the head's own arguments, e.g. ``{"iterations": 5}``.
        last_stride: 1: the last stage of a ResNet (VGG: the last pooling) keeps the resolution; ``None``: 1 for
            second-order heads where the backbone has the choice, its own 2 for ``gap``. Set it equal in controls.
        until: cut the backbone after this stage, e.g. ``"layer3"``.
        fusion: also use the class token (or the mean of the positions where there is none): ``"sum"`` of two
            classifiers' logits, ``"concat"`` of the vectors, ``"all"`` tokens into the head.
        hidden: sizes of hidden layers of the classifier (VGG: ``[4096, 4096]``).
        dropout: rate of the dropout before the classifier.
        blocks: parts inserted into a ResNet, e.g. ``{"gsop": {"stages": [1, 2, 3]}}``.
        backbone_args: arguments of the backbone's own constructor.
        pretrained_backbone: fetch the backbone's ImageNet weights from torchvision or timm.
        backbone_weights: a local file (safetensors, pth) or a state dict with the backbone's weights.
        allow_partial: accept backbone weights that lack tensors.

    Raises:
        ZooError: unknown names, arguments, stages, and weights that do not fit; each says what there is.
    """
    if not 0 <= dropout <= 1:
        raise ZooError(f"dropout must lie between 0 and 1, got {dropout}")
    if any(size < 1 for size in hidden):
        raise ZooError(f"hidden must be positive sizes, got {list(hidden)}")
    check_arguments(head, head_args or {})
    second_order = head_class(head).second_order
    backbone_args = dict(backbone_args or {})
    if files := FILES & set(backbone_args):
        raise ZooError(
            f"backbone argument {min(files)!r} would read other files; use pretrained_backbone or backbone_weights"
        )
    net = create_backbone(
        backbone,
        pretrained_backbone,
        backbone_weights,
        last_stride,
        until,
        allow_partial,
        keep_resolution=second_order,
        **backbone_args,
    )
    if dim == "auto":
        dim = head_class(head).default_dim
        dim = None if dim is None or net.num_features <= dim else dim
    elif isinstance(dim, str):
        raise ZooError(f"dim is a number, a list of numbers, none or 'auto', got {dim!r}")
    if blocks:
        from gcpzoo.blocks import insert

        insert(net, blocks)
    pooled = create_head(head, net.num_features, dim, **(head_args or {}))
    model = GCPNet(net, pooled, num_classes, fusion, hidden, dropout)
    size = net.input_size
    model.preprocessing = Preprocessing(resize=round(size * 8 / 7), crop=size, mean=net.mean, std=net.std)
    model.config = {
        "backbone": backbone,
        "head": head,
        "dim": list(dim) if isinstance(dim, Sequence) else dim,
        "head_args": {**head_arguments(head), **copy.deepcopy(dict(head_args or {}))},
        "num_classes": num_classes,
        "last_stride": net.last_stride,
        "until": until,
        "fusion": fusion,
        "hidden": list(hidden),
        "dropout": dropout,
        "blocks": copy.deepcopy(dict(blocks)) if blocks else None,
        "backbone_args": backbone_args,
    }
    return model
