"""``gcpzoo validate`` and ``test``: on a run's checkpoint or a model by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Cli = Callable[..., tuple[int, str, str]]


def test_a_checkpoint_is_evaluated_and_resumed(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    data = small_fit[1:9]
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    before = json.loads((run_folder / "metrics.json").read_text())
    for command in ("test", "validate"):
        code, out, err = cli(command, *data, "--ckpt_path", ckpt, "--output", "evaluated")
        assert (code, err.count("error")) == (0, 0)
        assert f"{command} after epoch 2: top-1" in out
    again = json.loads(Path("evaluated/metrics.json").read_text())
    assert again["test"]["top1"] == before["test"]["top1"]
    assert again["validate"]["top1"] == before["fit"]["history"][-1]["val/top1"]
    code, _, err = cli(
        *small_fit[:-4], "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu", "--ckpt_path", ckpt
    )
    assert code == 0, err
    resumed = json.loads((run_folder / "metrics.json").read_text())
    assert [row["epoch"] for row in resumed["fit"]["history"]] == [0, 1, 2]


def test_views_are_averaged_at_the_test(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    for views in ("mirror", "ten_crop"):
        code, out, err = cli("test", *small_fit[1:9], "--data.views", views, "--ckpt_path", ckpt, "--output", views)
        assert code == 0, err
        assert "test after epoch 2: top-1" in out


def test_an_evaluation_leaves_the_run_as_it_was(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in run_folder.iterdir() if p.suffix in (".json", ".csv", ".yaml")}
    code, _, err = cli("test", *small_fit[1:9], "--ckpt_path", run_folder / "checkpoints" / "last.ckpt")
    assert code == 0, err
    assert {p.name: p.read_bytes() for p in run_folder.iterdir() if p.name in before} == before
    assert Path("runs/run-test/metrics.json").is_file()


def test_a_model_is_evaluated_on_a_part_of_its_classes(
    cli: Cli, small_fit: list[str], run_folder: Path, folder: Path, tmp_path: Path
) -> None:
    for name in ("north", "south"):
        target = tmp_path / "part" / "test" / name
        target.mkdir(parents=True)
        for image in (folder / "test" / name).iterdir():
            (target / image.name).write_bytes(image.read_bytes())
    data = ["--data", "ImageFolder", "--data.root", tmp_path / "part", "--data.workers", 0]
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    for model in (["--ckpt_path", ckpt], ["--model", ckpt]):
        output = f"o{len(model[0])}"
        code, _, err = cli("test", *data, *model, "--output", output)
        assert code == 0, err
        whole = json.loads((run_folder / "metrics.json").read_text())["test"]["accuracy_of_class"]
        part = json.loads(Path(output, "metrics.json").read_text())["test"]["accuracy_of_class"]
        assert (part["north"], part["south"]) == (whole["north"], whole["south"])
        assert part["east"] is None  # not 0: nothing was measured
    (tmp_path / "part" / "test" / "west").mkdir()
    code, _, err = cli("test", *data, "--ckpt_path", ckpt)
    assert code == 2
    assert "west" in err


def test_what_a_checkpoint_fixes_is_not_silently_ignored(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    code, _, err = cli(*small_fit, "--ckpt_path", ckpt, "--model.head", "gap")
    assert code == 2
    assert "trained with head='isqrt'" in err
    code, _, err = cli(*small_fit[:10], 32, "--model", ckpt, "--model.head", "gap")
    assert code == 2
    assert "brings its own architecture, head='isqrt'" in err
    code, _, err = cli("test", *small_fit[1:9])
    assert code == 2
    assert "which model?" in err
