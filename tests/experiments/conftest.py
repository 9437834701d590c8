"""Sweeps whose trainings are stubs: a file to write, and a process that trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep_folder import BASE, STUB

from gcpzoo.experiments.sweep import process


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write the file of a sweep whose trainings are stubs."""
    monkeypatch.setattr(process, "COMMAND", STUB)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def written(**content: Any) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({"output": str(tmp_path / "out"), "base": BASE, **content}, sort_keys=False))
        return path

    return written
