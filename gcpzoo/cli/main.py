"""The entry point: which command runs, and which exit code a failure gets."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from gcpzoo import __version__
from gcpzoo.cli.exits import causes, reader_left
from gcpzoo.cli.folder_request import read_request
from gcpzoo.cli.help import add_examples, short_help
from gcpzoo.cli.process import set_up_process
from gcpzoo.cli.shortcuts import expand_shortcuts, is_on_data, refuse_missing_files
from gcpzoo.errors import ZooError

TRAINER_COMMANDS = {
    "fit": "train, then evaluate the final epoch on the test split",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split",
}
COMMANDS = (
    "list",
    "info",
    "predict",
    "embed",
    "neighbors",
    "demo",
    "publish",
    "convert",
    "verify",
    "search_hub",
    "card",
    "check_data",
    "shard",
    "sweep",
    "report",
    "probe",
    "benchmark",
    "analyze",
    "explain",
    "export",
    "serve",
    "app",
)
"""Modules of this package that answer one command each: ``add_parser(subparsers)`` and ``run(args)``."""
EXTRAS = {
    "corrupt_tta": "analyze",
    "fastapi": "serve",
    "gdown": "authors",
    "gradio": "app",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "optuna": "sweep",
    "python_multipart": "serve",
    "pytorch_grad_cam": "explain",
    "tensorboard": "tensorboard",
    "torchcodec": "fast",
    "uvicorn": "serve",
    "wandb": "wandb",
}
"""The extra of ``pyproject.toml`` that installs each module which only a part of the package needs."""
OPENCV = "; those of OpenCV, on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0"
"""How to get what slim systems lack of OpenCV, with which the extras ``analyze`` and ``explain`` come."""


class _Parser(argparse.ArgumentParser):
    """The parser of a command, whose mistakes are one line like all others."""

    def error(self, message: str) -> NoReturn:
        raise ZooError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; LightningCLI parses the options of fit, validate and test by itself.

    >>> parser().parse_args(["list", "resnet18_*"]).pattern
    'resnet18_*'
    """
    top = _Parser(
        "gcpzoo",
        description="A model zoo for global covariance pooling.",
        epilog="Every command explains itself: gcpzoo COMMAND --help",
    )
    top.add_argument("--version", action="version", version=f"gcpzoo {__version__}")
    subparsers = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in TRAINER_COMMANDS.items():
        subparsers.add_parser(name, help=text, add_help=False)
    for name in COMMANDS:
        importlib.import_module(f"gcpzoo.cli.{name}").add_parser(subparsers)
    for name, command in subparsers.choices.items():
        add_examples(name, command)
    return top


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are raised.

    >>> run(["list", "resnet18_isqrt.digits", "--json"])
    [
    ...
    0
    """
    if _asks_for_short_help(argv):
        print(short_help(argv[0], TRAINER_COMMANDS[argv[0]]))
        return 0
    if argv[:1] == ["fit"] and (request := read_request(argv)):
        from gcpzoo.cli.fit_folder import fit_folder

        return fit_folder(request)
    if argv and (argv[0] in TRAINER_COMMANDS or (argv[0] == "predict" and is_on_data(argv))):
        arguments = expand_shortcuts(argv)
        refuse_missing_files(argv)
        from gcpzoo.cli.training import train

        return train(arguments)
    args = parser().parse_args(argv)
    args.run_command = run  # the demo runs other commands
    code: int | None = args.handler(args)
    return code or 0


def _asks_for_short_help(argv: Sequence[str]) -> bool:
    return bool(argv) and argv[0] in TRAINER_COMMANDS and not {"-h", "--help"}.isdisjoint(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. A mistake of the user is one line on stderr and exit code 2.

    >>> main(["info", "resnt50_isqrt"])
    2
    """
    argv = sys.argv[1:] if argv is None else argv
    set_up_process()
    warnings.formatwarning = _format_warning
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # Pillow's; such an image is an error of ours
    if sys.flags.dev_mode or os.environ.get("GCPZOO_TRACEBACK"):
        return run(argv)
    try:
        code = run(argv)
        sys.stdout.flush()
        return code
    except BaseException as error:
        prints_only = (argv[:1] and argv[0] not in TRAINER_COMMANDS) or _asks_for_short_help(argv)
        if prints_only and any(isinstance(c, BrokenPipeError) for c in causes(error)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit has nothing to flush
            return 0  # the reader has seen enough, as in gcpzoo list | head
        if reader_left(error):
            print("gcpzoo: stopped, as nobody reads the output: let it go to a file", file=sys.stderr)
            return 128 + signal.SIGPIPE
        return _explain(error)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Write a warning of ours as one line, which has no use for a place in the code."""
    if filename.startswith(os.path.dirname(os.path.dirname(__file__))):
        return f"gcpzoo: warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _explain(error: BaseException) -> int:
    """Print what ended a command and return the exit code; raise defects of ours again."""
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes(error)):
        print("gcpzoo: stopped", file=sys.stderr)
        return 130
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:  # jsonargparse wraps what a constructor or a link raises
        chain.append(cause)
    mistake: BaseException | None = next((e for e in chain if isinstance(e, ZooError)), None)
    missing = next((e for e in chain if isinstance(e, ModuleNotFoundError)), None)
    if mistake is None and missing is not None:
        module = missing.name or next((m for m in EXTRAS if m in str(missing)), "")  # Lightning gives no name
        text = str(missing) if missing.name or not module else f"No module named {module!r}"
        mistake = ModuleNotFoundError(f"{text}; {_installation(module)}")
    shared = next((e for e in chain if isinstance(e, ImportError) and "shared object file" in str(e)), None)
    if mistake is None and shared is not None:
        mistake = ImportError(f"{shared}; a library of the system is missing{OPENCV}")
    if mistake is None:
        raise error
    print(f"gcpzoo: error: {mistake}", file=sys.stderr)
    return 2


def _installation(module: str) -> str:
    """Say what to install for a module that is missing."""
    if extra := EXTRAS.get(module.partition(".")[0]):
        return f"this needs the extra {extra!r}: pip install 'gcpzoo[{extra}]'"
    return "the installation is incomplete: pip install --force-reinstall gcpzoo"


if __name__ == "__main__":
    sys.exit(main())
