"""The tables of docs/evidence.md: which trainings belong to a claim, what they say, and the verdict by rule."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gather_evidence import DIFFERENCES, FIGURES, TRIALS, read

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.experiments.report import Block, Training, collect, compare, reached
from gcpzoo.experiments.statistics import Estimate, paired_difference, percent, percent_between
from gcpzoo.hub.card import markdown
from gcpzoo.hub.records import Record

Verdict = Literal["holds", "does not hold", "not decided"]
HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"
FEWEST_SEEDS = 3
NUMBER = re.compile(r"\[\[(.*?)\]\]")
TITLE = ("data · backbone · settings", "head", "seeds", "epochs", "top-1 %", "to {control}, over seeds",
         "over test images", "epochs to {control}'s final", "minutes", "verdict")  # fmt: skip
TABLE_KEYS = ("table", "text", "columns", "where", "value", "better", "by", "group", "control")
Rows = list[tuple[str, ...]]


def select(claim: Mapping[str, Any], folder: Path) -> tuple[list[Block], list[Training]]:
    """Compare the trainings that a claim is about; none where its control is not trained yet.

    Returns:
        The comparisons that have a finished control, and their finished trainings.
    """
    control = claim.get("control", "gap")
    where = {axis: [names] if isinstance(names, str) else names for axis, names in (claim.get("where") or {}).items()}
    if claim.get("heads"):
        where["head"] = [control, *claim["heads"]]
    files = [path for name in claim.get("results") or [] if (path := folder / f"{name}.csv").is_file()]
    chosen = [
        run
        for run in (collect(files) if files else [])
        if run.test is not None and all(run.labels.get(axis) in names for axis, names in where.items())
    ]
    if control not in {run.labels["head"] for run in chosen}:
        return [], []
    blocks = [block for block in compare(chosen, control) if block.get(control)]
    for path in files:
        _add_images(blocks, path.with_name(f"{path.stem}{DIFFERENCES}.csv"))
    kept = {id(run) for block in blocks for head in block.heads for run in head.runs}
    return blocks, [run for run in chosen if id(run) in kept]


def _add_images(blocks: Sequence[Block], path: Path) -> None:
    """Take the differences over test images from the table that was computed from the predictions."""
    for row in read(path)[1] if path.is_file() else []:
        for block in blocks:
            labels = {axis: name for axis, name in row.items() if axis not in FIGURES}
            if labels != block.labels or row["control"] != block.control:
                continue
            head = block.get(row["head"])
            if head is None or head.over_seeds is None:
                continue
            found = Estimate(float(row["mean"]), float(row["low"]), float(row["high"]), int(row["images"]))
            seeds = {run.seed for run in head.runs} & {run.seed for run in block.get(block.control).runs}
            most = 1 / found.n  # an image whose two classes are equally likely
            same_seeds = row["seeds"] == " ".join(map(str, sorted(seeds)))
            if abs(found.mean - head.over_seeds.mean) > most or not same_seeds:
                raise ZooError(
                    f"{path}: {block.title}, {head.name} is of other trainings than the results: gather again"
                )
            head.over_images = found


def missing(claim: Mapping[str, Any], trainings: Sequence[Training], folder: Path) -> str:
    """Say in a line which tables, data and heads of a claim have no finished training yet; nothing where none lacks."""
    data = (claim.get("where") or {}).get("data") or sorted({run.labels["data"] for run in trainings})
    lacking: dict[str, list[str]] = {}
    for name in [data] if isinstance(data, str) else data:
        for head in [claim.get("control", "gap"), *claim.get("heads", [])]:
            if not any(run.labels["data"] == name and run.labels["head"] == head for run in trainings):
                lacking.setdefault(name, []).append(f"`{head}`")
    parts = [f"{name}: {', '.join(heads)}" for name, heads in lacking.items()]
    parts += [f"`{name}.csv`" for name in claim.get("results") or [] if not (folder / f"{name}.csv").is_file()]
    return f"Not measured: {'; '.join(parts)}." if parts else ""


def judge(seeds: Estimate | None, images: Estimate | None, margin: float = 0.0) -> Verdict:
    """Say by rule whether a difference lies above −margin: both intervals must agree, that of three seeds at least."""
    both = [e for e in (seeds, images) if e is not None and e.low is not None and e.high is not None]
    if len(both) < 2 or seeds is None or seeds.n < FEWEST_SEEDS:
        return OPEN
    if all(e.low > -margin for e in both):  # type: ignore[operator]
        return HOLDS
    return FAILS if all(e.high < -margin for e in both) else OPEN  # type: ignore[operator]


def result_rows(blocks: Sequence[Block], margin: float = 0.0, judged: bool = True) -> tuple[Rows, list[Verdict]]:
    """Lay out comparisons, the control first; ``margin`` is a fraction."""
    rows: Rows = []
    verdicts: list[Verdict] = []
    for block in blocks:
        for head in sorted((h for h in block.heads if h.runs), key=lambda h: h.name != block.control):
            rows.append((block.title, f"`{head.name}`", str(len(head.runs)), head.lengths, percent(head.test)))
            if head.name == block.control:
                rows[-1] += ("control", "", "", head.minutes, "")
                continue
            verdict = judge(head.over_seeds, head.over_images, margin)
            verdicts.append(verdict)
            differences = (percent_between(head.over_seeds), percent_between(head.over_images))
            rows[-1] += (*differences, reached(head), head.minutes, verdict if judged else "")
    return rows, verdicts if judged else []


def more_on(blocks: Sequence[Block], data: str) -> tuple[str, list[Verdict]]:
    """Compare the gain of every head on one data set with its gain on each other: both intervals must lie apart."""
    rows: Rows = []
    verdicts: list[Verdict] = []
    for one in (block for block in blocks if block.labels["data"] == data):
        for other in blocks:
            if other.labels["data"] == data or other.labels | {"data": data} != one.labels:
                continue
            for head in one.heads:
                base = other.get(head.name)
                if head.over_seeds is None or base is None or base.over_seeds is None:
                    continue
                gains = [(h.over_seeds, h.over_images) for h in (head, base)]
                verdict = _apart(*zip(*gains))
                verdicts.append(verdict)
                told = [percent_between(e) for pair in gains for e in pair]
                rows.append((f"`{head.name}`", one.title, *told[:2], other.labels["data"], *told[2:], verdict))
    title = ("head", "", "gain, over seeds", "over test images", "against", "gain, over seeds", "over test images")
    return markdown((*title, "verdict"), rows), verdicts


def _apart(*kinds: tuple[Estimate | None, Estimate | None]) -> Verdict:
    """Judge whether one gain is larger than another by intervals that do not overlap, over seeds and over images."""
    signs = []
    if any(e is None or e.n < FEWEST_SEEDS for e in kinds[0]):
        return OPEN
    for one, other in kinds:
        if one is None or other is None or None in (one.low, other.low):
            return OPEN
        signs.append((one.low > other.high) - (one.high < other.low))  # type: ignore[operator]
    return HOLDS if min(signs) > 0 else FAILS if max(signs) < 0 else OPEN


def measured_table(table: Mapping[str, Any], folder: Path) -> tuple[str, list[Verdict]]:
    """Lay out a table of another command, and judge one of its columns against the control, paired by seed.

    Without three seeds nothing is decided; the text then says on which side the figures lie.

    Raises:
        ZooError: if a column is not there, or two rows are of the same head, seed and group.
    """
    for key in table:
        if key not in TABLE_KEYS:
            raise unknown_name("key of a table", str(key), TABLE_KEYS)
    path, by, where = folder / f"{table['table']}.csv", table.get("by", "head"), table.get("where") or {}
    columns, rows = read(path)
    judged = [by, table["value"]] if "value" in table else []
    for name in [*table["columns"], *judged, *table.get("group", []), *where]:
        if name not in columns:
            raise unknown_name(f"column of {path.name}", name, columns)
    rows = [row for row in rows if all(row[c] in map(str, v if isinstance(v, list) else [v]) for c, v in where.items())]
    parts = [table["text"], markdown(table["columns"], [[_short(row[c]) for c in table["columns"]] for row in rows])]
    if not judged:
        return "\n\n".join(parts), []
    text, verdicts = _judge_rows(table, rows, path.name)
    return "\n\n".join([*parts, text]), verdicts


def _judge_rows(table: Mapping[str, Any], rows: Sequence[Mapping[str, str]], name: str) -> tuple[str, list[Verdict]]:
    """Judge each head of a table over its seeds: it holds where it does in every group, for all are of one network."""
    by, group = table.get("by", "head"), table.get("group", [])
    control, _ = _head_and_seed({by: table["control"]}, by)
    values: dict[str, dict[Any, dict[int, float]]] = {}
    for row in rows:
        head, seed = _head_and_seed(row, by)
        of_group = values.setdefault(head, {}).setdefault(tuple(row[c] for c in group), {})
        if seed in of_group:
            raise ZooError(f"{name}: {head}, seed {seed}, has several rows: tell them apart by group or where")
        of_group[seed] = {"higher": 1, "lower": -1}[table["better"]] * float(row[table["value"]])
    base, lines, verdicts = values.pop(control, {}), [], []
    for head, groups in values.items():
        found = [d for key, own in groups.items() if (d := paired_difference(own, base.get(key, {})))]
        if not found:
            continue
        each = {judge(d, d) for d in found}
        verdicts.append(each.pop() if len(each) == 1 else OPEN)
        seeds = min(d.n for d in found)
        lines.append(
            f"`{head}`: `{table['value']}` is {table['better']} than with `{control}` in "
            f"{sum(d.mean > 0 for d in found)} of {len(found)} rows, which are one comparison, over {seeds} "
            f"seed{'s' * (seeds > 1)}: {verdicts[-1]}."
        )
    return "\n\n".join(lines), verdicts


def _head_and_seed(row: Mapping[str, str], by: str) -> tuple[str, int]:
    """Read of which head and seed a row is; a network's name may end in its seed."""
    if "seed" not in row and (found := re.fullmatch(r"(.+)_seed(\d+)", row[by])):
        return found[1], int(found[2])
    return row[by], int(row.get("seed") or 0)


