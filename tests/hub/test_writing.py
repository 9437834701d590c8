"""A checkpoint's two files are written together or not at all: killed at any moment, and on a full disk."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gcpzoo
from gcpzoo import paths
from gcpzoo.errors import ZooError
from gcpzoo.hub import save_local

STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod")


def changed(model: gcpzoo.GCPNet) -> gcpzoo.GCPNet:
    """The same network with other weights and other classes."""
    other = gcpzoo.GCPNet.from_config(model.config)
    other.load_state_dict({k: v + 1 if v.is_floating_point() else v for k, v in model.state_dict().items()})
    other.class_names = ["x", "y", "z"]
    return other.eval()


def killed_at(step: int, act: Callable[[], object], folder: Path) -> bool:
    """Run in a process that ends at its n-th operation on the folder's files; say whether it got to its end."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in STEPS and any(str(folder) in str(a) for a in arguments):
            count += 1
            if count == step:
                os._exit(9)

    sys.addaudithook(hook)
    try:
        act()
    except BaseException:
        os._exit(1)
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_kill_at_any_moment_the_pair_is_the_old_or_the_new_one(small: gcpzoo.GCPNet, tmp_path: Path) -> None:
    new, seen = changed(small), set()
    for step in range(1, 200):
        folder = tmp_path / str(step)
        save_local(small, folder)
        (folder / "notes.txt").write_text("mine")
        done = killed_at(step, lambda folder=folder: save_local(new, folder), folder)
        loaded = gcpzoo.load(folder)
        expected = small if loaded.class_names == small.class_names else new
        assert torch.equal(loaded.classifier.bias, expected.classifier.bias)
        seen.add("old" if expected is small else "new")
        save_local(new, folder)  # the next writing cleans up
        names = {path.name for path in folder.iterdir()}
        assert names == {"config.json", "model.safetensors", "notes.txt"}
        if done:
            break
    assert done
    assert step > 8  # moments that were tried
    assert seen == {"old", "new"}


def test_a_full_disk_is_one_line_and_keeps_the_former_pair(
    small: gcpzoo.GCPNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_local(small, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def full(path: Path, data: bytes) -> int:
        with open(path, "wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ZooError, match="model cannot be written: No space left on device; what was there before is"):
        save_local(changed(small), tmp_path / "model")
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_files_that_count_already_are_found_before_they_are_moved(tmp_path: Path) -> None:
    (tmp_path / paths.TOGETHER).mkdir()
    (tmp_path / "config.json").write_text("old")
    (tmp_path / paths.TOGETHER / "config.json").write_text("new")
    assert paths.current(tmp_path, "config.json").read_text() == "new"
    assert paths.current(tmp_path, "other") == tmp_path / "other"
