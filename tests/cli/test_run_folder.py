"""The folder of a run is a model for every command, and an evaluation leaves it as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gcpzoo.errors import ZooError
from gcpzoo.paths import run_file

Cli = Callable[..., tuple[int, str, str]]


def test_every_command_takes_the_folder_of_a_run(
    cli: Cli, small_fit: list[str], run_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GCPZOO_CACHE", str(tmp_path / "cache"))
    images, data = folder / "test", small_fit[1:9]
    before = {p: p.read_bytes() for p in run_folder.rglob("*") if p.is_file()}
    for command, expected in (
        (["predict", "--model", "run", images / "north" / "0.png"], "north"),
        (["embed", "--model", "run/", images, "--output", "emb.npz"], "9 vectors of 36 values of 3 classes in emb.npz"),
        (["neighbors", "emb.npz", images / "north" / "0.png", "--top", 2], "1.0000"),
        (["neighbors", "emb.npz", "--evaluate"], "9 queries among 9 images of 3 classes"),
        (["info", "run"], "accuracy    test after epoch 2: top-1 "),
        (["info", "run"], "gcpzoo predict --model run IMAGE"),
        (["probe", "--model", "run", "--data", folder, "--protocol", "knn"], "knn, 36 features"),
        (["publish", "run", "owner/name", "--dry-run"], "training.yaml"),
        (["test", *data, "--model", run_folder], "results in runs/run-test"),
        (["test", *data, "--ckpt_path", "run"], "results in runs/run-test-2"),
        (["predict", *data, "--model", "run/"], "9 predictions in runs/run-predict/predictions.csv"),
    ):
        code, out, err = cli(*command)
        assert code == 0, err
        assert expected in out, (command, out)
    assert {p: p.read_bytes() for p in run_folder.rglob("*") if p.is_file()} == before


def test_info_tells_the_accuracy_of_a_run_not_of_any_of_its_checkpoints(cli: Cli, run_folder: Path) -> None:
    assert "accuracy" in cli("info", "run")[1]
    code, out, err = cli("info", "run/checkpoints/former.ckpt")
    assert code == 0, err
    assert "accuracy" not in out


def test_info_tells_the_accuracy_of_a_run_that_started_from_a_model_of_the_zoo(cli: Cli, run_folder: Path) -> None:
    path = run_folder / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["gcpzoo"] |= {"start": "resnet18_isqrt.digits", "start_licence": "Apache-2.0"}
    torch.save(content, path)
    code, out, err = cli("info", "run")
    assert code == 0, err
    assert "accuracy    test after epoch 2: top-1 " in out
    assert "licence     Apache-2.0" in out
    known = json.loads(cli("info", "run", "--json")[1])
    assert known["name"] == "run"
    assert known["report"]["test"]["images"] == 9
    report = json.loads((run_folder / "metrics.json").read_text())
    report["data"]["pictures"] = report["data"].pop("images")  # as in format 1
    (run_folder / "metrics.json").write_text(json.dumps(report))
    assert "data        ImageFolder: " in cli("info", "run")[1]


def test_a_test_replaces_the_results_of_a_run_only_if_told(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    before = json.loads((run_folder / "metrics.json").read_text())
    config = (run_folder / "config.yaml").read_bytes()
    again = ["test", *small_fit[1:9], "--data.views", "mirror", "--model", "run", "--output", "run"]
    code, _, err = cli(*again)
    assert code == 2
    assert "holds a training, whose results stay as they are" in err
    assert json.loads((run_folder / "metrics.json").read_text()) == before
    code, _, err = cli(*again, "--overwrite")
    assert code == 0, err
    after = json.loads((run_folder / "metrics.json").read_text())
    assert after["data"]["views"] == "mirror"
    assert after["fit"] == before["fit"]
    assert (run_folder / "config.yaml").read_bytes() == config


def test_the_best_epoch_stands_for_the_run_that_kept_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert run_file(tmp_path) is None
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / "checkpoints" / name).touch()
        assert run_file(tmp_path) == tmp_path / "checkpoints" / name
    for i in (1, 2, 10):
        (tmp_path / "born" / f"generation-{i}" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ZooError, match="holds 3 runs: name one, such as .*generation-10"):
        run_file(tmp_path / "born")
