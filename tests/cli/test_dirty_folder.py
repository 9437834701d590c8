"""A folder with everything that goes wrong with folders, through the commands that read one."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Cli = Callable[..., tuple[int, str, str]]
BROKEN = {
    "train/north/cut.png": "truncated",
    "train/east/pipe.png": "not a regular file",
    "train/east/gone.png": "no such file",
    "test/south/empty.jpg": "empty file",
    "test/south/page.jpg": "not an image",
    "test/south/bomb.png": "more than 20,000 pixels",
}
IGNORED = {
    "train/.git": "its name begins with a dot",
    "train/notes.txt": "in no class folder",
    "train/north/loop": "a link to a folder that holds it",
    "train/north/folder.jpg": "a folder, not an image",
    "train/east/phone.heic": "no image suffix",
}


@pytest.fixture
def dirty(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of three classes, with all of ``BROKEN`` and ``IGNORED`` and some odd but good images."""
    root = tmp_path / "dirty"
    shutil.copytree(folder, root)
    one = (root / "train/north/0.png").read_bytes()
    (root / "train/north/cut.png").write_bytes(one[: len(one) // 2])
    os.mkfifo(root / "train/east/pipe.png")
    (root / "train/east/gone.png").symlink_to("nowhere")
    (root / "test/south/empty.jpg").touch()
    (root / "test/south/page.jpg").write_text("<html>404</html>")
    Image.new("1", (200, 200)).save(root / "test/south/bomb.png")
    (root / "train/.git").mkdir()
    (root / "train/notes.txt").touch()
    (root / "train/north/loop").symlink_to("../..")
    (root / "train/north/folder.jpg").mkdir()
    (root / "train/east/phone.heic").touch()
    for split in ("train", "val", "test"):
        (root / split / "south").rename(root / split / "__south")
    os.rename(root / "test/north/0.png", os.fsencode(root) + b"/test/north/caf\xe9.png")
    os.rename(root / "train/east/5.png", root / "train/east/__5.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    return root


def renamed(name: str) -> str:
    return name.replace("south", "__south")


def on(dirty: Path, arguments: list[str]) -> list[str]:
    return [str(dirty) if a.endswith("images0") else a for a in arguments]


def test_check_data_reports_everything_and_fails(cli: Cli, dirty: Path, folder: Path) -> None:
    code, out, err = cli("check-data", dirty, "--json")
    assert code == 1, err
    report = json.loads(out)
    assert not report["ok"]
    assert set(report["unreadable"]) == set(map(renamed, BROKEN))
    assert all(why in report["unreadable"][renamed(name)] for name, why in BROKEN.items())
    assert report["ignored"] == IGNORED
    assert report["classes"]["train"] == {"__south": 6, "east": 6, "north": 6}
    assert report["images"] == 33
    assert report["width"] == report["height"] == [48, 48, 48]
    assert report["modes"] == {"RGB": 33}
    code, out, err = cli("check-data", dirty)
    assert code == 1, err
    for name, why in (BROKEN | IGNORED).items():
        assert any(renamed(name) in line and why in line for line in out.splitlines()), name
    code, out, err = cli("check-data", folder)
    assert (code, err) == (0, "")
    assert "33 images: nothing is wrong" in out
    assert cli("check-data", dirty / "nowhere")[0] == 2


def test_a_fit_names_all_that_is_broken_or_ignored_and_stops(
    cli: Cli, dirty: Path, small_fit: list[str], recwarn: pytest.WarningsRecorder
) -> None:
    code, _, err = cli(*on(dirty, small_fit), "--output", "run")
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith(f"gcpzoo: error: 6 of 39 images in {dirty} cannot be read: ")
    assert all(f"{renamed(name)} (" in last and why in last for name, why in BROKEN.items())
    warning = next(str(w.message) for w in recwarn if "ignored: " in str(w.message))
    assert "\n" not in warning
    assert all(name.removeprefix("train/") + f" ({why})" in warning for name, why in IGNORED.items())
    assert not Path("run/checkpoints").exists()


def test_a_fit_that_skips_what_is_broken_says_so_at_its_end(cli: Cli, dirty: Path, small_fit: list[str]) -> None:
    code, out, err = cli(*on(dirty, small_fit), "--skip-corrupt", "--output", "run")
    assert code == 0, err
    assert "6 unreadable images were left out; metrics.json names them" in out
    data = json.loads(Path("run/metrics.json").read_text())["data"]
    assert set(data["left_out"]) == set(map(renamed, BROKEN))
    assert data["images"] == {"train": 18, "val": 6, "test": 9}
    options = on(dirty, small_fit)[1:9]
    code, _, err = cli(
        "predict", *options, "--skip-corrupt", "--ckpt_path", "run/checkpoints/last.ckpt", "--output", "p"
    )
    assert code == 0, err
    with open("p/predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert f"{dirty}/test/north/caf\\udce9.png" in [row["path"] for row in rows]


@pytest.mark.filterwarnings("ignore:.*1 ignored")
def test_a_prediction_answers_all_that_can_be_read(cli: Cli, dirty: Path, run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    (dirty / "test/north/again").symlink_to("..")  # three images, not six
    code, out, err = cli("predict", "--model", ckpt, dirty / "test", "--json")
    assert code == 2
    assert "3 of 12 images cannot be read: " in err
    assert "more than 20,000 pixels" in err
    paths = [answer["path"] for answer in json.loads(out)]
    assert len(paths) == 9
    assert f"{dirty}/test/north/caf\udce9.png" in paths
    code, out, err = cli("predict", "--model", ckpt, dirty / "test", "--json", "--skip-corrupt")
    assert code == 0
    assert len(json.loads(out)) == 9
    assert "3 of 12 images cannot be read: " in err


def test_a_run_does_not_go_on_when_other_images_are_broken(cli: Cli, dirty: Path, small_fit: list[str]) -> None:
    options = [*on(dirty, small_fit), "--skip-corrupt"]
    assert cli(*options, "--trainer.max_epochs", 1, "--evaluate", "false", "--output", "run")[0] == 0
    (dirty / "train/north/1.png").write_bytes(b"")
    code, _, err = cli(*options, "--ckpt_path", "run/checkpoints/last.ckpt")
    assert code == 2
    assert "1 images can no longer be read and 0 can be read again" in err.splitlines()[-1]
    assert "train/north/1.png" in err.splitlines()[-1]
