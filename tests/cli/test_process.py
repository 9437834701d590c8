"""OpenMP's threads wait asleep in the commands, unless the user has said how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gcpzoo.cli.process import SHARE_THREADS, WAITING, set_up_process

ROOT = Path(__file__).parents[2]
FUNCTION = "import sys; from gcpzoo.cli.main import main; sys.exit(main(sys.argv[1:]))"
ENTRIES = {"module": ["-m", "gcpzoo"], "checkout": [str(ROOT / "cli.py")], "script": ["-c", FUNCTION]}


def settings(entry: str) -> str:
    """Return what libgomp says of its settings when a command loads torch."""
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *ENTRIES[entry], "info", "resnet18_isqrt.digits"],
        env=kept | {"PYTHONPATH": path, "OMP_DISPLAY_ENV": "verbose"},
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


@pytest.mark.parametrize("chosen", [{"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": "passive"}])
def test_the_setting_of_a_user_wins(chosen: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(chosen))
    set_up_process()
    assert {name: os.environ[name] for name in WAITING if name in os.environ} == chosen


def test_processes_of_a_command_inherit_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*WAITING, SHARE_THREADS):
        monkeypatch.setenv(name, "")  # so that what follows is undone
        monkeypatch.delenv(name)
    set_up_process()
    code = "import os; print(os.environ['GOMP_SPINCOUNT'], os.environ['GCPZOO_SHARE_THREADS'])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["1000", "1"]


def test_the_switch_of_the_command_line_is_that_of_the_library() -> None:
    from gcpzoo.functional.threads import SWITCH

    assert SWITCH == SHARE_THREADS


def test_a_user_keeps_the_threads_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARE_THREADS, "0")
    set_up_process()
    assert os.environ[SHARE_THREADS] == "0"


def test_importing_the_package_changes_no_setting() -> None:
    code = "import os; before = dict(os.environ); import gcpzoo; gcpzoo.load; print(dict(os.environ) == before)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "True"
