"""``gcpzoo predict``: image files, and the images of a data module."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gcpzoo.cli.zoo_cli import ZooCLI

Cli = Callable[..., tuple[int, str, str]]


def test_images_are_predicted_with_class_names(cli: Cli, folder: Path, run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    image = folder / "test" / "north" / "0.png"
    code, out, _ = cli("predict", "--model", ckpt, image, "--top", 2)
    assert code == 0
    assert out.splitlines()[0] == str(image)
    assert sum(name in out for name in (" north", " east", " south")) == 2
    code, out, _ = cli("predict", "--model", ckpt, folder / "test", "--json")
    results = json.loads(out)
    assert len(results) == 9
    assert sum(c["probability"] for c in results[0]["classes"]) == pytest.approx(1, abs=1e-3)


def test_a_data_module_is_predicted_into_a_table(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    code, _, err = cli("predict", *small_fit[1:9], "--ckpt_path", ckpt, "--output", "predicted")
    assert code == 0, err
    assert len(Path("predicted/predictions.csv").read_text().splitlines()) == 1 + 9


def test_unreadable_images_are_named_and_counted(cli: Cli, folder: Path, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes((folder / "test" / "north" / "0.png").read_bytes()[:300])
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    code, out, err = cli("predict", "--model", ckpt, "bad.png", folder / "test" / "north" / "1.png")
    assert code == 2
    assert "1 of 2 images cannot be read: bad.png" in err
    assert "1.png" in out  # the good one is still answered


def test_a_data_module_is_predicted_on_one_device_unless_told_otherwise(
    cli: Cli, small_fit: list[str], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | str] = []
    monkeypatch.setattr(ZooCLI, "predict", lambda self, **_: seen.append(self.config.predict.trainer.devices))
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    for devices in ([], ["--trainer.devices", 2, "--trainer.accelerator", "cpu"]):
        code, _, err = cli("predict", *small_fit[1:9], "--ckpt_path", ckpt, *devices)
        assert code == 0, err
    assert [int(devices) for devices in seen] == [1, 2]


def test_a_table_counts_and_names_what_cannot_be_read(cli: Cli, folder: Path, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes((folder / "test" / "north" / "0.png").read_bytes()[:300])
    command = ["predict", "--model", run_folder, "bad.png", folder / "test", "--top", 1, "--batch-size", 4]
    for options, expected in (([], 2), (["--skip-corrupt", "--ten-crop"], 0)):
        code, out, err = cli(*command, "--output", "out.csv", *options)
        assert code == expected
        assert "1 of 10 images cannot be read: bad.png" in err
        assert "images/s" in err
        assert "9 predictions in out.csv" in out
        lines = Path("out.csv").read_text().splitlines()
        assert lines[0] == "path,class,description,probability,error"
        assert len(lines) == 11
    code, _, err = cli(*command, "--output", "out.csv", "--json")
    assert code == 2
    assert "give one of them" in err


def test_what_neighbors_and_embed_cannot_do_is_said_in_a_line(cli: Cli, folder: Path) -> None:
    Path("folder.npz").mkdir()
    for command, message in (
        (["neighbors", "--evaluate"], "which embeddings? give the .npz file"),
        (["neighbors", "emb.npz"], "give images to find the neighbors of, or --evaluate"),
        (["neighbors", "emb.npz", "--evaluate"], "no embeddings 'emb.npz'"),
        (["embed", "--model", "m", folder, "--output", "emb.csv"], "must be a file that ends in .npz, got 'emb.csv'"),
        (["embed", "--model", "m", folder, "--output", "folder.npz"], "must be a file, got the folder 'folder.npz'"),
        (["embed", "--model", "m", "absent", "--output", "emb.npz"], "no image 'absent'"),
    ):
        code, _, err = cli(*command)
        assert code == 2
        assert message in err


def test_neighbors_names_what_cannot_be_read_beside_what_can(cli: Cli, folder: Path) -> None:
    model, image = "resnet18_isqrt.digits", folder / "test/north/0.png"
    assert cli("embed", "--model", model, folder / "test", "--output", "emb.npz")[0] == 0
    Path("bad.png").write_text("no image")
    for options, expected in (([], 2), (["--skip-corrupt"], 0)):
        code, out, err = cli("neighbors", "emb.npz", "bad.png", image, "--top", 1, "--json", *options)
        assert code == expected
        assert [row["neighbor"] for row in json.loads(out)] == [str(image)]
        assert "1 of 2 images cannot be read: bad.png: not an image" in err
