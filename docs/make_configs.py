#!/usr/bin/env python
"""Write configs/paper/PAPER/ROW.yaml and docs/experiments.md from configs/paper/index.yaml.

python docs/make_configs.py           # write; files of rows that are gone are deleted
python docs/make_configs.py --check   # name what differs from the index, exit code 1
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER, PAGE = ROOT / "configs" / "paper", ROOT / "docs" / "experiments.md"
WRITTEN = "Written by docs/make_configs.py from configs/paper/index.yaml; change it there."
METRIC = "top-1 %"
GAP_WEIGHTS = {name: f"{name}_gap.in1k_wang2020_lrnorm" for name in ("resnet50", "resnet101")}
"""Checkpoints with average pooling that a control of fine-tuning starts from."""
INTRODUCTION = """# Published experiments

One row of a paper's table, one config:

```bash
gcpzoo fit --config paper/isqrt/cub_resnet50.yaml --data.root data              # as published
gcpzoo fit --config paper/isqrt/cub_resnet50.yaml --data.root data …            # its control, options of the table
make configs                                                                    # two steps of each on small images
```

Each file says what it is, where the figure stands, in what it differs from the authors' run, and its control: average
pooling with the same backbone, last stride, data and schedule. Figures are the authors'; none of these trainings was
repeated here. "–": the figure was not found stated in the sources named, or the row is not the paper's own.
"""


class Row(NamedTuple):
    """One row: its place, what the index says of it, and its config; ``None``: there is none."""

    folder: str
    name: str
    paper: dict[str, Any]
    facts: dict[str, Any]
    body: dict[str, Any] | None

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}.yaml"

    @property
    def model(self) -> dict[str, Any]:
        return (self.body or {}).get("model", {})


def merge(below: Any, above: Any) -> Any:
    """Lay one mapping over another, at every depth; anything else replaces what is below."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: merge(below.get(key), value) for key, value in above.items()}}


def rows(index: dict[str, Any]) -> Iterator[Row]:
    """Yield all rows in the order of the index."""
    for folder, paper in index["papers"].items():
        for name, facts in paper["rows"].items():
            body: dict[str, Any] | None = None
            if "missing" not in facts:
                body = {}
                for recipe in (*paper.get("recipe", ()), *facts.get("recipe", ())):
                    body = merge(body, index["recipes"][recipe])
                body = merge(body, facts.get("set", {}))
            yield Row(folder, name, paper, facts, body)


def control(row: Row) -> str:
    """The options, or the file with options, of average pooling with everything else the same."""
    given = row.facts.get("control", "")
    if given.startswith("--"):
        return given
    model, options = row.model, ["--model.head gap"]
    weights = GAP_WEIGHTS.get(model["backbone"])
    if model.get("checkpoint"):
        options.insert(0, f"--model.checkpoint null --model.backbone_weights {weights}")
    elif model.get("backbone_weights"):
        torchvision = "--model.backbone_weights null --model.pretrained_backbone IMAGENET1K_V1"
        options.insert(0, f"--model.backbone_weights {weights}" if weights else torchvision)
    options += [f"--model.{key} null" for key in ("dim", "head_args", "fusion") if model.get(key) is not None]
    if "lr_factors" in model.get("optimizer", {}):  # rates of the head's parameters
        options.append("--model.optimizer.lr_factors null")
    return " ".join([*([f"paper/{row.folder}/{given}.yaml"] if given else []), *options])


def start(row: Row) -> str:
    model = row.model
    if model.get("checkpoint"):
        return (
            f"{model['checkpoint']}, from its authors (extra 'authors'). From torchvision's weights: "
            "--model.checkpoint null --model.pretrained_backbone IMAGENET1K_V1"
        )
    if model.get("backbone_weights"):
        return (
            f"the backbone of {model['backbone_weights']}, from its authors (extra 'authors'). From torchvision's "
            "weights: --model.backbone_weights null --model.pretrained_backbone IMAGENET1K_V1"
        )
    if model.get("pretrained_backbone"):
        return f"{'timm' if model['backbone'].startswith('timm:') else 'torchvision'}'s weights"
    return "random weights"


def data(row: Row, index: dict[str, Any]) -> str:
    kind = (row.body or {})["data"]["class_path"].rpartition(".")[2]
    return str(index["data"][row.facts.get("data", kind)])


def published(row: Row) -> str:
    metric, also = row.paper.get("metric", METRIC), row.facts.get("also")
    return f"{row.facts['result'] or 'not stated'} ({'; '.join(filter(None, [metric, also]))})"


