"""How all figures look, PNG and SVG: colors that the colour-blind can tell apart, markers, axes, names."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from gcpzoo.errors import printable
from gcpzoo.paths import replacing

LIGHT = ("#0072b2", "#c04a00", "#00795a", "#a2508a", "#8a6d00", "#2b7bba", "#444444", "#7a3b00")
DARK = ("#56b4e9", "#ff9447", "#2fcf9f", "#e79cc9", "#f0e442", "#8fc1ff", "#bbbbbb", "#d9a066")
"""Okabe and Ito's colors, which the colour-blind can tell apart, darker for light pages and lighter for dark ones."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 3)))
TEXT = "#010203"
"""Stands for the page's own color of text until the figure is written."""
STYLE = (
    f"svg{{color:#1a1a1a;{''.join(f'--series-{i + 1}:{c};' for i, c in enumerate(LIGHT))}}}"
    f"@media screen and (prefers-color-scheme:dark){{svg{{color:#e8e8e8;"
    f"{''.join(f'--series-{i + 1}:{c};' for i, c in enumerate(DARK))}}}}}"
)
"""Colors of a figure; a page that holds several states them once."""


def series(i: int) -> dict[str, Any]:
    """Color, marker and dash of a series of points.

    >>> series(0)["marker"], series(8)["marker"], series(8)["color"] == series(0)["color"]
    ('o', 's', True)
    """
    k = i % len(LIGHT)
    return {"color": LIGHT[k], "marker": MARKERS[(i + i // len(LIGHT)) % len(MARKERS)], "linestyle": DASHES[k]}


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, list[Any]]:
    """Make a figure in the page's colors; its axes row by row.

    >>> _, axes = new_figure(6, 3, columns=2)
    >>> len(axes)
    2
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    colors = {f"{key}.color": TEXT for key in ("xtick", "ytick", "text")}
    rules: dict[Any, Any] = {
        "axes.edgecolor": TEXT,
        "axes.labelcolor": TEXT,
        "axes.titlecolor": TEXT,
        "font.size": 9,
        **colors,
    }
    with rc_context(rules):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    figure.patch.set_alpha(0)
    for axis in axes:
        axis.patch.set_alpha(0)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plain(text: str) -> str:
    """Keep matplotlib from reading a name as mathematics, and the figure free of control characters.

    >>> print(plain("cost $5"))
    cost \\$5
    """
    return printable(text).replace("$", r"\$")


def brief(text: str, most: int = 32) -> str:
    """Keep the beginning of a name, as :func:`plain` does; what is longer than ``most`` characters ends with ….

    >>> brief("058.Pigeon_Guillemot", most=10), brief("tench")
    ('058.Pigeo…', 'tench')
    """
    text = printable(text)
    return plain(text if len(text) <= most else f"{text[: most - 1].rstrip()}…")


def add_legend(axis: Any, **where: Any) -> None:
    """Add a legend, if anything has a label.

    >>> _, (axis,) = new_figure(3, 2)
    >>> add_legend(axis)
    >>> axis.get_legend() is None
    True
    """
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8, labelcolor=TEXT, **where)


def label_lines(axis: Any, gap: float = 0.075) -> None:
    """Write each line's label beside its last point, in its color; labels that would overlap move apart.

    Args:
        axis: whose lines and limits are final.
        gap: least distance of two labels, as a share of the axis's height.

    >>> _, (axis,) = new_figure(3, 2)
    >>> _ = axis.plot([0, 1], [1, 1], label="one"), axis.plot([0, 1], [1, 1], label="other")
    >>> label_lines(axis)
    >>> [text.get_text() for text in axis.texts]
    ['one', 'other']
    """
    ends, _ = [], axis.get_ylim()  # asking for the limits makes matplotlib compute them
    for line in axis.lines:
        if len(line.get_xdata()) and not str(line.get_label()).startswith("_"):
            end = axis.transData.transform((line.get_xdata()[-1], line.get_ydata()[-1]))
            ends.append([float(axis.transAxes.inverted().transform(end)[1]), line])
    ends.sort(key=lambda end: end[0])
    for before, end in itertools.pairwise(ends):
        end[0] = max(end[0], before[0] + gap)
    if ends and (above := ends[-1][0] - 1) > 0:  # the topmost stays beside the axis, the others below it
        ends[-1][0] -= above
        for end, after in zip(ends[-2::-1], ends[:0:-1]):
            end[0] = min(end[0], after[0] - gap)
    for y, line in ends:
        where = {"transform": axis.transAxes, "va": "center", "ha": "left", "clip_on": False}
        axis.text(1.02, y, line.get_label(), color=line.get_color(), fontsize=8.5, **where)


def explain_below(figure: Any, text: str) -> None:
    """Write what a figure shows below it, in small letters, wrapped to its width.

    >>> figure, _ = new_figure(3, 2)
    >>> explain_below(figure, "One line an epoch.")
    """
    import textwrap

    lines = textwrap.wrap(plain(text), int(figure.get_figwidth() * 16.5))
    figure.supxlabel("\n".join(lines), fontsize=8, x=0.01, ha="left", color=TEXT, alpha=0.8)


def write_png(figure: Any, path: Path) -> None:
    """Write a figure on white, whole or not at all.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "figure.png"
    >>> write_png(new_figure(3, 2)[0], path)
    >>> path.is_file()
    True
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130, facecolor="white")
