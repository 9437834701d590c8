"""Backbones: a name of torchvision, or ``timm:NAME``, to a feature extractor ``(B, 3, H, W)`` → ``(B, C, h, w)``.

Networks of transformer tokens give ``(B, C, N, 1)``, their ``num_prefix_tokens`` class tokens first.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.weights import misfit, read_tensors

TAIL = (
    "avgpool",
    "classifier",
    "fc",
    "flatten",
    "dropout",
    "head",
    "heads",
    "AuxLogits",
    "aux1",
    "aux2",
    "last_linear",
)
"""Children of torchvision's networks that belong to the classifier; a backbone is all the others, in their order."""

FILES = {"checkpoint_path", "weights", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
"""Arguments of the libraries' constructors that make them read or fetch files."""


class Backbone(nn.Sequential):
    """The children of a network up to its classifier, under their own names: its state dict has torchvision's keys.

    Attributes:
        name: the name it was created by.
        num_features: channels C of the feature map.
        num_prefix_tokens: class (and distillation) tokens at the beginning of the positions, 0 for maps.
        last_stride: 1 where the last stage keeps its resolution, 2 where it halves it, ``None``: no choice.
        input_size: the side of the images, in pixels, that the network was made for.
        mean, std: of the normalization that its pretrained weights expect.
    """

    name: str = ""
    num_features: int = 0
    num_prefix_tokens: int = 0
    last_stride: int | None = None
    input_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    dropped_keys: frozenset[str] = frozenset()


class _ViT(Backbone):
    """torchvision's VisionTransformer without its classifier."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.conv_proj, self.encoder, self.class_token = net.conv_proj, net.encoder, net.class_token
        self.num_prefix_tokens = 1

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv_proj(x).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1)
        return self.encoder(tokens).mT.unsqueeze(3)


class _Timm(Backbone):
    """A timm network: its features, brought from NHWC or tokens to ``(B, C, h, w)``."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.channels_last = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.net.forward_features(x) if hasattr(self.net, "forward_features") else self.net(x)[-1]
        if not isinstance(y, Tensor):
            raise ZooError(f"{self.name} gives {type(y).__name__} of features, not one feature map")
        if y.ndim == 3:
            return y.mT.unsqueeze(3)
        return y.permute(0, 3, 1, 2) if self.channels_last else y


@functools.cache
def list_backbones(timm: bool = False) -> list[str]:
    """Names of all backbones: torchvision's classification networks, and with ``timm`` timm's as ``timm:NAME``."""
    from torchvision import models

    names = models.list_models(module=models)
    if timm:
        import timm as library

        names += [f"timm:{n}" for n in library.list_models()]
    return names


def create_backbone(
    name: str,
    pretrained: bool | str = False,
    weights: str | Path | Mapping[str, Tensor] | None = None,
    last_stride: int | None = None,
    until: str | None = None,
    allow_partial: bool = False,
    keep_resolution: bool = False,
    **kwargs: Any,
) -> Backbone:
    """A feature extractor by name.

    Args:
        name: a classification network of torchvision (``resnet50``), or ``timm:NAME``.
        pretrained: fetch the library's ImageNet weights; a string picks one of torchvision's, e.g. ``IMAGENET1K_V1``.
        weights: a safetensors or pth file (read without unpickling code), or a state dict, for the backbone.
        last_stride: 1 keeps the resolution in the last stage (ResNets: ``layer4`` at stride 1, dilation 1; VGG: no last
            pooling), as all published covariance pooling networks do; 2 is the network's own; ``None``: its own.
        until: cut after this stage, e.g. ``layer3``, ``features.13``.
        allow_partial: accept weights that lack some of the backbone's tensors, which then keep their random start.
        keep_resolution: let ``last_stride=None`` mean 1 where the network has the choice.
        kwargs: arguments of the network's own constructor.

    Raises:
        ZooError: unknown name, stage or argument; a network without the surgery asked for; weights that do not fit.
    """
    if pretrained and weights is not None:
        raise ZooError("give either pretrained weights or a weights file for the backbone, not both")
    build = _from_timm if name.startswith("timm:") else _from_torchvision
    backbone = build(name, pretrained, until, kwargs)
    backbone.name = name
    if last_stride is None and keep_resolution and backbone.last_stride is not None:
        last_stride = 1
    if last_stride is not None and until is None:
        _set_last_stride(backbone, last_stride)
    elif last_stride == 1:
        raise ZooError(f"last_stride=1 changes the last stage of {name}, which until={until!r} cuts off")
    if weights is not None:
        load_backbone_weights(backbone, weights, allow_partial)
    _probe(backbone)
    return backbone


def _from_torchvision(name: str, pretrained: bool | str, until: str | None, kwargs: dict[str, Any]) -> Backbone:
    from torchvision import models

    if name not in list_backbones():
        raise unknown_name("backbone", name, list_backbones() + list_backbones(timm=True))
    if name in ("googlenet", "inception_v3"):
        kwargs = {"aux_logits": bool(pretrained), "init_weights": False, "transform_input": False, **kwargs}
    weights = "DEFAULT" if pretrained is True else pretrained or None
    try:
        net = models.get_model(name, weights=weights, **kwargs)
    except (TypeError, KeyError, ValueError) as error:
        raise ZooError(f"backbone {name!r} refuses its arguments: {error}") from error
    except OSError as error:  # no network, or a damaged download
        raise ZooError(
            f"the pretrained weights of {name!r} could not be fetched ({error}); give a file with backbone_weights"
        ) from error
    if isinstance(net, models.VisionTransformer):
        if until:
            raise ZooError(f"{name} cannot be cut: until is for networks of stages")
        net.heads = nn.Identity()
        vit = _ViT(net)
        vit.input_size = net.image_size
        return vit
    stages = OrderedDict((n, m) for n, m in net.named_children() if n not in TAIL)
    if isinstance(net, models.DenseNet):
        stages["relu"] = nn.ReLU(inplace=True)
    for n, m in stages.items():
        if isinstance(m, nn.ModuleList):
            stages[n] = nn.Sequential(*m)
    keys = {f"{n}.{k}" for n, m in stages.items() for k in m.state_dict()}
    kept = _cut(name, stages, until)
    if isinstance(net, models.SwinTransformer):
        kept["permute"] = net.permute  # from NHWC, also where the network is cut
    backbone = Backbone(kept)
    backbone.dropped_keys = frozenset(keys - set(backbone.state_dict()))
    backbone.input_size = 299 if name == "inception_v3" else 224
    if name in ("googlenet", "inception_v3"):  # what torchvision's transform_input makes of ImageNet's normalization
        backbone.mean = backbone.std = (0.5, 0.5, 0.5)
    backbone.last_stride = 2 if until is None and _last_stage(backbone) is not None else None
    return backbone


def _cut(name: str, stages: OrderedDict[str, nn.Module], until: str | None) -> OrderedDict[str, nn.Module]:
    """The stages up to and with ``until``, which may name a child of a sequential stage (``features.13``)."""
    if until is None:
        return stages
    stage, _, inner = until.partition(".")
    if stage not in stages or (inner and inner not in dict(stages[stage].named_children())):
        inside = [f"{n}.{c}" for n, m in stages.items() if isinstance(m, nn.Sequential) for c, _ in m.named_children()]
        raise unknown_name(f"stage of {name}", until, [*stages, *inside])
    names = list(stages)
    kept = OrderedDict((n, stages[n]) for n in names[: names.index(stage) + 1])
    if inner:
        children = list(kept[stage].named_children())
        end = [n for n, _ in children].index(inner)
        kept[stage] = nn.Sequential(OrderedDict(children[: end + 1]))
    return kept


def _from_timm(name: str, pretrained: bool | str, until: str | None, kwargs: dict[str, Any]) -> Backbone:
    import timm

    short = name.removeprefix("timm:")
    if not timm.is_model(short):
        raise unknown_name("backbone", name, list_backbones(timm=True))
    net: Any
    try:
        if until is None:
            net = timm.create_model(short, pretrained=bool(pretrained), num_classes=0, **kwargs)
        else:
            probe: Any = timm.create_model(short, features_only=True, **kwargs)
            info = [i["module"] for i in probe.feature_info.info]
            if until not in info:
                raise unknown_name(f"stage of {name}", until, info)
            index = (info.index(until),)
            net = timm.create_model(short, pretrained=bool(pretrained), features_only=True, out_indices=index, **kwargs)
    except ZooError:
        raise
    except Exception as error:  # timm raises plain RuntimeError, TypeError and the Hub's errors
        raise ZooError(f"timm cannot make {short!r}: {str(error).splitlines()[0]}") from error
    backbone = _Timm(net)
    has_class_token = getattr(net, "cls_token", None) is not None
    backbone.num_prefix_tokens = getattr(net, "num_prefix_tokens", int(has_class_token))
    known = getattr(net, "pretrained_cfg", None) or {}
    backbone.input_size = known.get("input_size", (3, 224, 224))[-1]
    backbone.mean, backbone.std = tuple(known.get("mean", backbone.mean)), tuple(known.get("std", backbone.std))
    if hasattr(net, "patch_embed") and hasattr(net.patch_embed, "img_size") and net.patch_embed.img_size:
        backbone.input_size = net.patch_embed.img_size[-1]
    backbone.last_stride = 2 if until is None and _last_stage(backbone) is not None else None
    return backbone


def _last_stage(backbone: nn.Module) -> nn.Module | None:
    """The part that ``last_stride`` changes: a ResNet's ``layer4``, the ``features`` of a VGG; ``None`` elsewhere."""
    net: Any = getattr(backbone, "net", backbone)
    if hasattr(net, "layer4"):
        return net.layer4
    features: Any = getattr(net, "features", None)
    is_vgg = isinstance(features, nn.Sequential) and all(
        isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.ReLU | nn.MaxPool2d) for m in features
    )
    return features if is_vgg and isinstance(features[-1], nn.MaxPool2d) and len(features) > 13 else None


