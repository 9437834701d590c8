"""An image explained: what a network says of it, what speaks for that, and a figure of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from gcpzoo.analysis.drawing.style import LIGHT, brief, explain_below, new_figure, write_png
from gcpzoo.analysis.explanations.attribution import Pair, SecondOrderView, feature_attribution, grad_cam, second_order
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.class_labels import class_labels
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.models.surgery import evaluating

METHODS = ("grad_cam", "second_order")
FOR, AGAINST = LIGHT[1], LIGHT[0]
"""Orange and blue, which the colour-blind can tell apart."""
MEANINGS = {
    "Grad-CAM": "Grad-CAM: features weighted by the mean gradient of the class's logit, 0 to 1 within the image.",
    "second order": "Second order: what each position adds to the logit through the covariance; below it the pairs of "
    "channels whose covariance adds most, and where.",
    "first order": "First order: what each position adds through the mean of the features.",
    "gradient × features": "Gradient × features: what each position adds to the logit; this head has no covariance.",
}


@dataclass(frozen=True)
class Explanation:
    """What a network says of an image, and what speaks for it.

    Attributes:
        pixels: what the network saw, uint8 ``(3, H, W)``.
        label: the class that is explained; ``description`` is what people read.
        probability: of that class.
        likeliest: description and probability of the likeliest class.
        maps: name → what each position says, ``(h, w)``.
        view: the second-order view, where it was asked for and the head has one.

    >>> Explanation(torch.zeros(3, 2, 2), 0, "tench", 0.9, ("tench", 0.9)).maps
    {}
    """

    pixels: Tensor
    label: int
    description: str
    probability: float
    likeliest: tuple[str, float]
    maps: dict[str, Tensor] = field(default_factory=dict)
    view: SecondOrderView | None = None

    def to_dict(self, pairs: int = 10) -> dict[str, Any]:
        """Return plain JSON values: the class, and the pairs of channels that speak most for it and against it.

        >>> Explanation(torch.zeros(3, 2, 2), 0, "tench", 0.9, ("tench", 0.9)).to_dict()["probability"]
        0.9
        """
        values: dict[str, Any] = {"description": self.description, "probability": round(self.probability, 6)}
        if self.view is not None:
            view = self.view
            values["logit"] = view.logit
            values["second_order"] = float(view.map.sum())
            values["first_order"] = None if view.first_order is None else float(view.first_order.sum())
            values["pairs_for"] = [vars(pair) for pair in view.pairs(pairs)]
            values["pairs_against"] = [vars(pair) for pair in view.pairs(pairs, against=True)]
        return values | {"maps": {name: m.tolist() for name, m in self.maps.items() if name != "Grad-CAM"}}


def find_class(model: GCPNet, name: str) -> int:
    """Find a class by its id or by what people read.

    Raises:
        ZooError: if no class is called so, or several are.

    >>> from gcpzoo.hub import load
    >>> find_class(load("resnet18_isqrt.digits"), "7")
    7
    """
    ids, descriptions = class_labels(model)
    found = [i for i, one in enumerate(ids) if one == name] or [i for i, d in enumerate(descriptions) if d == name]
    if not found:
        raise unknown_name("class", name, [*ids, *descriptions])
    if len(found) > 1:
        raise ZooError(f"{len(found)} classes are called {name!r}: give an id, {' or '.join(ids[i] for i in found)}")
    return found[0]


def explain_image(
    model: GCPNet, image: Image.Image, label: int | None = None, methods: Sequence[str] = METHODS
) -> Explanation:
    """Classify an image and attribute a class to its positions.

    Args:
        model: of images.
        image: as :func:`gcpzoo.data.images.read_image` gives it.
        label: number of the class; ``None``: the likeliest.
        methods: ``grad_cam`` and ``second_order``, see :mod:`gcpzoo.analysis.explanations.attribution`. For a head
            that is no function of a covariance ``second_order`` gives gradient × features instead, and the map says so.

    Raises:
        ZooError: if a method is unknown, or the model answers with values that are not finite.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 3, until="layer1").eval()
    >>> list(explain_image(model, Image.new("RGB", (64, 64)), methods=["second_order"]).maps)
    ['gradient × features']
    """
    for method in methods:
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
    rule = model.preprocessing or Preprocessing()
    pixels: Tensor = rule.pixels()(image)
    x = rule.normalize(pixels)
    parameter = next(model.parameters())
    with torch.no_grad(), evaluating(model):
        p = model(x[None].to(parameter.device, parameter.dtype)).double().softmax(1)[0].cpu()
    if not p.isfinite().all():
        raise ZooError("the model answers with values that are not finite: its weights are damaged")
    _, names = class_labels(model)
    best = int(p.argmax())
    label = best if label is None else label
    maps: dict[str, Tensor] = {}
    view = None
    if "grad_cam" in methods:
        maps["Grad-CAM"] = grad_cam(model, x, label)
    if "second_order" in methods:
        try:
            view = second_order(model, x, label)
            maps["second order"] = view.map
            if view.first_order is not None:
                maps["first order"] = view.first_order
        except ZooError as error:
            if "use feature_attribution" not in str(error):
                raise
            maps["gradient × features"] = feature_attribution(model, x, label)
    return Explanation(pixels, label, names[label], float(p[label]), (names[best], float(p[best])), maps, view)


def draw_explanation(explanation: Explanation, path: Path, pairs: int = 3) -> None:
    """Draw the image beside what speaks for the class (orange) and against it (blue), as PNG.

    Args:
        explanation: of :func:`explain_image`.
        path: the PNG to write.
        pairs: of channels to show, each with the positions where its covariance comes from.

    >>> import tempfile
    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "isqrt", 3, dim=4, until="layer1").eval()
    >>> path = Path(tempfile.mkdtemp()) / "image.png"
    >>> draw_explanation(explain_image(model, Image.new("RGB", (64, 64)), methods=["second_order"]), path)
    >>> path.is_file()
    True
    """
    e = explanation
    shown = e.view.pairs(pairs) if e.view is not None else []
    columns = max(1 + len(e.maps), len(shown) + 1 if shown else 0)
    figure, axes = new_figure(2.6 * columns, 3.5 + (2.9 if shown else 0), columns, 2 if shown else 1)
    for axis in axes:
        axis.set_axis_off()
    pixels = e.pixels.permute(1, 2, 0).numpy()
    axes[0].imshow(pixels)
    axes[0].set_title("what the network sees", fontsize=9)
    for axis, (name, marks) in zip(axes[1:], e.maps.items()):
        axis.imshow(blend(pixels, marks))
        total = "" if name == "Grad-CAM" else f", {float(marks.sum()):+.2f} in all"
        axis.set_title(f"{name}{total}", fontsize=9)
    if e.view is not None and shown:
        _draw_pair_bars(axes[columns], shown)
        scale = max(float(e.view.pair_map(pair.i, pair.j).abs().max()) for pair in shown)
        for axis, pair in zip(axes[columns + 1 :], shown):
            axis.imshow(blend(pixels, e.view.pair_map(pair.i, pair.j), scale))
            axis.set_title(f"channels {pair.i} × {pair.j}", fontsize=9)
    title = f"{brief(e.description, 60)}: {100 * e.probability:.1f} %"
    if e.likeliest[0] != e.description:
        title += f"   (likeliest: {brief(e.likeliest[0], 40)}, {100 * e.likeliest[1]:.1f} %)"
    figure.suptitle(title, fontsize=11)
    colors = "Orange speaks for the class, blue against it. "
    explain_below(figure, colors + " ".join(MEANINGS[name] for name in e.maps))
    write_png(figure, path)


def blend(pixels: np.ndarray, marks: Tensor, scale: float | None = None) -> np.ndarray:
    """Lay marks over an image in grey: orange where they are positive, blue where negative, the stronger the denser.

    Args:
        pixels: uint8 ``(H, W, 3)``.
        marks: ``(h, w)``, enlarged to the image.
        scale: strength of the densest color; by default the strongest mark's.

    Returns:
        uint8 ``(H, W, 3)``.

    >>> blend(np.zeros((1, 3, 3), np.uint8), torch.tensor([[1.0, 0.0, -1.0]]))[0].tolist()
    [[171, 77, 18], [89, 89, 89], [18, 109, 160]]
    """
    from matplotlib.colors import to_rgb

    height, width = pixels.shape[:2]
    large = F.interpolate(marks[None, None].float(), (height, width), mode="bilinear")[0, 0].numpy()[..., None]
    strength = 0.8 * np.clip(np.abs(large) / (scale or float(marks.abs().max()) or 1.0), 0, 1)
    color = np.where(large > 0, to_rgb(FOR), to_rgb(AGAINST))
    grey = 0.35 + 0.6 * pixels.mean(2, keepdims=True) / 255
    mixed: np.ndarray = ((1 - strength) * grey + strength * color) * 255
    return mixed.round().astype(np.uint8)


def _draw_pair_bars(axis: Any, pairs: Sequence[Pair]) -> None:
    """Draw what the pairs add to the logit, with their values."""
    axis.set_axis_on()
    axis.set_box_aspect(1)
    axis.spines[["left", "bottom"]].set_visible(False)
    bars = axis.barh(range(len(pairs)), [pair.contribution for pair in pairs], color=FOR, height=0.55)
    axis.bar_label(bars, [f"{pair.contribution:+.3f}" for pair in pairs], fontsize=8, padding=3)
    axis.set_yticks(range(len(pairs)), [f"{pair.i} × {pair.j}" for pair in pairs], fontsize=8)
    axis.tick_params(left=False, bottom=False, labelbottom=False)
    axis.set(ylim=(len(pairs) - 0.4, -0.9), xlim=(0, 1.35 * pairs[0].contribution))
    axis.set_title("pairs that add most to the logit", fontsize=9)
