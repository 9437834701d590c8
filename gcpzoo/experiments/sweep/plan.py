"""A sweep's file, read and checked: which runs there are, and the options of each."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.experiments.sweep.checks import check_keys, check_options
from gcpzoo.experiments.sweep.options import Options, get, lay_over, read_options
from gcpzoo.experiments.sweep.space import Search, is_seed, read_search
from gcpzoo.training.configs import find_config, read_config

KEYS = ("output", "base", "axes", "seeds", "control", "overrides", "search")
NAMED = {"data": "data.class_path", "backbone": "model.backbone", "head": "model.head"}
"""The axes that every sweep has, and the option that the name of a value stands for."""
RULE_KEYS = ("when", "options", "seeds", "skip")
ABOUT = ("parameters", "state", "error", "trial", "chosen", "git", "hardware", "gcpzoo", "recipe", "hash", "run")
"""Columns of ``results.csv`` that say what a training was."""
RESERVED = ("seed", "epoch", "seconds", *ABOUT)
"""Columns of ``results.csv``, which no axis may be called."""


@dataclass(frozen=True)
class Cell:
    """One combination of the axes.

    Attributes:
        labels: axis → name of the value.
        options: of ``gcpzoo fit``, all but the seed.
        seeds: of its runs.

    >>> Cell({"data": "Digits", "head": "gap"}, {}, (0,)).name
    'Digits_gap'
    """

    labels: dict[str, str]
    options: Options
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        return re.sub(r"[^\w.+-]+", "-", "_".join(self.labels.values()))


@dataclass(frozen=True)
class Run:
    """One training: a cell with a seed, and options that a search has chosen or tries.

    >>> run = Run(Cell({"head": "gap"}, {"model": {"head": "gap"}}, (0,)), seed=3)
    >>> run.options
    {'model': {'head': 'gap'}, 'seed_everything': 3}
    >>> run.name
    'gap_seed3_...'
    """

    cell: Cell
    seed: int
    chosen: dict[str, float] = field(default_factory=dict)
    trial: int | None = None
    trial_options: Options = field(default_factory=dict)

    @property
    def options(self) -> Options:
        """All options of the training; those of a trial leave the test images alone."""
        options = lay_over(self.cell.options, read_options(self.chosen, "search"))
        options = lay_over(options, self.trial_options)
        own = {"seed_everything": self.seed} | ({} if self.trial is None else {"evaluate": False})
        return lay_over(options, own)

    @property
    def hash(self) -> str:
        """SHA-256 of the options: the same training has the same hash, whatever it is called."""
        return _hash(self.options)

    @property
    def recipe(self) -> str:
        """SHA-256 of the options without the seed: what trainings have in common that may be averaged."""
        return _hash({key: value for key, value in self.options.items() if key != "seed_everything"})

    @property
    def name(self) -> str:
        """Name of the folder."""
        kind = f"seed{self.seed}" if self.trial is None else f"trial{self.trial}"
        cell = self.cell.name.encode()[:120].decode(errors="ignore")  # disks count the bytes of a name
        return f"{cell}_{kind}_{self.hash[:8]}"


def trial_in_the_middle(cell: Cell, search: Search) -> Run:
    """Give a trial of a search whose values are within its space, no whole numbers: what can be checked beforehand.

    >>> search = Search({"model.optimizer.lr": (0.01, 1.0)}, trials=1)
    >>> trial_in_the_middle(Cell({"head": "gap"}, {}, (0,)), search).chosen
    {'model.optimizer.lr': 0.04331}
    """
    values = {o: float(f"{a * (b / a) ** (1 / math.pi):.4g}") for o, (a, b) in search.space.items()}
    return Run(cell, search.seed, values, 0, search.options)


def _hash(options: Options) -> str:
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What a sweep's file asks for; see ``docs/sweeps.md``.

    >>> plan = read_plan("configs/sweep/digits.yaml")
    >>> len(plan.cells), len(plan.runs())
    (2, 4)
    """

    path: Path
    output: Path
    axes: tuple[str, ...]
    cells: list[Cell]
    control: str | None
    search: Search | None

    def runs(self, chosen: Mapping[str, dict[str, float]] | None = None) -> list[Run]:
        """List the trainings, seed by seed, so that a part of them compares all heads already.

        Args:
            chosen: name of a cell → what a search has chosen for it.
        """
        seeds = dict.fromkeys(seed for cell in self.cells for seed in cell.seeds)
        return [
            Run(cell, seed, (chosen or {}).get(cell.name, {}))
            for seed in seeds
            for cell in self.cells
            if seed in cell.seeds
        ]


