#!/usr/bin/env python
"""Write the results of README.md, and their image, from the reports of runs in docs/results.

    python docs/make_results.py                      # the table between README's marks, docs/results.png
    python docs/make_results.py --take RUN NAME      # first copy the report of a run of gcpzoo fit as docs/results/NAME

A name is DATA_HEAD; the heads of one data set stand beside each other, the same in everything else.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from gcpzoo.analysis import plots

DOCS = Path(__file__).parent
BEGIN, END = "<!-- results: written by docs/make_results.py -->", "<!-- results: to here -->"
TITLES = {
    "cub50": "50 species of CUB-200-2011, 224 px, ResNet-18 up to layer3 (`finetune/cub50.yaml`)",
    "grocery81": "Grocery Store, 81 classes, 160 px, MobileNetV2 (`finetune/grocery81.yaml`)",
    "digits": "scikit-learn's digits, 32 px, ResNet-18 up to layer2 from random weights (`pretrain/digits.yaml`)",
}


def take(run: Path, name: str) -> None:
    """Copy what is reported of a run, without the paths of the machine it ran on."""
    report = json.loads((run / "metrics.json").read_text())
    report["start"] = Path(report["start"]).name if report["start"] else None
    report["spectrum"] = json.loads((run / "spectrum.json").read_text())
    (DOCS / "results" / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")


def load() -> dict[str, dict[str, Any]]:
    """Data set → head → report."""
    reports: dict[str, dict[str, Any]] = {}
    for path in sorted((DOCS / "results").glob("*.json"), reverse=True):
        data, _, head = path.stem.partition("_")
        reports.setdefault(data, {})[head] = json.loads(path.read_text())
    return {data: reports[data] for data in TITLES if data in reports}


def table(reports: dict[str, dict[str, Any]]) -> str:
    """Markdown: one row a run."""
    lines = [
        "| data and config | head | top-1 % | top-5 % | parameters | epochs | training |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for data, heads in reports.items():
        for i, (head, r) in enumerate(heads.items()):
            t, fit = r["test"], r["fit"]
            what = f"{TITLES[data]}, {t['images']:,} test images" if i == 0 else ""
            cells = [what, head, f"{100 * t['top1']:.2f}", f"{100 * t['top5']:.2f}", f"{r['parameters'] / 1e6:.2f} M"]
            lines.append("| " + " | ".join([*cells, str(fit["epochs"]), f"{fit['seconds'] / 60:.1f} min"]) + " |")
    seeds = {str(r["seed"]) for heads in reports.values() for r in heads.values()}
    machines = {r["hardware"] for heads in reports.values() for r in heads.values()}
    note = f"Seed {', '.join(sorted(seeds))}; final epoch, never the best; {'; '.join(sorted(machines))}."
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", nargs=2, metavar=("RUN", "NAME"), help="copy the report of a run first")
    args = parser.parse_args()
    if args.take:
        take(Path(args.take[0]), args.take[1])
    reports = load()
    readme = DOCS.parent / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{table(reports)}\n{END}{rest.split(END)[1]}")
    plots.comparison(reports, DOCS / "results.png")


if __name__ == "__main__":
    main()
