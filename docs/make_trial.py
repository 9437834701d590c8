#!/usr/bin/env python
"""Compare what the trial of the heads says with what training both end to end gave: docs/evidence/trial.csv.

    python docs/make_trial.py                                          # the table of own_images.md from the CSV
    python docs/make_trial.py FOLDER --from FILE --compared RUNS       # a row first: RUNS of gcpzoo fit --compare
    python docs/make_trial.py FOLDER --from FILE --results resnet18    # a row first: of a sweep's table beside the CSV

A sweep's row names the table; the mean difference of its heads ``fused`` and ``gap`` is taken from there every time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from evidence_tables import select
from gather_evidence import read, write

from gcpzoo.experiments.folder import compare_frozen, find_source, image_size, survey_folder
from gcpzoo.experiments.folder.frozen import GIVEN_BACK, FrozenComparison
from gcpzoo.hub.card import fill_page, markdown

DOCS = Path(__file__).parent
CSV = DOCS / "evidence" / "trial.csv"
BEGIN, END = "<!-- trial: written by docs/make_trial.py -->", "<!-- trial: to here -->"
COLUMNS = ("data", "backbone", "images", "gcp", "gap", "low", "high", "end_to_end", "epochs", "trainings", "results")
EndToEnd = tuple[float, int, int]
"""Difference of covariance and mean to the mean alone, epochs, and trainings of each."""


def measure(root: Path, weights: str, trained: Path | str) -> None:
    """Append the row of a folder: shares of the images, and the comparison or table that has the trainings."""
    survey, source = survey_folder(str(root)), find_source(weights)
    found = compare_frozen(survey, source, image_size(survey))
    if found is None:
        raise SystemExit(f"{root} has too few images for a trial")
    backbone = "-".join(source.model[key] for key in ("backbone", "until") if key in source.model)
    values = [f"{v:.4f}" for v in (found.gcp, found.gap, found.low, found.high)]
    if isinstance(trained, Path):
        difference, *of = of_comparison(trained)
        row = [root.name, backbone, found.images, *values, f"{difference:.4f}", *of, ""]
    else:
        row = [root.name, backbone, found.images, *values, "", "", "", trained]
    rows = [r for r in read(CSV)[1] if (r["data"], r["backbone"]) != (root.name, backbone)] if CSV.is_file() else []
    write(CSV, COLUMNS, [*rows, dict(zip(COLUMNS, map(str, row)))])


def of_comparison(runs: Path) -> EndToEnd:
    """Read what ``gcpzoo fit --compare`` measured."""
    content = json.loads((runs / "comparison.json").read_text(encoding="utf-8"))
    return content["difference"]["mean"], content["runs"]["gcp"]["epochs"], 1


def end_to_end(row: dict[str, str]) -> EndToEnd:
    """Read the trainings of a row: its own figures, or those of the sweep that it names."""
    if not row["results"]:
        return float(row["end_to_end"]), int(row["epochs"]), int(row["trainings"])
    where = {key: row[key] for key in ("data", "backbone")}
    blocks, _ = select({"results": [row["results"]], "heads": ["fused"], "where": where}, CSV.parent)
    fused = blocks[0].get("fused") if blocks else None
    if fused is None or fused.over_seeds is None:
        raise SystemExit(f"{row['results']}.csv has no head 'fused' beside 'gap' for {row['data']}, {row['backbone']}")
    return fused.over_seeds.mean, len(fused.runs[0].epochs), fused.over_seeds.n


def table() -> str:
    """Put the rows into Markdown, with how often the trial was right and how often a rule without margin would be."""
    rows = read(CSV)[1]
    cells = []
    right = {"with": 0, "without": 0}
    for r in rows:
        found = FrozenComparison(*(float(r[key]) for key in ("gcp", "gap", "low", "high")), int(r["images"]))
        end, epochs, trainings = end_to_end(r)
        better = "gcp" if end > 0 else "gap"
        right["with"] += found.keep == better
        right["without"] += ("gcp" if found.low > 0 else "gap") == better
        trial = f"{100 * (found.gcp - found.gap):+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        named = "covariance + mean" if found.keep == "gcp" else "mean"
        times, told = f"{trainings} of {epochs} epochs", "yes" if found.keep == better else "no"
        cells.append((r["data"], r["backbone"], trial, named, f"{100 * end:+.1f}", times, told))
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
        measure(args.data, args.weights, args.compared or args.results)
    fill_page(DOCS / "own_images.md", BEGIN, END, table())


if __name__ == "__main__":
    main()