def _set_last_stride(backbone: Backbone, stride: int) -> None:
    if stride not in (1, 2):
        raise ZooError(f"last_stride is 1 or 2, got {stride}")
    stage = _last_stage(backbone)
    if stage is None:
        if stride == 1:
            raise ZooError(f"{backbone.name} has no last stage whose stride could be 1 (ResNets and VGGs have)")
        return
    backbone.last_stride = stride
    if stride == 2:
        return
    if isinstance(stage, nn.Sequential) and isinstance(stage[-1], nn.MaxPool2d):
        getattr(backbone, "net", backbone).features = stage[:-1]
        return
    block = next(stage.children())
    for parent in block.modules():
        for child, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
            elif isinstance(module, nn.AvgPool2d):
                setattr(parent, child, nn.Identity())


@torch.no_grad()
def _probe(backbone: Backbone) -> None:
    """Find ``num_features`` and the layout by a forward pass on the meta device, which computes nothing."""
    meta = {k: v.to("meta") for k, v in [*backbone.named_parameters(), *backbone.named_buffers()]}
    training = backbone.training
    backbone.eval()
    try:
        size = (1, 3, backbone.input_size, backbone.input_size)
        y = torch.func.functional_call(backbone, meta, torch.zeros(size, device="meta"))
    except RuntimeError as error:
        raise ZooError(f"backbone {backbone.name!r} gives no feature map: {error}") from error
    finally:
        backbone.train(training)
    if not isinstance(y, Tensor) or y.ndim != 4:
        raise ZooError(f"backbone {backbone.name!r} gives no feature map (B, C, h, w)")
    if isinstance(backbone, _Timm) and y.shape[3] > 1 and _is_channels_last(backbone.net, y):
        backbone.channels_last = True
        y = y.permute(0, 3, 1, 2)
    backbone.num_features = y.shape[1]