def header(row: Row, index: dict[str, Any]) -> str:
    """The comment at the top of a config."""
    arxiv = f", arXiv {row.paper['arxiv']}" if row.paper["arxiv"] else ""
    stride = row.model.get("last_stride") or "the backbone's own"
    lines = [
        WRITTEN,
        f"{row.paper['paper']}{arxiv}.",
        f"Row: {row.facts['of']}.",
        f"Published: {published(row)}.",
        f"Source: {row.paper['source']}.",
        f"Start: {start(row)}.",
        f"Data: {data(row, index)}.",
        f"Last stride: {stride}.",
        f"Control, average pooling: {'' if control(row).startswith('paper') else 'this file with '}{control(row)}",
        *(f"Note: {text}." for text in [*row.paper.get("deviations", ()), *row.facts.get("deviations", ())]),
    ]
    wrapped = [
        part
        for line in lines
        for part in textwrap.wrap(line, 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    ]
    return "".join(f"# {line}\n" for line in wrapped)


class _Dumper(yaml.SafeDumper):
    """Lists of plain values stand on one line."""


def _list(dumper: _Dumper, value: list[Any]) -> yaml.Node:
    short = not any(isinstance(item, dict) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=short)


_Dumper.add_representer(list, _list)
ORDER = (
    "evaluate", "seed_everything", "model", "data", "trainer",
    "backbone", "backbone_args", "last_stride", "until", "blocks", "head", "dim", "head_args", "fusion", "hidden",
    "dropout", "pretrained_backbone", "backbone_weights", "checkpoint", "frozen", "optimizer", "schedule",
    "label_smoothing", "mixup_alpha", "cutmix_alpha", "channels_last",
)  # fmt: skip
"""The order of groups, and of a model's options: what it is, where it starts, how it learns."""


def ordered(body: dict[str, Any]) -> dict[str, Any]:
    body = {key: body[key] for key in sorted(body, key=ORDER.index)}
    return {**body, "model": {key: body["model"][key] for key in sorted(body["model"], key=ORDER.index)}}


def config(row: Row, index: dict[str, Any]) -> str:
    assert row.body is not None
    text = yaml.dump(ordered(row.body), Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)
    return header(row, index) + text


def page(index: dict[str, Any]) -> str:
    """docs/experiments.md."""
    lines = [INTRODUCTION]
    found = list(rows(index))
    for folder, paper in index["papers"].items():
        arxiv = f" ([arXiv {paper['arxiv']}](https://arxiv.org/abs/{paper['arxiv']}))" if paper["arxiv"] else ""
        lines.append(f"\n## {folder}\n\n{paper['paper']}{arxiv}. Source: {paper['source']}.\n")
        lines.append(
            f"| config | row | {paper.get('metric', METRIC)} | also | start | control |\n|---|---|--:|---|---|---|"
        )
        for row in (r for r in found if r.folder == folder):
            cells = [row.facts["of"], str(row.facts["result"] or "–"), row.facts.get("also") or ""]
            if row.body is None:
                lines.append("| " + " | ".join(["none", *cells, f"no config: {row.facts['missing']}", ""]) + " |")
            else:
                link = f"[{row.name}](../configs/paper/{row.path})"
                begin = re.split(r"\. |, ", start(row))[0]
                lines.append("| " + " | ".join([link, *cells, begin, f"`{control(row)}`"]) + " |")
    lines.append(f"\nThe data: {'; '.join(index['data'].values())}.\n\n{WRITTEN}")
    return "\n".join(lines) + "\n"


def load() -> dict[str, Any]:
    index: dict[str, Any] = yaml.safe_load((FOLDER / "index.yaml").read_text(encoding="utf-8"))
    return index


def files(index: dict[str, Any]) -> dict[Path, str]:
    """What the index makes: path → text."""
    configs = {FOLDER / row.path: config(row, index) for row in rows(index) if row.body is not None}
    return {**configs, PAGE: page(index)}


def differing(index: dict[str, Any]) -> list[Path]:
    """Files that are not what the index makes, and configs that it does not make."""
    made = files(index)
    other = [path for path in FOLDER.glob("*/*") if path not in made]
    return sorted(p for p in made if not p.is_file() or p.read_text(encoding="utf-8") != made[p]) + sorted(other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file differs")
    args = parser.parse_args()
    index = load()
    wrong = differing(index)
    if args.check:
        print("\n".join(f"{path.relative_to(ROOT)} is not what the index makes" for path in wrong))
        sys.exit(bool(wrong))
    made = files(index)
    for path in wrong:
        if path in made:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
        else:
            path.unlink()
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
