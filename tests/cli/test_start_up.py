"""Commands that answer without torch, which takes seconds to import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import resource, sys
from gcpzoo.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print("torch" if "torch" in sys.modules else "light", file=sys.stderr)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime, file=sys.stderr)
sys.exit(code)
"""


def start(folder: Path, *arguments: str) -> tuple[int, str, str, float]:
    """Exit code, stdout, ``light`` or ``torch``, and seconds of CPU of a command in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    *_, weight, seconds = done.stderr.split()
    return done.returncode, done.stdout + done.stderr, weight, float(seconds)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["list", "--heads"], 0, "isqrt"),
        (["list"], 0, "resnet18_isqrt.digits"),
        (["list", "--json", "resnet18_*"], 0, "resnet18_isqrt.digits"),
        (["--help"], 0, "predict"),
        (["--version"], 0, "gcpzoo "),
        (["list", "--help"], 0, "--heads"),
        (["fit", "--config", "finetune/digit.yaml"], 2, "did you mean finetune/digits.yaml"),
        (["fit", "--model.lr", "1"], 2, "model.optimizer.lr"),
        (["test", "--data", "Digits", "--ckpt_path", "absent.ckpt"], 2, "no checkpoint 'absent.ckpt'"),
        (["predict", "--model", "resnet18_isqrt.digits", "absent.png"], 2, "no image 'absent.png'"),
        (["info", "resnet18_isqrt.digit"], 2, "did you mean resnet18_isqrt.digits"),
        (["fit", "absent"], 2, "there is no folder 'absent'"),
        (["fit", ".", "--from", "resnet18_isqrt.digit"], 2, "did you mean resnet18_isqrt.digits"),
        (["fit", "--config", "finetune/images.yaml", "--data.root", "absent"], 2, "there is no folder absent"),
        (["fit", "--data", "Digits", "--model.backbone_weights", "absent.pth"], 2, "no weights file 'absent.pth'"),
        (["lst"], 2, "invalid choice"),
    ],
)
def test_a_light_command_answers_without_torch(arguments: list[str], code: int, text: str, tmp_path: Path) -> None:
    found, output, weight, _ = start(tmp_path, *arguments)
    assert text in output
    assert (found, weight) == (code, "light")


def test_the_heads_are_listed_in_half_a_second(tmp_path: Path) -> None:
    assert min(start(tmp_path, "list", "--heads")[3] for _ in range(3)) < 0.5


def test_a_command_builds_no_parser_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from gcpzoo.cli.zoo_cli import ZooCLI

    monkeypatch.setattr(sys, "argv", ["gcpzoo", "test", "--output", "fit"])
    assert list(ZooCLI.subcommands()) == ["test"]
