"""Write README.md and the plot from the results of all benchmarks, and the table of docs/speed.md.

python benchmarks/report.py
"""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from gcpzoo.hub.card import fill_page, markdown

HERE = Path(__file__).parent
Row = dict[str, str]
BEGIN, END = "<!-- speed: written by benchmarks/report.py -->", "<!-- speed: to here -->"
STUDIES = {"d": "channels d", "positions": "positions M", "batch": "batch", "iterations": "iterations"}
MEMORY = ["head", "d", "map", "saved", "beyond the features", "features alone"]
INTRO = """# Benchmarks

What is compared runs in one process, in turns; a ratio is the median of the turns' ratios. This page is
written by `python benchmarks/report.py` from `benchmarks/results/`.

Nothing here was measured on a GPU: the Triton kernel of Newton–Schulz has only run in Triton's interpreter, and the
errors of its arithmetics are imitated. `benchmarks/triton_newton_schulz.py` checks and times it on a machine with CUDA.
"""


def table(rows: list[Row], columns: list[str]) -> str:
    return markdown(columns, ([row[c] for c in columns] for row in rows)) + "\n"


def plot(rows: list[Row], target: Path) -> None:
    """Draw milliseconds per sample against d, M, batch and iterations."""
    figure, axes = plt.subplots(1, len(STUDIES), figsize=(14, 3.4), sharey=True, layout="constrained")
    for axis, (study, label) in zip(axes, STUDIES.items()):
        for head, color in (("isqrt", "tab:blue"), ("mpn_cov", "tab:orange")):
            for version, style in (("textbook", "--"), ("gcpzoo", "-")):
                chosen = [r for r in rows if (r["study"], r["head"], r["version"]) == (study, head, version)]
                x = [float(r[study]) for r in chosen]
                y = [float(r["ms"]) / float(r["batch"]) for r in chosen]
                axis.plot(x, y, style, color=color, marker=".", label=f"{head}, {version}")
        axis.set(xlabel=label, yscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("ms per sample, forward + backward")
    axes[0].legend(fontsize=8)
    figure.savefig(target, dpi=110)


def memory(rows: list[Row]) -> str:
    """Saved bytes as a share of the textbook's, and the least they can be: the features themselves."""
    lines = []
    for row in rows:
        if row["version"] == "textbook":
            textbook = float(row["saved_mb"])
        elif row["version"] == "gcpzoo":
            features = 4e-6 * int(row["batch"]) * int(row["d"]) * int(row["positions"])
            shares = (float(row["saved_mb"]), float(row["beyond_mb"]), features)
            cells = [row["head"], row["d"], row["map"], *(f"{100 * mb / textbook:.1f} %" for mb in shares)]
            lines.append(dict(zip(MEMORY, cells)))
    return (
        "Saved bytes as a share of the textbook's. A network keeps the features anyway, for the activation that\n"
        "made them: a head costs the memory beyond them. The features alone are the least from which a gradient can\n"
        "be computed (`recomputed`: every head with `recompute=True`).\n\n"
        f"{table(lines, MEMORY)}"
    )


def heads(rows: list[Row]) -> str:
    machine = rows[0]
    for row in rows:
        row |= {"map": f"{float(row['positions']) ** 0.5:.0f}²", "faster": f"{float(row['ratio']):.2f}×"}
        row["of the ceiling"] = f"{100 * float(row['of_ceiling']):.0f} %"
    shown = table(
        [r for r in rows if r["study"] in ("table", "minimax")],
        ["head", "d", "map", "batch", "version", "ms", "faster", "gflop", "of the ceiling", "saved_mb", "beyond_mb"],
    )
    shares = memory([r for r in rows if r["study"] == "table"])
    return (
        f"{machine['cpu']}, {machine['threads']} thread(s) on {machine['cores']} cores, torch {machine['torch']}, "
        f"{machine['clock']}; ceiling {machine['ceiling_gflops']} GFLOP/s "
        f"(float32 products); load of other programs at the start {machine['load']}.\n\n"
        f"{shown}\n{shares}\n![cost](results/heads.png)\n"
    )


def speed(rows: list[Row], steps: list[Row]) -> str:
    """Say how much faster than the textbook each head is, and what a training step costs beside average pooling."""
    shown = [r for r in rows if r["study"] == "table"]
    maps = list(dict.fromkeys((r["d"], r["map"]) for r in shown))
    lines = []
    for head in dict.fromkeys(r["head"] for r in shown):
        own = {(r["d"], r["map"]): r["faster"] for r in shown if (r["head"], r["version"]) == (head, "gcpzoo")}
        lines.append({"head": head} | {f"{side} positions, {d} channels": own[d, side] for d, side in maps})
    ratios = sorted(float(r["ratio"]) for r in steps)
    machine = rows[0]
    return (
        f"Speed-up over the textbook version with autograd: forward and backward of the head, float32, "
        f"{machine['threads']} CPU threads:\n\n{table(lines, list(lines[0]))}\n"
        f"A whole training step (ResNet-18, ResNet-50; 200 or 1000 classes) takes {ratios[0]:.2f} to {ratios[-1]:.2f} "
        "times as long as\nthe same step with average pooling."
    )


def main() -> None:
    parts = [INTRO]
    results: dict[str, list[Row]] = {}
    for result in sorted((HERE / "results").glob("*.csv")):
        with result.open() as file:
            rows = results[result.stem] = list(csv.DictReader(file))
        doc = ast.get_docstring(ast.parse((HERE / f"{result.stem}.py").read_text())) or ""
        title, _, text = doc.partition("\n")
        parts.append(f"## {title.rstrip('.')}\n\n```text\n{text.strip()}\n```\n")
        if result.stem == "heads":
            parts.append(heads(rows))
            if any(r["study"] in STUDIES for r in rows):
                plot(rows, result.with_suffix(".png"))
        else:
            parts.append(table(rows, list(rows[0])))
        if result.stem == "shards" and any(float(row["load"].split("–")[1]) > 2 for row in rows):
            parts.append(
                "Preliminary: other programs used the cores meanwhile, see `load`; where the range of the ratios holds "
                "1.00,\nno difference was shown.\n"
            )
    (HERE / "README.md").write_text("\n".join(parts))
    fill_page(HERE.parent / "docs" / "speed.md", BEGIN, END, speed(results["heads"], results["training_step"]))


if __name__ == "__main__":
    main()
