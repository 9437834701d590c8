"""Folders that users and packagers rely on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gcpzoo.errors import ZooError
from gcpzoo.paths import cache, replacing, resource


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GCPZOO_CACHE": "/data/weights", "XDG_CACHE_HOME": "/elsewhere"}, "/data/weights"),
        ({"GCPZOO_CACHE": "~/weights"}, "/home/me/weights"),
        ({"XDG_CACHE_HOME": "/elsewhere"}, "/elsewhere/gcpzoo"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/gcpzoo"),
        ({}, "/home/me/.cache/gcpzoo"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("GCPZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache() == Path(expected)


def test_resources_are_those_of_the_checkout() -> None:
    assert (resource("checkpoints") / "records").is_dir()
    assert (resource("configs") / "finetune").is_dir()


def test_resources_of_an_installed_package_lie_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcpzoo.paths.files", lambda name: tmp_path / name)
    assert resource("configs") == tmp_path / "gcpzoo" / "configs"


def test_a_pipe_or_device_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused = pytest.raises(ZooError, match="output must be a file, got '.*pipe', a device or pipe")
    with refused, replacing(tmp_path / "pipe") as temporary:
        temporary.touch()
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]