def read_plan(path: str | Path, output: str | Path | None = None) -> Plan:
    """Read the file of a sweep.

    Args:
        path: YAML with ``axes``, and any of ``base``, ``seeds``, ``control``, ``overrides``, ``search``, ``output``; a
            file of the package is found by its path in it.
        output: folder of the results instead of the file's own.

    Raises:
        ZooError: if the file cannot be read, names what does not exist, or two cells are the same training.

    >>> read_plan("nowhere.yaml")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown sweep file 'nowhere.yaml'; available: sweep/birds.yaml, ...
    """
    path = find_config(path, "sweep file", "sweep")
    content = read_config(path)
    check_keys(content, KEYS, str(path))
    if not isinstance(content.get("axes"), Mapping) or "head" not in content["axes"]:
        raise ZooError(f"{path}: axes must be a mapping with at least the axis head, got {content.get('axes')!r}")
    base = read_options(content.get("base"), f"{path}: base")
    axes = {str(name): _read_axis(str(name), values, base, str(path)) for name, values in content["axes"].items()}
    for name, option in reversed(NAMED.items()):
        if name not in axes:
            value = str(get(base, option, "-")).rpartition("gcpzoo.data.")[2]
            axes = {name: {value: {}}, **axes}
    axes = {name: axes[name] for name in [*NAMED, *(n for n in axes if n not in NAMED)]}
    seeds = _read_seeds(content.get("seeds", [0]), f"{path}: seeds")
    rules = _read_rules(content.get("overrides"), axes, str(path))
    cells = list(_cells(base, axes, seeds, rules))
    folder = _read_output(output or content.get("output"), path)
    control = content.get("control")
    if control is not None and str(control) not in axes["head"]:
        raise unknown_name("control", str(control), axes["head"])
    plan = Plan(
        path,
        folder,
        tuple(axes),
        cells,
        None if control is None else str(control),
        read_search(content.get("search"), f"{path}: search"),
    )
    _check(plan)
    return plan


def _read_output(given: Any, path: Path) -> Path:
    if given is None:
        return Path("runs") / path.stem
    if not isinstance(given, str | Path) or not str(given).strip():
        raise ZooError(f"{path}: output must be the path of a folder, got {given!r}")
    return Path(given)


def _read_axis(name: str, values: Any, base: Options, where: str) -> dict[str, Options]:
    """Read the values of an axis: name → options; a list gives names alone."""
    where = f"{where}: axes.{name}"
    if not re.fullmatch(r"[a-zA-Z]\w*", name) or name in RESERVED:
        raise ZooError(f"{where}: the name must be a word other than {', '.join(sorted(RESERVED))}")
    listed = isinstance(values, list)
    if listed and name in NAMED:
        values = dict.fromkeys(map(str, values))
    if not isinstance(values, Mapping) or not values:
        what = "a list of names, or a mapping of names to options" if name in NAMED else "a mapping of names to options"
        raise ZooError(f"{where} must be {what}, got {values!r}")
    axis: dict[str, Options] = {}
    for label, given in values.items():
        if isinstance(label, bool) or label is None:
            raise ZooError(f"{where}: a name must be text, got {label!r}; put it in quotes")
        options = read_options(given, f"{where}.{label}")
        if name in NAMED and (listed or name != "data") and get(options, NAMED[name]) is None:
            options = lay_over(options, read_options({NAMED[name]: str(label)}, where))
        axis[str(label)] = options
    return axis


