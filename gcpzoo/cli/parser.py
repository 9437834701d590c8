"""The parser of the trainer's commands: jsonargparse's, with each error in one line that names the nearest options.

jsonargparse has no structured errors, so this is the one place that reads its messages; ``tests/cli/test_mistakes.py``
fails when they change.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any, NoReturn

from lightning import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

import gcpzoo.data
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.heads import head_arguments, list_heads
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.training import ClassificationTask, OptimizerConfig, ScheduleConfig

TOP_OPTIONS = ("config", "output", "evaluate", "seed_everything", "ckpt_path", "print_config", "help", "model", "data")
UNKNOWN_OPTION = (
    r"nrecognized arguments: (\S+)",
    r"[Kk]ey '([^']+)' is not expected",
    r"ubcommand '\w+' does not accept option '([^']+)'",
)
NOT_OF_DATA = r"(?:Group '(\w+)' does not accept option|Option) '([^']+)'(?: is not accepted)?"


class Parser(LightningArgumentParser):
    """LightningCLI's parser, whose errors are one line each.

    >>> Parser().parse_args(["--model.hed", "gap"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown option 'model.hed': did you mean model.head ...
    """

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a trial inside jsonargparse, which reads the message itself
            super().error(message, ex)
        raise ZooError(explain(str(message))) from ex


def explain(message: str) -> str:
    """Turn an error message of jsonargparse into one line for the user.

    >>> explain("Key 'model.hed' is not expected")
    "unknown option 'model.hed': did you mean model.head or ..."
    """
    for pattern in UNKNOWN_OPTION:
        if found := re.search(pattern, message):
            return str(unknown_name("option", found[1].lstrip("-").split("=")[0], options()))
    if found := re.search(NOT_OF_DATA, message):
        nested = re.findall(r"NestedArg\(key='([^']+)'", message)
        name = nested[-1] if nested else ".".join(filter(None, found.groups()))
        return str(unknown_name("option", f"data.{name}", options()))
    key = re.match(r'(?:Parser key|Problem with given class_path) "?\'?([\w.]+)', message)
    where = f"{key[1]}: " if key else ""
    if path := re.search(r"Expected a dot import path string: (\S+)", message):
        if where == "data: ":
            return str(unknown_name("data module", path[1], data_modules()))
        return f"{where}no class {path[1]!r}; give its import path"
    if missing := re.search(r"arguments are required: (\S+)", message):
        option = re.sub(r"^(fit|validate|test|predict)\.", "", missing[1])
        return f"{where}--{where.strip(': ') + '.' if where else ''}{option} is missing"
    if expected := re.findall(r'Parser key "([\w.]+)":\s+(Expected a [^\n]*)', message):
        return f"{expected[-1][0]}: {expected[-1][1]}"
    if broken := re.search(r"Problem with given class_path '([^']+)':\s+([^\n]+)", message):
        return f"{where}{broken[1]}: {broken[2]}"
    if message.strip().startswith("Unexpected config"):
        return "a config file must be a mapping of model, data, trainer …, got something else or nothing"
    text = " ".join(message.split("Given value type")[0].split())
    return re.sub(r'^Parser key "([^"]+)":', r"\1:", text)[:500]


def data_modules() -> dict[str, type[LightningDataModule]]:
    """Return the zoo's data modules by name, without their common base.

    >>> "Digits" in data_modules()
    True
    """
    base = gcpzoo.data.ImageDataModule
    known = vars(gcpzoo.data).items()
    return {n: c for n, c in known if inspect.isclass(c) and issubclass(c, base) and c is not base}


def options() -> list[str]:
    """Return the options of the trainer's commands, also those that appear only when a data module is named.

    >>> {"model.optimizer.lr", "data.root", "trainer.max_epochs"} <= set(options())
    True
    """
    groups: dict[str, list[Any]] = {
        "data": [gcpzoo.data.ImageDataModule, *data_modules().values()],
        "data.augment": [gcpzoo.data.Augment],
        "data.preprocessing": [Preprocessing],
        "model": [ClassificationTask],
        "trainer": [Trainer],
    }
    names = {f"{g}.{n}" for g, classes in groups.items() for c in classes for n in inspect.signature(c).parameters}
    for group, kind in (("optimizer", OptimizerConfig), ("schedule", ScheduleConfig)):
        names |= {f"model.{group}.{field.name}" for field in dataclasses.fields(kind)}
    names |= {f"model.head_args.{n}" for head in list_heads() for n in head_arguments(head)}
    return sorted(names | set(TOP_OPTIONS))