def _short(value: str) -> str:
    """Round what is a number and has a point to four digits; the table that is committed has all of them."""
    try:
        return f"{float(value):.4g}" if "." in value or "e-" in value else value
    except ValueError:
        return value


def tables(folder: Path) -> list[str]:
    """List the tables of results by their names."""
    return sorted(path.stem for path in folder.glob("*.csv") if "." not in path.stem)


def check_records(records: Sequence[Record], folder: Path) -> None:
    """Check that the records of checkpoints say of their trainings what the tables say.

    Raises:
        ZooError: if a training is in no table, or the mean over its seeds is another.
    """
    if not any(record.trainings for record in records):
        return
    files = [path for name in tables(folder) if {"run", "test/top1"} <= {*read(path := folder / f"{name}.csv")[0]}]
    blocks = [block for path in files for block in compare(collect([path]))]
    for record in records:
        if not (known := record.trainings):
            continue
        of_run = (head for block in blocks for head in block.heads)
        heads = [head for head in of_run if any(run.about["run"] == known["run"] for run in head.runs)]
        means = [100 * head.test.mean for head in heads if [run.seed for run in head.runs] == known["top1"]["seeds"]]
        if not means:
            what = "with its seeds in no table" if heads else "in no table"
            raise ZooError(f"{record.name}: {known['run']} is {what} of docs/evidence: gather its sweep")
        for mean in means:
            if abs(mean - known["top1"]["mean"]) > 0.006:
                told = f"says {known['top1']['mean']}, docs/evidence {mean:.2f}"
                raise ZooError(f"{record.name}: its record {told}: run checkpoints/add.py again")


