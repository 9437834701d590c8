"""The parser of the trainer's commands: jsonargparse's, with each error in one line that names the nearest options.

jsonargparse has no structured errors, so this is the one place that reads its messages; ``tests/cli/test_mistakes.py``
fails when they change.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import pkgutil
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

import gcpzoo.data
from gcpzoo.cli.untrusted import OPTION, explain_refusal
from gcpzoo.data.modules import data_modules
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.heads import head_arguments, list_heads
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.training import ClassificationTask, DistillationConfig, OptimizerConfig, ScheduleConfig

TOP_OPTIONS = (
    "config",
    "output",
    "evaluate",
    "generations",
    "resume",
    "overwrite",
    "best",
    "best_by",
    "patience",
    "lr_find",
    "seed_everything",
    "ckpt_path",
    "print_config",
    "help",
    "model",
    "data",
)
CLASS_PROBLEM = r"Parser key \"([\w.]+)\":(?:.*?)\n( *)- Problem with given class_path '([^']+)':\s+(.*?)(?=\n\2- |\Z)"
"""Groups: option, indentation, class, and the message about it, which ends where the next item of the list begins."""
UNKNOWN_OPTION = (
    r"^unrecognized arguments: --([^\s=]+)",
    r"^Subcommand '\w+' does not accept option '([^']+)'",
    r"^Option '([^']+)' is not accepted",
)
UNKNOWN_IN_GROUP = r"^Group '([\w.]+)' does not accept option '([^']+)'"
REQUIRED = r"^the following arguments are required: (?:fit\.|validate\.|test\.|predict\.)?([\w.]+)"
NO_CLASS = r"^Parser key \"([\w.]+)\":.*Expected a dot import path string: (\S+)"
NOT_THE_TYPE = r"^Parser key \"([\w.]+)\":\s+Expected a (.+)\. Got value: (.*)"
NONE_OF_THE_TYPES = r"^Parser key \"([\w.]+)\":.*\n *Subtypes: \[(.*?)\]\n.*\n *Given value: (.*)"
NOT_IMPORTED = r"Importing '([^']+)' is not allowed"
NO_MAPPING = r"^Unexpected config"
NO_GROUP = r"^Parser key \"([\w.]+)\":\s+Unable to load config '(.*?)'"


class _AllowImport(argparse.Action):
    """``--allow-import`` is read before the parser runs, so that no config file can give it; here it has its help."""

    def __call__(self, *_: Any) -> None:
        pass


class Parser(LightningArgumentParser):
    """LightningCLI's parser, whose errors are one line each.

    >>> Parser().parse_args(["--model.hed", "gap"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown option 'model.hed': did you mean model.head ...
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_argument(
            OPTION,
            action=_AllowImport,
            dest=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            metavar="PACKAGE",
            help="a further package that configs may name classes of; may be given several times",
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a trial inside jsonargparse, which reads the message itself
            super().error(message, ex)
        raise ZooError(explain(str(message))) from ex


def explain(message: str, group: str = "", owner: str | None = None) -> str:
    """Turn an error message of jsonargparse into one line for the user.

    Args:
        message: what jsonargparse says.
        group: options that the message is about, if it comes from within another message.
        owner: import path of the class that takes these options.

    >>> explain("Subcommand 'fit' does not accept option 'model.hed'")
    "unknown option 'model.hed': did you mean model.head or ..."
    >>> explain('Parser key "evaluate":\\n  Expected a <class \\'bool\\'>. Got value: maybe')
    'evaluate must be of type bool, got maybe'
    """
    if refused := re.search(NOT_IMPORTED, message):
        return explain_refusal(refused[1])
    if inner := re.search(CLASS_PROBLEM, message, re.DOTALL):
        return explain(inner[4], f"{group}{inner[1]}.", inner[3])
    for pattern in UNKNOWN_OPTION:
        if found := re.search(pattern, message):
            return _unknown_option(f"{group}{found[1]}", group, owner)
    if found := re.search(UNKNOWN_IN_GROUP, message):
        return _unknown_option(f"{group}{found[1]}.{found[2]}", group, owner)
    if found := re.search(REQUIRED, message):
        remedy = ": give a data module, such as ImageFolder" if found[1] == "data" else ""
        return f"--{group}{found[1]} is missing{remedy}"
    if found := re.search(NO_CLASS, message, re.DOTALL):
        if found[1] == "data":
            return str(unknown_name("data module", found[2], data_modules()))
        return f"{group}{found[1]}: no class {found[2]!r}; give its import path"
    if found := re.search(NOT_THE_TYPE, message):
        return f"{group}{found[1]} must be {_type(found[2])}, got {found[3]}"
    if found := re.search(NONE_OF_THE_TYPES, message, re.DOTALL):
        return f"{group}{found[1]} must be {_type(found[2])}, got {found[3]}"
    if re.search(NO_MAPPING, message):
        return "a config file must be a mapping of model, data, trainer …, got something else or nothing"
    if found := re.search(NO_GROUP, message, re.DOTALL):
        name = f"{group}{found[1]}"
        own = ", ".join(option.removeprefix(f"{name}.") for option in options() if option.startswith(f"{name}."))
        return f"{name} must be a mapping{own and f' of {own}'}, or a YAML file of one, got {found[2]}"
    text = " ".join(message.split())[:500]
    return f"{group.rstrip('.')}: {owner}: {text}" if owner else text


def _unknown_option(name: str, group: str, owner: str | None) -> str:
    own = [f"{group}{argument}" for argument in _arguments(pkgutil.resolve_name(owner))] if owner else []
    if group == "data." and name in options():
        kind = str(owner).rpartition(".")[2]
        what = "of no data module" if kind == "LightningDataModule" else f"none of {kind}'s"
        return f"--{name} is {what}: give the data module that has it, such as --data ImageFolder, before it"
    return str(unknown_name("option", name, [*own, *options()]))


def _type(text: str) -> str:
    """Write a type as users know it: ``<class 'int'>, <class 'NoneType'>`` is ``of type int or null``."""
    if text.startswith("typing.Literal["):
        return f"one of {text.removeprefix('typing.Literal[').rstrip(']')}"
    names = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text).replace("NoneType", "null")
    names = re.sub(r"typing\.Literal\[([^\]]*)\]?", r"\1", names)
    return "of type " + " or ".join(names.split(", "))


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
    names = {f"{g}.{n}" for g, classes in groups.items() for c in classes for n in _arguments(c)}
    kinds = {"optimizer": OptimizerConfig, "schedule": ScheduleConfig, "distillation": DistillationConfig}
    for group, kind in kinds.items():
        names |= {f"model.{group}.{field.name}" for field in dataclasses.fields(kind)}
    names |= {f"model.head_args.{n}" for head in list_heads() for n in head_arguments(head)}
    return sorted(names | set(TOP_OPTIONS))


def _arguments(kind: Any) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def typed_options(argv: Sequence[str]) -> set[str]:
    """Return the options typed on a command line, with every group that holds them.

    >>> sorted(typed_options(["fit", "--model.head_args.iterations", "3", "--output=x"]))
    ['model', 'model.head_args', 'model.head_args.iterations', 'output']
    """
    keys = [a.removeprefix("--").partition("=")[0] for a in argv if a.startswith("--")]
    return {".".join(key.split(".")[:n]) for key in keys for n in range(1, key.count(".") + 2)}
