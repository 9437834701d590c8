#!/usr/bin/env python
"""Write docs/evidence.md, the table of docs/choosing.md and README's figure, from the results in docs/evidence.

    python docs/make_evidence.py                                  # the pages, from docs/evidence/*.csv and claims.yaml
    python docs/make_evidence.py --gather runs/resnet18           # first take the results of a sweep as resnet18.csv
    python docs/make_evidence.py --gather runs/heads --beside runs/roots        # heads of two sweeps, on the same data
    python docs/make_evidence.py --gather roots.csv --as roots    # or a table of another command

docs/evidence/claims.yaml says which results belong to which claim; no figure stands in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evidence_tables import (
    TITLE,
    Verdict,
    check_records,
    chosen_rates,
    count,
    fill_in,
    measured_table,
    missing,
    more_on,
    rates,
    result_rows,
    select,
    tables,
)
from gather_evidence import EVIDENCE, gather

from gcpzoo.analysis.drawing import figures
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.experiments.report import THICK_AND_DOTTED, Block, Training, differences
from gcpzoo.hub.card import fill_page, markdown
from gcpzoo.hub.records import get_record, list_models
from gcpzoo.limits import read_yaml
from gcpzoo.paths import write_text

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results: written by docs/make_evidence.py -->", "<!-- results: to here -->"
CLAIM_KEYS = ("claim", "source", "control", "heads", "results", "where", "margin", "more_on", "tables", "note")
RULE = """**How a verdict is found.** The difference in top-1 accuracy to the control has two 95 % intervals: over seeds
(trainings with the same seed, Student's t) and over test images (10,000 bootstrap samples of them, with the answers of
these very networks). A comparison **holds** where both lie above zero, **does not hold** where both lie below it, and
is **not decided** at this size otherwise, or where there are fewer than three seeds. Where a claim is that a head is
not worse, it names a margin: the comparison holds where both intervals lie above −margin. Where a gain is compared
with that on other data, their intervals must lie apart, over seeds and over test images. Intervals are not corrected
for their number: about one in twenty excludes zero by chance."""
READING = """**How to read the tables.** Heads stand beside their control on the same data, backbone and images. Below a
table stands how the learning rates were found; a search was the same for every head. Each training looks at the test
images once, after its final epoch; but the later sweeps were planned with the results of the earlier ones in view.
*top-1* is the mean over seeds ± half its 95 % interval (Student's t). *Epochs to the control's final*: the first epoch
whose accuracy on validation images is at least that of the control after its last, seed by seed; the mean is of the
seeds that reach it. *Minutes* are the median over seeds, on machines that had other work too: they say little about
cost. Where an image has two equally likely classes, a difference over test images may have another mean than that over
seeds."""
Claim = Mapping[str, Any]


def load_claims(folder: Path = EVIDENCE) -> dict[str, Any]:
    """Read ``claims.yaml``, and check that it names the command of every table there is.

    Raises:
        ZooError: if a key or a table is unknown, or a table has no command.
    """
    path = folder / "claims.yaml"
    claims: dict[str, Any] = read_yaml(path)
    for claim in claims["claims"]:
        for key in claim:
            if key not in CLAIM_KEYS:
                raise unknown_name("key of a claim", str(key), CLAIM_KEYS)
        for name in [*(claim.get("results") or []), *(table["table"] for table in claim.get("tables") or [])]:
            if name not in claims["commands"]:
                raise unknown_name("table of a claim", str(name), claims["commands"])
    for name in tables(folder):
        if name not in claims["commands"]:
            raise ZooError(f"{path}: commands must name the command behind {name}.csv")
    return claims


def page(claims: Mapping[str, Any], folder: Path = EVIDENCE) -> tuple[str, dict[str, str]]:
    """Write docs/evidence.md, and its figures by their file names."""
    drawings: dict[str, str] = {}
    summary, sections = [], []
    for number, claim in enumerate(claims["claims"], 1):
        text, outcome = _section(number, claim, claims["commands"], folder, drawings)
        summary.append((f"[{number}](#claim-{number})", claim["claim"], claim["source"], outcome))
        sections.append(text)
    told = {name: "<br>".join(f"`{line}`" for line in claims["commands"][name].splitlines()) for name in tables(folder)}
    commands = [(f"[{name}.csv](evidence/{name}.csv)", text) for name, text in told.items()]
    parts = [
        "# Evidence",
        "Written by `python docs/make_evidence.py` from `docs/evidence`; change those files, not this page. It holds "
        "what the papers claim, what was measured of it here, and how far that goes. Losses stand beside gains.",
        markdown(("", "claim", "source", "outcome here"), summary),
        *(text.replace("\n", " ") for text in (RULE, READING)),
        *sections,
        "## Which head and settings for my data",
        *(fill_in(text, folder) for text in claims.get("advice") or ["No advice yet: the comparisons are being run."]),
        *([rates] if (rates := chosen_rates(claims["claims"], folder)) else []),
        "## The files",
        "`NAME.csv` is the `results.csv` of a sweep ([columns](sweeps.md#the-results)), `NAME.trials.csv` its search, "
        "`NAME.differences.csv` the differences of every pair of heads over test images, computed from all "
        "predictions. `python docs/make_evidence.py --gather FOLDER` takes them from the folder of a sweep.",
        markdown(("table", "command that repeats it"), commands),
    ]
    return "\n\n".join(parts) + "\n", drawings


def _section(
    number: int, claim: Claim, commands: Mapping[str, str], folder: Path, drawings: dict[str, str]
) -> tuple[str, str]:
    """Write what is known of a claim, and its outcome in a line."""
    lines = [f'<a id="claim-{number}"></a>', f"## {number}. {claim['claim']}", f"Source: {claim['source']}."]
    lines += [fill_in(claim["note"], folder)] if claim.get("note") else []
    blocks, trainings = select(claim, folder)
    verdicts: list[Verdict] = []
    if any(head.over_seeds for block in blocks for head in block.heads):
        control = claim.get("control", "gap")
        margin = float(claim.get("margin", 0))
        rows, verdicts = result_rows(blocks, margin / 100, judged="more_on" not in claim)
        if margin:
            lines.append(f"Margin: {margin:g} points.")
        lines.append(markdown([title.format(control=f"`{control}`") for title in TITLE], rows))
        drawings[f"claim-{number}.svg"] = draw(blocks, f"Claim {number}: difference to {control}")
        lines += [f"![Differences to {control} with intervals](evidence/claim-{number}.svg)", f"*{THICK_AND_DOTTED}*"]
        if "more_on" in claim:
            text, verdicts = more_on(blocks, claim["more_on"])
            lines.append(text)
        lines += [_origin(trainings), *([lacking] if (lacking := missing(claim, trainings, folder)) else [])]
    used = {Path(run.source).stem for run in trainings}
    for table in claim.get("tables") or []:
        if (folder / f"{table['table']}.csv").is_file():
            text, own = measured_table(table, folder)
            lines.append(text)
            verdicts += own
            used.add(table["table"])
    outcome = count(verdicts) if verdicts else "measured, not judged" if used else "not measured"
    lines.append(f"Outcome: **{outcome}**.")
    if used:
        lines.append("```bash\n" + "\n".join(commands[name].strip() for name in sorted(used)) + "\n```")
    return "\n\n".join(lines), outcome


def _origin(trainings: Sequence[Training]) -> str:
    """Say where and with which code the trainings ran."""
    machines = sorted({run.about.get("hardware", "") for run in trainings} - {""})
    code = sorted({run.about.get("git") or f"gcpzoo {run.about['gcpzoo']}" for run in trainings})
    number = len({run.about.get("run") or id(run) for run in trainings})
    again = f" ({len(trainings) - number} of them in two tables)" if number < len(trainings) else ""
    return (
        f"{number} trainings{again}, final epoch, never the best; {'; '.join(machines) or 'hardware not recorded'}; "
        f"state of the code: {', '.join(code)}. {rates(trainings)}"
    )


def draw(blocks: Sequence[Block], name: str) -> str:
    """Draw the differences to the control as an SVG of its own."""
    order = {head: i for i, head in enumerate(dict.fromkeys(h.name for block in blocks for h in block.heads))}
    drawing = figures.intervals(differences(blocks, order), "difference in top-1 to the control (points)", zero=True)
    return figures.to_svg(drawing, name, alone=True) + "\n"


def chosen_table(claim: Claim, folder: Path = EVIDENCE) -> tuple[str, str]:
    """Write the table of docs/choosing.md, and README's figure."""
    blocks, trainings = select(claim, folder)
    if not blocks:
        raise ZooError("claims.yaml: readme must name results that there are")
    control = claim.get("control", "gap")
    columns = [i for i, title in enumerate(TITLE) if not title.startswith("epochs to")]
    rows = [[row[i] for i in columns] for row in result_rows(blocks)[0]]
    title = [TITLE[i].format(control=f"`{control}`") for i in columns]
    return f"{markdown(title, rows)}\n\n{_origin(trainings)}", draw(blocks, f"Gain in top-1 over {control}")


def main() -> None:
    """Gather, if asked, then write all pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gather", type=Path, metavar="SOURCE", help="output of a sweep, or a CSV file, to take first")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], help="sweeps whose heads it is compared with too")
    parser.add_argument("--as", dest="name", metavar="NAME", help="of the table; default: the source's own name")
    args = parser.parse_args()
    try:
        if args.gather:
            for path in gather(args.gather, args.name or args.gather.resolve().stem, beside=args.beside):
                print(f"wrote {path.relative_to(ROOT)}")
        claims = load_claims()
        check_records([get_record(name) for name in list_models()], EVIDENCE)
        text, drawings = page(claims)
        table, drawings["gain.svg"] = chosen_table(claims["readme"])
        fill_page(ROOT / "docs" / "choosing.md", BEGIN, END, table)
        write_text(ROOT / "docs" / "evidence.md", text)
        for path in EVIDENCE.glob("*.svg"):
            path.unlink()
        for name, drawing in drawings.items():
            write_text(EVIDENCE / name, drawing)
    except ZooError as error:
        parser.exit(2, f"make_evidence.py: error: {error}\n")


if __name__ == "__main__":
    main()