def count(verdicts: Sequence[Verdict]) -> str:
    """Count verdicts: no claim is called true by a majority."""
    number = Counter(verdicts)
    told = [f"{kind} in {number[kind]}" for kind in (HOLDS, FAILS, OPEN) if number[kind]]
    return f"{', '.join(told)} of {len(verdicts)} comparison{'s' * (len(verdicts) > 1)}"


def chosen_rates(claims: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Lay out what the searches chose for each head, and by how much, where they searched; nothing where none did."""
    rows = set()
    for name in sorted({name for claim in claims for name in claim.get("results") or []}):
        tried = trials(folder / f"{name}.csv")
        for run in collect([path]) if (path := folder / f"{name}.csv").is_file() else []:
            if run.test is not None and run.about.get("chosen"):
                rates = json.loads(run.about["chosen"])
                told = ", ".join(f"`{option.rpartition('.')[2]}` {value:g}" for option, value in rates.items())
                of_trials = [f"{100 * float(r['val/top1']):.2f}" for r in tried.get(tuple(run.labels.items()), [])]
                title = " · ".join(v for k, v in run.labels.items() if k != "head")
                rows.add((title, f"`{run.labels['head']}`", told, ", ".join(of_trials) or "–"))
    title = ("data · backbone · settings", "head", "chosen on validation images", "top-1 % there, of each trial")
    return markdown(title, sorted(rows)) if rows else ""


def trials(results: Path) -> dict[tuple[tuple[str, str], ...], list[dict[str, str]]]:
    """Read the final epochs of a sweep's trials, by the labels of their cell, in the order they were tried."""
    columns, rows = read(path) if (path := results.with_name(f"{results.stem}{TRIALS}.csv")).is_file() else ([], [])
    axes, last = columns[: columns.index("seed")] if rows else [], {}
    for row in (row for row in rows if row["state"] == "done"):
        last[(*((axis, row[axis]) for axis in axes), row["trial"])] = row
    found: dict[Any, list[dict[str, str]]] = {}
    for key, row in last.items():
        found.setdefault(key[:-1], []).append(row)
    return found


def rates(trainings: Sequence[Training]) -> str:
    """Say how the learning rates of trainings were found, table by table."""
    parts = []
    for source in dict.fromkeys(run.source for run in trainings):
        name = f"`{Path(source).name}`"
        if not any(run.about.get("chosen") for run in trainings if run.source == source):
            parts.append(f"as given, without a search, in {name}")
            continue
        cells = trials(Path(source)).values()
        budget = ({len(cell) for cell in cells}, {int(row["epoch"]) + 1 for cell in cells for row in cell})
        number, epochs = (" or ".join(map(str, sorted(values))) or "unknown" for values in budget)
        parts.append(f"the best of {number} trials of {epochs} epochs for each head, on validation images, in {name}")
    return f"Learning rates: {'; '.join(parts)}."


def fill_in(text: str, folder: Path) -> str:
    """Replace ``[[TABLE DATA BACKBONE HEAD]]`` by an accuracy, ``[[TABLE DATA BACKBONE HEAD - CONTROL]]`` by a gain.

    Raises:
        ZooError: if this was not measured, so that no advice outlives its figures.
    """

    def figure(found: re.Match[str]) -> str:
        words = found[1].split()
        if len(words) != 4 and (len(words) != 6 or words[4] != "-"):
            raise ZooError(f"claims.yaml: {found[0]} must be [[TABLE DATA BACKBONE HEAD]], with - CONTROL for a gain")
        name, data, backbone, head = words[:4]
        claim = {"results": [name], "where": {"data": data, "backbone": backbone}, "control": words[-1]}
        results = [result for block in select(claim, folder)[0] if (result := block.get(head)) is not None]
        if not results:
            raise ZooError(f"claims.yaml: {found[0]} was not measured: docs/evidence has no such training")
        if len(results) > 1:
            raise ZooError(f"claims.yaml: {found[0]} stands for {len(results)} rows of other settings")
        return percent(results[0].test) if len(words) == 4 else percent_between(results[0].over_seeds)

    return NUMBER.sub(figure, text)
