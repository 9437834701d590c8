"""A sweep and its evidence, and the command that gathers and writes it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from evidence_claim import SHARES
from sweep_folder import write_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def docs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")


@pytest.fixture
def make() -> ModuleType:
    import make_evidence

    return make_evidence


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a sweep with a head that wins, one that loses and one that is close."""
    return write_sweep(tmp_path_factory.mktemp("sweeps") / "pets", SHARES)


@pytest.fixture
def evidence(make: ModuleType, pets: Path, tmp_path: Path) -> Path:
    make.gather(pets, "pets", tmp_path)
    return tmp_path
