"""From class folders to shards to a training on them, through the command line."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from image_files import truncate

Cli = Callable[..., tuple[int, str, str]]


def test_a_fit_on_shards_is_the_fit_on_the_folders(
    cli: Cli, folder: Path, small_fit: list[str], tmp_path: Path
) -> None:
    code, out, err = cli("shard", folder, "shards")
    assert code == 0, err
    assert "train: 18 images in 1 shard\nval: 6 images in 1 shard\ntest: 9 images in 1 shard\n" in out
    assert out.endswith("use it by --data.root shards\n")
    figures, rows = [], []
    for name, root in (("folders", folder), ("tars", tmp_path / "shards")):
        options = [str(root) if a == str(folder) else "ImageNet" if a == "ImageFolder" else a for a in small_fit]
        code, _, err = cli(*options, "--trainer.max_epochs", 1, "--output", name)
        assert code == 0, err
        figures.append(json.loads(Path(name, "metrics.json").read_text()))
        code, _, err = cli(
            "predict", *options[1:9], "--ckpt_path", f"{name}/checkpoints/last.ckpt", "--output", f"{name}-p"
        )
        assert code == 0, err
        with Path(f"{name}-p", "predictions.csv").open() as file:
            rows.append(list(csv.DictReader(file)))
    assert figures[0]["data"] == figures[1]["data"]
    assert figures[0]["test"] | {"seconds": 0} == figures[1]["test"] | {"seconds": 0}
    assert [row["path"] for row in rows[1]] == [
        row["path"].replace(f"{folder}/val", f"{tmp_path}/shards/val-00000.tar") for row in rows[0]
    ]
    assert [row["probability"] for row in rows[0]] == [row["probability"] for row in rows[1]]


def test_mistakes_end_with_exit_code_2_and_one_line(cli: Cli, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    truncate(broken / "train/north/1.png")
    for arguments, message in (
        ((broken, "out"), "1 of 33 images in"),
        ((folder / "train", "out"), "has no folder train, val or test; expected"),
        ((tmp_path / "nowhere", "out"), "1 folder cannot be read"),
        ((folder, tmp_path), "OUT must be a new or empty folder"),
        ((folder, "out", "--max-mb", 0), "a shard must be allowed 1 MB at least"),
    ):
        code, _, err = cli("shard", *arguments)
        assert (code, err.count("\n")) == (2, 1), err
        assert message in err
    assert not Path("out").exists()


def test_broken_images_can_be_left_out_and_splits_chosen(cli: Cli, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    truncate(broken / "train/north/1.png")
    code, out, err = cli("shard", broken, "out", "--skip-corrupt", "--splits", "train", "test")
    assert code == 0, err
    assert "train: 17 images" in out
    assert "left out: 1 image that cannot be read: train/north/1.png (image file is truncated" in out
    assert sorted(path.name for path in Path("out").glob("*.tar")) == ["test-00000.tar", "train-00000.tar"]
