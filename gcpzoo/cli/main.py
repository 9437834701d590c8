"""The command line: fit, validate, test and predict by LightningCLI, and the zoo's own commands.

The zoo's commands answer without importing torch where they can.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from gcpzoo.errors import ZooError

TRAINER_COMMANDS = {
    "fit": "train, then evaluate the final epoch on the test split",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split",
    "predict": "classify images: predict --model NAME image…",
}


def parser() -> argparse.ArgumentParser:
    """The parser of the zoo's commands; the trainer's commands have LightningCLI's own."""
    from gcpzoo import __version__
    from gcpzoo.cli import commands

    top = argparse.ArgumentParser(
        "gcpzoo",
        description="A model zoo for global covariance pooling.",
        epilog="Every command explains itself: gcpzoo COMMAND --help",
    )
    top.add_argument("--version", action="version", version=f"gcpzoo {__version__}")
    subparsers = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in TRAINER_COMMANDS.items():
        if name != "predict":
            subparsers.add_parser(name, help=text, add_help=False)
    commands.add_commands(subparsers)
    return top


def _is_trainer_command(argv: Sequence[str]) -> bool:
    """Whether LightningCLI answers: ``fit``, ``validate``, ``test``, and ``predict`` on a data module."""
    if not argv or argv[0] not in TRAINER_COMMANDS:
        return False
    on_data = any(a == "-c" or a.startswith(("--config", "--data")) for a in argv)
    return argv[0] != "predict" or on_data


def run(argv: Sequence[str]) -> int:
    """Run one command; errors are raised."""
    if _is_trainer_command(argv):
        from gcpzoo.cli.training import train
        from gcpzoo.training.allocator import keep_freed_memory

        keep_freed_memory()
        return train(list(argv))
    arguments = parser().parse_args(argv)
    handler: Callable[[argparse.Namespace], int | None] = arguments.handler
    return handler(arguments) or 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    if sys.flags.dev_mode or os.environ.get("GCPZOO_TRACEBACK"):
        return run(argv)
    try:
        return run(argv)
    except KeyboardInterrupt:
        print("gcpzoo: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except ModuleNotFoundError as error:
        print(f"gcpzoo: error: {error}; install the project with what it needs: pip install .", file=sys.stderr)
        return 2
    except Exception as error:
        mistake: BaseException | None = error
        while mistake is not None and not isinstance(mistake, ZooError):
            mistake = mistake.__cause__  # jsonargparse wraps what a constructor or a link raises
        if mistake is None:
            raise
        print(f"gcpzoo: error: {mistake}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
