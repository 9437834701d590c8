"""Checkpoints that many tests of the hub start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from standin import Hub

import gcpzoo
from gcpzoo.hub import publish, save_local


@pytest.fixture
def checkpoint(small: gcpzoo.GCPNet, tmp_path: Path) -> Path:
    """The small model's folder."""
    save_local(small, tmp_path / "model", {"licence": "apache-2.0"})
    return tmp_path / "model"


@pytest.fixture
def commit(hub: Hub, small: gcpzoo.GCPNet) -> str:
    """The commit of ``owner/animals``, which holds the small model."""
    return str(publish(small, "owner/animals", licence="apache-2.0").commit)
