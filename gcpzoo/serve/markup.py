"""What a viewer found, as HTML for the web page; every text is escaped, every image is inside."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

from gcpzoo.analysis.explanations.explain import MEANINGS, Explanation, blend
from gcpzoo.errors import printable
from gcpzoo.serve.predictor import ClassScore
from gcpzoo.serve.viewer import Look, Neighbor, Opinion

SMALLEST, LARGEST = 256, 448
"""Least and most pixels of the longer side of what is shown; small images are enlarged without smoothing."""
PAIRS = 3


def show_look(look: Look) -> str:
    """Lay out all that was found.

    >>> show_look(Look("digit.png", (), remarks=("Nothing to see.",)))
    '<div class="zoo-look"...<p class="zoo-remark">Nothing to see.</p>...'
    """
    opinions = "".join(_opinion(opinion, i > 0) for i, opinion in enumerate(look.opinions))
    remarks = "".join(f'<p class="zoo-remark">{_text(remark)}</p>' for remark in look.remarks)
    return (
        f'<div class="zoo-look" data-name="{_text(look.name)}"><div class="zoo-models">{opinions}</div>'
        f"{_neighbors(look.neighbors)}{remarks}{_legend(look.opinions)}</div>"
    )


def show_error(message: str) -> str:
    """Write an error as one line that screen readers announce.

    >>> show_error("cannot read image <b>.png: not an image")
    '<p class="zoo-error" role="alert">cannot read image &lt;b&gt;.png: not an image</p>'
    """
    return f'<p class="zoo-error" role="alert">{_text(message)}</p>'


def show_hint(text: str) -> str:
    """Say what to do, where there is nothing to show yet.

    >>> show_hint("Drop an image.")
    '<p class="zoo-hint">Drop an image.</p>'
    """
    return f'<p class="zoo-hint">{_text(text)}</p>'


def percent(probability: float) -> str:
    """Write a probability so that it is never rounded to none or all of it.

    >>> percent(0.97314), percent(0.00004), percent(0.99997)
    ('97.3 %', '< 0.1 %', '> 99.9 %')
    """
    if probability < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if probability >= 0.9995 else f"{100 * probability:.1f} %"


def _opinion(opinion: Opinion, is_control: bool) -> str:
    bars = "".join(_bar(score, first=i == 0) for i, score in enumerate(opinion.scores))
    badge = '<span class="zoo-badge">the GAP control</span>' if is_control else ""
    return (
        f'<section class="zoo-model{" zoo-control" if is_control else ""}" aria-label="{_text(opinion.model)}">'
        f'<h2>{_text(opinion.model)}{badge}</h2><p class="zoo-about">{_text(opinion.about)}</p>'
        f'<ol class="zoo-bars">{bars}</ol>{_maps(opinion.explanation)}</section>'
    )


def _bar(score: ClassScore, first: bool) -> str:
    value = percent(score.probability)
    return (
        f'<li{" class=zoo-first" if first else ""}><span class="zoo-class">{_text(score.description)}</span>'
        f'<span class="zoo-value">{_text(value)}</span>'
        f'<span class="zoo-track"><span style="width:{100 * score.probability:.2f}%"></span></span></li>'
    )


def _maps(e: Explanation) -> str:
    """Show what the network sees, the maps over it, and the pairs of channels that add most."""
    seen = enlarge(e.pixels)
    figures = [_figure(seen, "input", "resized", "what the network sees")]
    for name, marks in e.maps.items():
        total = "" if name == "Grad-CAM" else f"{float(marks.sum()):+.2f} in all"
        figures.append(_figure(blend(seen, marks), name, total, f"{name}: what speaks for {e.description}"))
    shown = [] if e.view is None else e.view.pairs(PAIRS)
    pairs = []
    if e.view is not None and shown:
        maps = [e.view.pair_map(pair.i, pair.j) for pair in shown]
        scale = max(float(marks.abs().max()) for marks in maps)
        for pair, marks in zip(shown, maps):
            name, adds = f"{pair.i} × {pair.j}", f"{pair.contribution:+.3f}"
            pairs.append(_figure(blend(seen, marks, scale), name, adds, f"where channels {name} add to the logit"))
    why = f"<h3>What speaks for “{_text(e.description)}”</h3>"
    rows = f'<div class="zoo-maps">{"".join(figures)}</div>'
    if pairs:
        rows += f'<h3>Pairs of channels that add most to its logit</h3><div class="zoo-maps">{"".join(pairs)}</div>'
    return why + rows


def _neighbors(neighbors: tuple[Neighbor, ...]) -> str:
    figures = ""
    for near in neighbors:
        label = near.label or near.path.rsplit("/", 1)[-1]
        caption = f"cosine {near.cosine:.3f}"
        if near.image is None:
            figures += (
                f"<figure><figcaption><b>{_text(label)}</b> {caption}, cannot be read any more</figcaption></figure>"
            )
        else:
            figures += _figure(np.asarray(near.image), label, caption)
    if not figures:
        return ""
    return f'<section><h3>Nearest training images</h3><div class="zoo-maps zoo-near">{figures}</div></section>'


def _legend(opinions: tuple[Opinion, ...]) -> str:
    names = dict.fromkeys(name for opinion in opinions for name in opinion.explanation.maps)
    if not names:
        return ""
    meanings = "".join(f"<li>{_text(MEANINGS[name])}</li>" for name in names)
    return (
        '<p class="zoo-legend"><span class="zoo-for"></span> speaks for the class '
        f'<span class="zoo-against"></span> against it</p><details><summary>What the maps mean</summary><ul>{meanings}'
        "</ul></details>"
    )


def _figure(pixels: np.ndarray, title: str, detail: str = "", alt: str | None = None) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=90, subsampling=0)
    source = f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"
    return (
        f'<figure><img src="{source}" alt="{_text(alt or title)}">'
        f"<figcaption><b>{_text(title)}</b> {_text(detail)}</figcaption></figure>"
    )


def enlarge(pixels: Tensor) -> np.ndarray:
    """Bring an image to a size that is seen well, ``(H, W, 3)``.

    >>> import torch
    >>> enlarge(torch.zeros(3, 32, 16, dtype=torch.uint8)).shape
    (256, 128, 3)
    """
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    longer = max(image.size)
    if longer > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
    elif longer < SMALLEST:
        factor = -(-SMALLEST // longer)
        image = image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
    return np.asarray(image)


def _text(text: str) -> str:
    return escape(printable(text))