def _is_channels_last(net: Any, y: Tensor) -> bool:
    if hasattr(net, "feature_info") and not hasattr(net, "forward_features"):
        channels = net.feature_info.channels()[-1]
    else:
        channels = net.num_features
    if y.shape[1] == y.shape[3]:
        return str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
    return y.shape[3] == channels


def load_backbone_weights(
    backbone: Backbone, weights: str | Path | Mapping[str, Tensor], allow_partial: bool = False
) -> tuple[str, ...]:
    """Load the backbone's tensors, from a file or a state dict in torchvision's or timm's own keys.

    The classifier's tensors, and those of stages that were cut off, are passed over.

    Returns:
        The keys that were missing; they are allowed with ``allow_partial`` only.

    Raises:
        ZooError: missing, unexpected or misshapen tensors, each named.
    """
    source = f"{str(weights)!r}" if isinstance(weights, str | Path) else "the given state dict"
    state = read_tensors(weights) if isinstance(weights, str | Path) else dict(weights)
    target = getattr(backbone, "net", backbone)
    own = target.state_dict()
    classifier = getattr(target, "pretrained_cfg", {}).get("classifier") or ()
    tail = TAIL + ((classifier,) if isinstance(classifier, str) else tuple(classifier))
    ignored = tuple(f"{t}." for t in tail)
    kept = {k: v for k, v in state.items() if k in own or not (k in backbone.dropped_keys or k.startswith(ignored))}
    found = misfit({k: v for k, v in own.items() if k in kept or not k.endswith("num_batches_tracked")}, kept)
    if found.unexpected or found.misshapen or len(found.missing) == len(own):
        raise ZooError(f"{source} is not of backbone {backbone.name!r}: {found}")
    if found.missing and not allow_partial:
        names = ", ".join(found.missing[:6]) + (
            f", … ({len(found.missing) - 6} more)" if len(found.missing) > 6 else ""
        )
        raise ZooError(
            f"{source} lacks {len(found.missing)} tensors of backbone {backbone.name!r}: {names}; "
            "cut the backbone before them (until), or allow_partial to start them at random"
        )
    target.load_state_dict(kept, strict=False)
    return found.missing


def find_modules(backbone: nn.Module, paths: Sequence[str]) -> list[nn.Module]:
    """Find modules of a backbone by their paths."""
    target: nn.Module = getattr(backbone, "net", backbone)
    known = dict(target.named_modules())
    for path in paths:
        if path not in known:
            raise unknown_name("module of the backbone", path, [n for n in known if n])
    return [known[path] for path in paths]
