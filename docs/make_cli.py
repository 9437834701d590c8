"""The command-line reference, from the parsers and the examples of the help pages; ``make site`` shows it.

python docs/make_cli.py        # prints the page
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

from gcpzoo.cli.help import EXAMPLES, trainer_options
from gcpzoo.cli.main import TRAINER_COMMANDS, parser
from gcpzoo.hub.card import markdown

INTRODUCTION = """# Command line

`gcpzoo COMMAND --help` shows the same. In a checkout `python cli.py …` is `gcpzoo …`. Exit codes: 0 all went well, 1 a
check found something, 2 a mistake in the command or its files, which one line on stderr explains, 130 stopped by
Ctrl-C, 143 by SIGTERM."""
TRAINER = """All options are those of a [config file](training.md), of which these are the ones that most runs need;
`gcpzoo {command} --help-all` shows all, `gcpzoo {command} --data.help CLASS` those of a data set,
[Python](api/training.md) what each does."""


def subcommands(top: argparse.ArgumentParser) -> Mapping[str, tuple[str, argparse.ArgumentParser]]:
    """Give each command's line of help and its parser; argparse has no public name for either."""
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {told.dest: (told.help or "", action.choices[told.dest]) for told in action._choices_actions}
    raise ValueError("the parser has no commands")


def options(command: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yield how each option is written, and what it does."""
    for action in command._actions:
        if action.help in ("show this help message and exit", argparse.SUPPRESS):
            continue
        value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
        if action.choices is not None:
            value = "{" + ",".join(map(str, action.choices)) + "}"
        name = ", ".join(action.option_strings)
        yield f"{name} {value}".strip(), " ".join((action.help or "").replace("%%", "%").split())


def page() -> str:
    """Write the page.

    >>> page().splitlines()[0]
    '# Command line'
    """
    commands = subcommands(parser())
    rows = [(f"[`{name}`](#gcpzoo-{name})", _cell(text)) for name, (text, _) in commands.items()]
    parts = [INTRODUCTION, markdown(("command", ""), rows)]
    return "\n\n".join([*parts, *(_section(name, *command) for name, command in commands.items())]) + "\n"


def _section(name: str, text: str, command: argparse.ArgumentParser) -> str:
    parts = [f"## gcpzoo {name}", f"{text[0].upper()}{text[1:].rstrip('.')}."]
    parts.append("```bash\n" + "\n".join(EXAMPLES[name]) + "\n```")
    if name in TRAINER_COMMANDS:
        parts.append(TRAINER.format(command=name))
        rows = trainer_options(name)
    else:
        rows = list(options(command))
    parts.append(markdown(("option", ""), [(f"`{_cell(option)}`", _cell(what)) for option, what in rows]))
    _, _, note = (command.epilog or "").partition("\n\n")  # what stands behind the examples
    return "\n\n".join([*parts, *([" ".join(note.split())] if note else [])])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
