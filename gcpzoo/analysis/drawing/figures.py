"""Figures as SVG that read in light and dark, in print and without colors: for pages, where PNG does not suffice.

Text takes the page's color, series take the page's variables ``--series-1`` … and differ by marker and dash as well.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gcpzoo.analysis.drawing.style import LIGHT, STYLE, TEXT, add_legend, new_figure, plain, series
from gcpzoo.errors import printable

LEAST_SHOWN = 1e-6
"""Eigenvalues below this share of the largest are rounding errors of float32 features, or zero."""


def to_svg(figure: Any, name: str, alone: bool = False) -> str:
    """Write a figure as SVG without a fixed size, in the colors of the page it will stand in.

    Args:
        figure: of :func:`new_figure`.
        name: of the figure, so that several can stand in one page; also what a screen reader says.
        alone: whether it becomes a file of its own, which states the colors itself.

    >>> figure, (axis,) = new_figure(3, 2)
    >>> _ = axis.plot([0, 1], **series(0))
    >>> svg = to_svg(figure, "A line")
    >>> 'aria-label="A line"' in svg, "var(--series-1)" in svg, "currentColor" in svg
    (True, True, True)
    """
    from html import escape

    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    for i, color in enumerate(LIGHT):
        text = text.replace(color, f"var(--series-{i + 1})")
    text = text.replace(TEXT, "currentColor")
    prefix = "f" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", text, count=1)
    text = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", text, count=1)
    text = text.replace("<svg", f'<svg role="img" aria-label="{escape(printable(name))}"', 1)
    if alone:
        text = re.sub(r"(<svg[^>]*>)", rf"\1<style>{STYLE}</style>", text, count=1)
    return text


def intervals(rows: Sequence[Mapping[str, Any]], label: str, zero: bool = False) -> Any:
    """Draw values with their intervals, one line for each row, in groups.

    Args:
        rows: ``group`` and ``name``, ``mean`` with ``low`` and ``high`` (null: no interval), ``points`` of the seeds,
            ``series``, and optionally a second interval ``low2`` and ``high2``, drawn thin below.
        label: of the horizontal axis.
        zero: mark zero, for differences.

    >>> row = {"group": "digits", "name": "gap", "mean": 91.0, "low": 90.0, "high": 92.0, "points": [91.0], "series": 0}
    >>> figure = intervals([row], "top-1 accuracy (%)")
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['gap']
    """
    groups = list(dict.fromkeys(row["group"] for row in rows))
    figure, (axis,) = new_figure(7.5, 0.9 + 0.3 * len(rows) + 0.35 * len(groups))
    ticks, names, y = [], [], 0.0
    for group in groups:
        axis.text(
            0,
            y,
            plain(group),
            transform=axis.get_yaxis_transform(),
            fontsize=8,
            style="italic",
            color=TEXT,
            va="center",
        )
        y -= 1
        for row in (r for r in rows if r["group"] == group):
            look = series(row["series"])
            if row["low"] is not None:
                axis.plot([row["low"], row["high"]], [y, y], color=look["color"], linewidth=2)
            if row.get("low2") is not None:
                axis.plot([row["low2"], row["high2"]], [y - 0.3] * 2, color=look["color"], linewidth=1, linestyle=":")
            axis.plot(row["points"], [y] * len(row["points"]), "|", color=look["color"], markersize=8, alpha=0.7)
            axis.plot(row["mean"], y, look["marker"], color=look["color"], markersize=6)
            ticks.append(y)
            names.append(plain(row["name"]))
            y -= 1
    if zero:
        axis.axvline(0, color=TEXT, linewidth=0.8)
    axis.set_yticks(ticks, names)
    axis.set(xlabel=label, ylim=(y + 0.3, 0.7))
    axis.grid(axis="x", color=TEXT, alpha=0.15)
    return figure


def curves(heads: Mapping[str, Sequence[tuple[Any, ...]]], order: Mapping[str, int]) -> Any:
    """Draw accuracy against epochs (left) and against minutes (right); the band spans the seeds.

    Args:
        heads: name → for each epoch its number, the mean, lowest and highest accuracy in %, and the minutes so far.
        order: name → number of the series.

    >>> figure = curves({"gap": [(1, 50.0, 49.0, 51.0, 0.5), (2, 60.0, 60.0, 60.0, 1.0)]}, {"gap": 0})
    >>> figure.axes[0].get_xlabel()
    'epoch'
    """
    figure, (left, right) = new_figure(9.5, 3.6, 2)
    for name, rows in heads.items():
        look = series(order[name])
        epoch, mean, low, high, minutes = (np.array(column, float) for column in zip(*rows))
        for axis, x in ((left, epoch), (right, minutes)):
            axis.plot(x, mean, label=plain(name), markersize=4, **look)
            axis.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set(xlabel="epoch", ylabel="top-1 on validation images (%)")
    right.set(xlabel="minutes of training", ylabel="top-1 on validation images (%)")
    add_legend(left)
    return figure


def spectra(heads: Mapping[str, Mapping[str, Sequence[float]]], order: Mapping[str, int]) -> Any:
    """Draw eigenvalues relative to the largest: before the normalization (left) and after it (right).

    >>> figure = spectra({"isqrt": {"covariance": [1.0, 0.1], "normalized": [1.0, 0.3]}}, {"isqrt": 0})
    >>> [axis.get_title() for axis in figure.axes]
    ['covariance', 'normalized']
    """
    figure, axes = new_figure(9.5, 3.4, 2)
    for axis, kind in zip(axes, ("covariance", "normalized")):
        for name, values in heads.items():
            if kind in values:
                draw_spectrum(axis, values[kind], name, **series(order[name]))
        axis.set(xlabel="number of the eigenvalue", ylabel="relative to the largest", title=kind)
        add_legend(axis)
    return figure


def draw_spectrum(axis: Any, values: Sequence[float], name: str, **look: Any) -> None:
    """Draw a spectrum down to :data:`LEAST_SHOWN`, on a logarithmic axis, and name its effective rank.

    >>> _, (axis,) = new_figure(3, 2)
    >>> draw_spectrum(axis, [1.0, 1.0, 0.0], "isqrt")
    >>> axis.lines[0].get_label(), len(axis.lines[0].get_xdata())
    ('isqrt: effective rank 2.0 of 3', 2)
    """
    w = np.asarray(values, float)
    p = w[w > 0] / w[w > 0].sum()
    rank = float(np.exp(-(p * np.log(p)).sum())) if len(p) else 0.0
    shown = w[w > LEAST_SHOWN]
    label = f"{plain(name)}: effective rank {rank:.1f} of {len(w)}"
    every = max(1, len(shown) // 12)
    axis.semilogy(np.arange(1, len(shown) + 1), shown, label=label, markersize=4, markevery=every, **look)
    axis.xaxis.get_major_locator().set_params(integer=True)


def reliability(heads: Mapping[str, Sequence[tuple[float, float, int]]], order: Mapping[str, int]) -> Any:
    """Draw the share that is right (vertical) against the confidence (horizontal), the diagonal where they agree.

    Args:
        heads: name → mean confidence, share that is right and number of images of each bin that has images.
        order: name → number of the series.

    >>> reliability({"gap": [(0.9, 0.8, 50)]}, {"gap": 0}).axes[0].get_xlabel()
    'confidence'
    """
    figure, (left, right) = new_figure(9.5, 3.6, 2)
    left.plot([0, 1], [0, 1], color=TEXT, linewidth=0.8)
    for name, bins in heads.items():
        confidence, share, images = (np.array(column, float) for column in zip(*bins))
        look = series(order[name])
        left.plot(confidence, share, label=plain(name), markersize=4, **look)
        right.plot(confidence, 100 * images / images.sum(), label=plain(name), markersize=4, **look)
    left.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    right.set(xlabel="confidence", ylabel="images (%)", xlim=(0, 1.02))
    add_legend(left)
    return figure


def confusions(shares: Mapping[str, Any], class_names: Sequence[str]) -> Any:
    """Draw for each head the share of every true class (row) that was predicted as each class (column).

    >>> confusions({"gap": np.eye(2)}, ["cat", "dog"]).axes[0].get_title()
    'gap'
    """
    figure, axes = new_figure(4.6 * len(shares) + 0.8, 4.4, len(shares))
    image: Any = None
    for axis, (name, share) in zip(axes, shares.items()):
        image = axis.imshow(share, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        axis.set(xlabel="predicted class", ylabel="true class", title=plain(name))
        names = list(map(plain, class_names))
        if len(names) <= 20:
            axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
            axis.set_yticks(range(len(names)), names, fontsize=7)
    bar = figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    bar.outline.set_edgecolor(TEXT)
    bar.ax.yaxis.label.set_color(TEXT)
    bar.ax.tick_params(colors=TEXT)
    return figure


def learning_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float, float]]]], order: Mapping[str, int]
) -> Any:
    """Draw accuracy against the number of training images on a logarithmic axis, with intervals; a panel a title.

    Args:
        panels: title → name → for each number of images a class: the number, and the mean, low and high end in %.
        order: name → number of the series.

    >>> figure = learning_curves({"trained": {"gap": [(1, 50.0, 45.0, 55.0), (5, 80.0, 78.0, 82.0)]}}, {"gap": 0})
    >>> figure.axes[0].get_title(), figure.axes[0].get_xlabel()
    ('trained', 'training images a class')
    """
    figure, axes = new_figure(4.75 * len(panels), 3.6, len(panels))
    for axis, (title, heads) in zip(axes, panels.items()):
        for name, rows in heads.items():
            look = series(order[name])
            count, mean, low, high = (np.array(column, float) for column in zip(*rows))
            axis.plot(count, mean, label=plain(name), markersize=4, **look)
            axis.fill_between(count, low, high, color=look["color"], alpha=0.15, linewidth=0)
            axis.set_xscale("log")
            axis.set_xticks(count, [f"{c:g}" for c in count])
            axis.minorticks_off()
        axis.set(xlabel="training images a class", ylabel="top-1 on test images (%)", title=plain(title))
        add_legend(axis, loc="lower right")
    return figure