def _read_seeds(given: Any, where: str) -> tuple[int, ...]:
    if not isinstance(given, list) or not given or not all(map(is_seed, given)) or len(set(given)) < len(given):
        raise ZooError(
            f"{where} must be a list of different whole numbers from 0 to 2^32 - 1, such as [0, 1, 2], got {given!r}"
        )
    return tuple(given)


def _read_rules(given: Any, axes: Mapping[str, Mapping[str, Any]], where: str) -> list[dict[str, Any]]:
    """Read what differs for some cells: ``when`` names them, by one value or several of any axes."""
    if given is not None and not isinstance(given, list):
        raise ZooError(f"{where}: overrides must be a list of mappings of {', '.join(RULE_KEYS)}, got {given!r}")
    rules = []
    for i, rule in enumerate(given or []):
        place = f"{where}: overrides[{i}]"
        check_keys(rule, RULE_KEYS, place)
        if not isinstance(rule.get("when"), Mapping):
            raise ZooError(f"{place}: when must be a mapping of axes to names, got {rule.get('when')!r}")
        when = {str(a): [str(n) for n in (v if isinstance(v, list) else [v])] for a, v in rule["when"].items()}
        for axis, names in when.items():
            if axis not in axes:
                raise ZooError(f"{place}: {unknown_name('axis', axis, axes)}")
            for name in names:
                if name not in axes[axis]:
                    raise ZooError(f"{place}: {unknown_name(axis, name, axes[axis])}")
        if not isinstance(rule.get("skip", False), bool):
            raise ZooError(f"{place}: skip must be true or false, got {rule['skip']!r}")
        seeds = _read_seeds(rule["seeds"], f"{place}: seeds") if "seeds" in rule else None
        options = read_options(rule.get("options"), place)
        rules.append({"when": when, "options": options, "seeds": seeds, "skip": rule.get("skip", False)})
    return rules


def _cells(
    base: Options, axes: Mapping[str, Mapping[str, Options]], seeds: tuple[int, ...], rules: list[dict[str, Any]]
) -> Iterator[Cell]:
    for names in itertools.product(*axes.values()):
        labels, options, own = dict(zip(axes, names)), base, seeds
        for axis, name in labels.items():
            options = lay_over(options, axes[axis][name])
        matching = [r for r in rules if all(labels[axis] in allowed for axis, allowed in r["when"].items())]
        for rule in matching:
            options, own = lay_over(options, rule["options"]), rule["seeds"] or own
        if not any(rule["skip"] for rule in matching):
            yield Cell(labels, options, own)


def _check(plan: Plan) -> None:
    """Refuse cells that cannot run or are the same."""
    if not plan.cells:
        raise ZooError(f"{plan.path}: the overrides skip every cell")
    seen: dict[str, str] = {}
    for cell in plan.cells:
        text = " · ".join(cell.labels.values())
        check_options(cell.options, f"{plan.path}: {text}", searched=plan.search is not None)
        if plan.search:
            check_options(trial_in_the_middle(cell, plan.search).options, f"{plan.path}: search: {text}", trial=True)
        chosen = trial_in_the_middle(cell, plan.search).chosen if plan.search else {}
        key = Run(cell, 0, chosen).hash
        if key in seen:
            but = " but for what the search chooses" if plan.search else ""
            raise ZooError(
                f"{plan.path}: {seen[key]} and {text} are the same training{but}: skip one of them by overrides"
            )
        seen[key] = text
    names = [cell.name for cell in plan.cells]
    if len(set(names)) < len(names):
        raise ZooError(f"{plan.path}: two cells have the same name {next(n for n in names if names.count(n) > 1)!r}")
