"""What was typed for the trainer's commands: short forms before the parser, and in plain words what it refuses."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, NoReturn

from lightning import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

import gcpzoo.data
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.heads import head_arguments, list_heads
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.paths import resource
from gcpzoo.training.task import ClassificationTask


def rewritten(argv: list[str]) -> list[str]:
    """``--model NAME`` as ``--model.checkpoint NAME``, and configs of the package found by their short path."""
    arguments: list[str] = []
    for i, a in enumerate(argv):
        key, equals, value = a.partition("=")
        named = value or (argv[i + 1] if i + 1 < len(argv) else "")
        if key == "--model" and not named.endswith((".yaml", ".yml", ".json")):
            a = "--model.checkpoint" + equals + value
        previous = arguments[-1] if arguments else ""
        for prefix, name in (("", a), ("--config=", value)):
            is_config = previous in ("-c", "--config") if not prefix else key == "--config"
            if is_config and not Path(name).exists():
                known = sorted(str(p.relative_to(resource("configs"))) for p in resource("configs").rglob("*.yaml"))
                if name.removeprefix("configs/") not in known:
                    raise unknown_name("config file", name, known)
                a = prefix + str(resource("configs") / name.removeprefix("configs/"))
        arguments.append(a)
    return arguments


class Parser(LightningArgumentParser):
    """Errors in one line, with the nearest names."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a trial inside jsonargparse, which reads the message
            super().error(message, ex)
        raise ZooError(self._explain(str(message))) from ex

    def _explain(self, message: str) -> str:
        options = [o.lstrip("-") for a in self._actions for o in a.option_strings if o.startswith("--")]
        options += _options()
        patterns = (
            r"nrecognized arguments: (\S+)",
            r"[Kk]ey '([^']+)' is not expected",
            r"ubcommand '\w+' does not accept option '([^']+)'",
        )
        for pattern in patterns:
            if argument := re.search(pattern, message):
                return str(unknown_name("option", argument[1].lstrip("-").split("=")[0], options))
        if inner := re.search(
            r"(?:Group '(\w+)' does not accept option|Option) '([^']+)'(?: is not accepted)?", message
        ):
            nested = re.findall(r"NestedArg\(key='([^']+)'", message)
            name = nested[-1] if nested else ".".join(filter(None, inner.groups()))
            return str(unknown_name("option", f"data.{name}", options))
        key = re.match(r'(?:Parser key|Problem with given class_path) "?\'?([\w.]+)', message)
        where = f"{key[1]}: " if key else ""
        if path := re.search(r"Expected a dot import path string: (\S+)", message):
            if where == "data: ":
                return str(unknown_name("data module", path[1], _data_modules()))
            return f"{where}there is no class {path[1]!r}; give its import path"
        if missing := re.search(r"arguments are required: (\S+)", message):
            option = re.sub(r"^(fit|validate|test|predict)\.", "", missing[1])
            return f"{where}--{where.strip(': ') + '.' if where else ''}{option} is missing"
        if expected := re.findall(r'Parser key "([\w.]+)":\s+(Expected a [^\n]*)', message):
            return f"{expected[-1][0]}: {expected[-1][1]}"
        if broken := re.search(r"Problem with given class_path '([^']+)':\s+([^\n]+)", message):
            return f"{where}{broken[1]}: {broken[2]}"
        if message.strip().startswith("Unexpected config"):
            return "a config file is empty, or no mapping of model, data, trainer …"
        text = " ".join(message.split("Given value type")[0].split())
        return re.sub(r'^Parser key "([^"]+)":', r"\1:", text)[:500]


def _data_modules() -> dict[str, type[LightningDataModule]]:
    """The data modules by name, without the base that they share."""
    base = gcpzoo.data.ImageDataModule
    known = vars(gcpzoo.data).items()
    return {n: c for n, c in known if inspect.isclass(c) and issubclass(c, base) and c is not base}


def _options() -> list[str]:
    """Options that a parser knows only inside a command, or when a data module is named."""
    groups: dict[str, list[Any]] = {
        "data": [gcpzoo.data.ImageDataModule, *_data_modules().values()],
        "data.augment": [gcpzoo.data.Augment],
        "data.preprocessing": [Preprocessing],
        "model": [ClassificationTask],
        "trainer": [Trainer],
    }
    options = {f"{g}.{n}" for g, classes in groups.items() for c in classes for n in inspect.signature(c).parameters}
    return sorted(options | {f"model.head_args.{n}" for head in list_heads() for n in head_arguments(head)})
