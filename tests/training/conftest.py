"""Trainings of nine batches an epoch, and the moments of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_files import NINE_BATCHES, Moments


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Moments:
    return Moments(monkeypatch)


@pytest.fixture(scope="session")
def plain(folder: Path) -> list[str]:
    return ["fit", "--data", "ImageFolder", "--data.root", str(folder), *NINE_BATCHES]
