"""The feature extractor that every backbone becomes, whichever library built it."""

from __future__ import annotations

from torch import nn

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
"""Children of a network that belong to its classifier; a backbone consists of all others, in their order."""


class Backbone(nn.Sequential):
    """The children of a network up to its classifier, under their own names: torchvision's state-dict keys fit.

    Attributes:
        name: the name that :func:`~gcpzoo.models.create_backbone` was called with.
        num_features: number of channels C of the feature map.
        num_prefix_tokens: number of class (and distillation) tokens before the positions; 0 for maps.
        last_stride: 1 if the last stage keeps its resolution, 2 if it halves it, ``None`` if there is no choice.
        input_size: side in pixels of the images that the network was made for.
        mean, std: normalization that the pretrained weights expect.
        dropped_keys: state-dict keys of the stages that ``until`` cut off.

    >>> from collections import OrderedDict
    >>> from torch import nn
    >>> backbone = Backbone(OrderedDict(conv1=nn.Conv2d(3, 8, 3), relu=nn.ReLU()))
    >>> list(backbone.state_dict()), backbone.input_size
    (['conv1.weight', 'conv1.bias'], 224)
    """

    name: str = ""
    num_features: int = 0
    num_prefix_tokens: int = 0
    last_stride: int | None = None
    input_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    dropped_keys: frozenset[str] = frozenset()

    @property
    def network(self) -> nn.Module:
        """The module whose children carry the library's own names: the backbone itself, or timm's network in it.

        >>> backbone = Backbone()
        >>> backbone.network is backbone
        True
        """
        return self
