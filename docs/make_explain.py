#!/usr/bin/env python
"""Measure explanations by deletion, and draw the figure of docs/explain.md from docs/evidence/explain_deletion.csv.

    python docs/make_explain.py                                # docs/explain_deletion.svg, explain.md's table
    python docs/make_explain.py --data FOLDER [--images 100]   # first measure the images that the CSV lacks

FOLDER has a subfolder of test images for each class, as ``resnet18_isqrt.cub50`` was evaluated on; the CSV keeps
probabilities only. Every image is explained for its likeliest class. ``--seconds`` ends the measuring early; the next
call goes on.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from pathlib import Path

from gcpzoo.analysis.drawing import figures
from gcpzoo.analysis.drawing.style import TEXT, add_legend, new_figure, series
from gcpzoo.experiments.statistics import bootstrap_images
from gcpzoo.hub.card import fill_page

DOCS = Path(__file__).parent
CSV = DOCS / "evidence" / "explain_deletion.csv"
BEGIN, END = "<!-- deletion: written by docs/make_explain.py -->", "<!-- deletion: to here -->"
MODEL, SHARES, DRAWS = "resnet18_isqrt.cub50", (0.1, 0.25), 3
COLUMNS = ("model", "image", "method", "share", "whole", "marked", "random")
METHODS = ("second order", "Grad-CAM")


def measure(root: Path, count: int, seconds: float) -> None:
    """Append a row for each image, method and share."""
    from torch.nn.functional import adaptive_avg_pool2d

    from gcpzoo.analysis.explanations.attribution import grad_cam, second_order
    from gcpzoo.analysis.explanations.deletion import deletion
    from gcpzoo.data.images import read_image
    from gcpzoo.hub import load
    from gcpzoo.serve import find_images

    paths, start = sorted(find_images([root])), time.monotonic()
    random.Random(0).shuffle(paths)
    done = {int(row["image"]) for row in rows()} if CSV.is_file() else set()
    model = load(MODEL)
    CSV.parent.mkdir(exist_ok=True)
    with CSV.open("a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(COLUMNS)
        for i in sorted(set(range(min(count, len(paths)))) - done):
            x = model.transform(read_image(paths[i]))
            label = int(model(x[None]).argmax())
            marks = second_order(model, x, label).map
            maps = {METHODS[0]: marks, METHODS[1]: adaptive_avg_pool2d(grad_cam(model, x, label)[None], marks.shape)[0]}
            for share in SHARES:
                for method, m in maps.items():
                    d = deletion(model, [x], [m], [label], share, draws=DRAWS, seed=i)
                    values = [f"{float(v):.5f}" for v in (d.whole, d.marked, d.random)]
                    writer.writerow([MODEL, i, method, share, *values])
            file.flush()
            if time.monotonic() - start > seconds:
                return


def rows() -> list[dict[str, str]]:
    with CSV.open(newline="") as file:
        return list(csv.DictReader(file))


def draw(found: list[dict[str, str]]) -> str:
    """Write the figure, and return the table in Markdown."""
    images = len({row["image"] for row in found})
    figure, (axis,) = new_figure(7.5, 3.2)
    lines = [
        f"`{MODEL}`, {images} test images, each explained for its likeliest class; hidden by a Gaussian blur; 95 % "
        "intervals by a bootstrap over images.",
        "",
        "![Fall of the class's probability when marked and when random positions are hidden](explain_deletion.svg)",
        "",
        "| hidden | marked by | probability before | marked hidden | as many at random | marked lowers it by more |",
        "|--:|---|--:|--:|--:|--:|",
    ]
    for k, method in enumerate((*METHODS, "random")):
        for s, share in enumerate(SHARES):
            of = [r for r in found if float(r["share"]) == share and r["method"] == (METHODS[0] if k == 2 else method)]
            column = "random" if k == 2 else "marked"
            drop = bootstrap_images([float(r["whole"]) - float(r[column]) for r in of])
            y, look = s + (k - 1) * 0.22, series(k)
            axis.plot(
                [100 * float(drop.low or 0), 100 * float(drop.high or 0)], [y, y], color=look["color"], linewidth=2
            )
            label = (method if k < 2 else "as many at random") if s == 0 else None
            axis.plot(100 * drop.mean, y, look["marker"], color=look["color"], markersize=7, label=label)
            if k < 2:
                more = bootstrap_images([float(r["random"]) - float(r["marked"]) for r in of])
                means = [sum(float(r[c]) for r in of) / len(of) for c in ("whole", "marked", "random")]
                cells = " | ".join(f"{100 * m:.1f} %" for m in means)
                between = f"{100 * float(more.low or 0):.1f} to {100 * float(more.high or 0):.1f}"
                lines.append(
                    f"| {100 * share:.0f} % | {method} | {cells} | {100 * more.mean:+.1f} points ({between}) |"
                )
    axis.set_yticks(range(len(SHARES)), [f"{100 * share:.0f} % of positions" for share in SHARES])
    axis.set(xlabel="fall of the class's probability (points)", ylim=(len(SHARES) - 0.5, -0.5))
    axis.axvline(0, color=TEXT, linewidth=0.8)
    axis.grid(axis="x", color=TEXT, alpha=0.15)
    add_legend(axis, loc="upper left", bbox_to_anchor=(1, 1))
    (DOCS / "explain_deletion.svg").write_text(figures.to_svg(figure, "Deletion", alone=True))
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, help="test images to measure on")
    p.add_argument("--images", type=int, default=100)
    p.add_argument("--seconds", type=float, default=100)
    args = p.parse_args()
    if not args.data and not CSV.is_file():
        raise SystemExit(f"nothing is measured yet: give --data FOLDER, which writes {CSV}")
    if args.data:
        measure(args.data, args.images, args.seconds)
    fill_page(DOCS / "explain.md", BEGIN, END, draw(rows()))


if __name__ == "__main__":
    main()
