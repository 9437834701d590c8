"""OpenMP's threads wait asleep in the commands, unless the user has said how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gcpzoo.cli.process import WAITING, set_up_process

ROOT = Path(__file__).parents[2]
FUNCTION = "import sys; from gcpzoo.cli.main import main; sys.exit(main(sys.argv[1:]))"
ENTRIES = {"module": ["-m", "gcpzoo"], "checkout": [str(ROOT / "cli.py")], "script": ["-c", FUNCTION]}


def settings(entry: str, **chosen: str) -> str:
    """Return what libgomp says of its settings when a command loads torch."""
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *ENTRIES[entry], "info", "resnet18_isqrt.digits"],
        env=kept | {"PYTHONPATH": path, "OMP_DISPLAY_ENV": "verbose"} | chosen,
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch does not use libgomp")
    return done.stderr


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_command_sets_how_threads_wait_before_torch_is_loaded(entry: str) -> None:
    assert "GOMP_SPINCOUNT = '1000'" in settings(entry)


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [({"GOMP_SPINCOUNT": "77"}, "GOMP_SPINCOUNT = '77'"), ({"OMP_WAIT_POLICY": "passive"}, "GOMP_SPINCOUNT = '0'")],
)
def test_the_setting_of_a_user_wins(chosen: dict[str, str], shown: str) -> None:
    assert shown in settings("module", **chosen)


def test_processes_of_a_command_inherit_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "")  # so that what follows is undone
    monkeypatch.delenv("GOMP_SPINCOUNT")
    set_up_process()
    code = "import os; print(os.environ['GOMP_SPINCOUNT'])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1000"


def test_importing_the_package_changes_no_setting() -> None:
    code = "import os; before = dict(os.environ); import gcpzoo; gcpzoo.load; print(dict(os.environ) == before)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "True"
