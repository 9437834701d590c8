#!/usr/bin/env python
"""Compare what the trial of the heads says with what training both end to end gave: docs/evidence/trial.csv.

    python docs/make_trial.py                                          # the table of own_images.md from the CSV
    python docs/make_trial.py FOLDER --from FILE --compared RUNS       # a row first: RUNS of gcpzoo fit --compare
    python docs/make_trial.py FOLDER --from FILE --results resnet18    # a row first: of a sweep's table beside the CSV

A sweep's row is the mean difference of its heads ``fused`` and ``gap`` over the seeds that both have.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from gather_evidence import read, write

from gcpzoo.experiments.folder import compare_frozen, find_source, image_size, survey_folder
from gcpzoo.experiments.folder.frozen import GIVEN_BACK, FrozenComparison
from gcpzoo.hub.card import markdown

DOCS = Path(__file__).parent
CSV = DOCS / "evidence" / "trial.csv"
BEGIN, END = "<!-- trial: written by docs/make_trial.py -->", "<!-- trial: to here -->"
COLUMNS = ("data", "backbone", "images", "gcp", "gap", "low", "high", "end_to_end", "epochs", "trainings")


def measure(root: Path, weights: str, end_to_end: tuple[float, int, int]) -> None:
    """Append the row of a folder: shares of the images, and the difference end to end."""
    survey, source = survey_folder(str(root)), find_source(weights)
    found = compare_frozen(survey, source, image_size(survey))
    if found is None:
        raise SystemExit(f"{root} has too few images for a trial")
    backbone = "-".join(source.model[key] for key in ("backbone", "until") if key in source.model)
    values = [f"{v:.4f}" for v in (found.gcp, found.gap, found.low, found.high)]
    difference, epochs, trainings = end_to_end
    row = [root.name, backbone, found.images, *values, f"{difference:.4f}", epochs, trainings]
    rows = [r for r in read(CSV)[1] if (r["data"], r["backbone"]) != (root.name, backbone)] if CSV.is_file() else []
    write(CSV, COLUMNS, [*rows, dict(zip(COLUMNS, map(str, row)))])


def of_comparison(runs: Path) -> tuple[float, int, int]:
    """Read the difference, the epochs and the number of trainings of each head from a comparison."""
    content = json.loads((runs / "comparison.json").read_text(encoding="utf-8"))
    return content["difference"]["mean"], content["runs"]["gcp"]["epochs"], 1


def of_results(name: str, data: str) -> tuple[float, int, int]:
    """Read the same from the table of a sweep."""
    final: dict[str, dict[str, dict[str, str]]] = {"fused": {}, "gap": {}}
    for row in read(CSV.with_name(f"{name}.csv"))[1]:
        if row["data"] == data and row["head"] in final and row["test/top1"]:
            final[row["head"]][row["seed"]] = row
    seeds = sorted(final["fused"].keys() & final["gap"].keys())
    differences = [float(final["fused"][s]["test/top1"]) - float(final["gap"][s]["test/top1"]) for s in seeds]
    return float(np.mean(differences)), int(final["gap"][seeds[0]]["epoch"]) + 1, len(seeds)


def table() -> str:
    """Put the rows into Markdown, with how often the trial was right and how often a rule without margin would be."""
    rows = read(CSV)[1]
    cells = []
    right = {"with": 0, "without": 0}
    for r in rows:
        found = FrozenComparison(*(float(r[key]) for key in ("gcp", "gap", "low", "high")), int(r["images"]))
        end = 100 * float(r["end_to_end"])
        better = "gcp" if end > 0 else "gap"
        right["with"] += found.keep == better
        right["without"] += ("gcp" if found.low > 0 else "gap") == better
        trial = f"{100 * (found.gcp - found.gap):+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        named = "covariance + mean" if found.keep == "gcp" else "mean"
        times = f"{r['trainings']} of {r['epochs']} epochs"
        cells.append(
            (r["data"], r["backbone"], trial, named, f"{end:+.1f}", times, "yes" if found.keep == better else "no")
        )
    titles = (
        "folder",
        "backbone",
        "trial: points on the frozen backbone",
        "names",
        "points end to end",
        "trainings each",
        "right",
    )
    words = (
        f"Right in {right['with']} of {len(rows)}; without the margin of {100 * GIVEN_BACK:.0f} points it would be "
        f"{right['without']}. The margin was chosen from these rows, so other folders will be less kind to it."
    )
    return f"{markdown(titles, cells)}\n\n{words}"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path, nargs="?", help="folder to try")
    p.add_argument("--from", dest="weights", help="the backbone's weights")
    p.add_argument("--compared", type=Path, help="output of gcpzoo fit --compare on it")
    p.add_argument("--results", help="name of a sweep's table with this data")
    args = p.parse_args()
    if args.data:
        found = of_comparison(args.compared) if args.compared else of_results(args.results, args.data.name)
        measure(args.data, args.weights, found)
    page = DOCS / "own_images.md"
    text = page.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
