"""Where a run's files go, and what it prints at its end."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import Namespace

from gcpzoo.cli.outputs import OUTPUT, output_folder, set_former_log_aside, summary_line, write_predictions
from gcpzoo.errors import ZooError

Cli = Callable[..., tuple[int, str, str]]
FIGURES = {"top1": 0.1, "top5": 0.2, "per_class": 0.3, "loss": 0.4}
OTHERS = {"top1": 0.5, "top5": 0.6, "per_class": 0.7, "loss": None}


def test_each_figure_of_the_summary_has_its_own_name() -> None:
    report = {"fit": {"epochs": 7}, "validate": OTHERS, "test": FIGURES}
    assert summary_line("test", report) == (
        "test after epoch 7: top-1 10.00 %, top-5 20.00 %, mean over classes 30.00 %, loss 0.4000"
    )
    del report["fit"]
    assert summary_line("validate", report) == (
        "validate: top-1 50.00 %, top-5 60.00 %, mean over classes 70.00 %, loss not finite"
    )


def test_a_run_prints_what_its_report_holds(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    for command in ("validate", "test"):
        code, out, err = cli(command, *small_fit[1:9], "--ckpt_path", ckpt, "--output", "evaluated")
        assert code == 0, err
        report = json.loads(Path("evaluated/metrics.json").read_text())
        assert summary_line(command, {**report, "fit": {"epochs": 2}}) in out.splitlines()
        assert out.splitlines()[-1] == "results in evaluated"
    assert report["validate"] != report["test"]
    history = json.loads((run_folder / "metrics.json").read_text())["fit"]["history"]
    assert report["validate"]["loss"] == pytest.approx(history[-1]["val/loss"], rel=1e-4)


def config(checkpoint: str | None = None, output: str | None = None, ckpt_path: str | None = None) -> Namespace:
    model = Namespace(checkpoint=checkpoint, backbone="timm:deit", head="isqrt")
    return Namespace(model=model, output=output, ckpt_path=ckpt_path)


@pytest.mark.parametrize(
    ("command", "values", "expected"),
    [
        ("fit", {}, "runs/timm-deit_isqrt"),
        ("fit", {"checkpoint": "hf-hub:owner/model"}, "runs/model"),
        ("test", {"checkpoint": "resnet18_isqrt.digits"}, "runs/resnet18_isqrt.digits-test"),
        ("fit", {"ckpt_path": "a/run/checkpoints/last.ckpt"}, "a/run"),
        ("test", {"ckpt_path": "a/run/checkpoints/last.ckpt"}, "runs/run-test"),
        ("predict", {"checkpoint": "a/run/checkpoints/last.ckpt"}, "runs/run-predict"),
        ("fit", {"checkpoint": "a/run/checkpoints/last.ckpt"}, "runs/run"),
        ("test", {"checkpoint": "a/run/"}, "runs/run-test"),
        ("test", {"output": "mine"}, "mine"),
    ],
)
def test_a_run_gets_a_folder_by_its_model_or_checkpoint(
    command: str, values: dict, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert output_folder(config(**values), command) == Path(expected)
    if expected.startswith("runs"):
        Path(expected).mkdir(parents=True)
        assert output_folder(config(**values), command) == Path(f"{expected}-2")


def test_only_a_resumed_training_writes_into_the_folder_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ZooError, match="holds a run already"):
        output_folder(config(output=str(tmp_path)), "fit")
    assert output_folder(config(output=str(tmp_path), ckpt_path="x.ckpt"), "fit") == tmp_path
    assert output_folder(config(output=str(tmp_path)), "test") == tmp_path
    (tmp_path / "metrics.json").write_text('{"fit": {}, "test": {}}')
    with pytest.raises(ZooError, match="holds a training, whose results stay .* --overwrite to replace them"):
        output_folder(config(output=str(tmp_path)), "test")
    assert output_folder(Namespace(**vars(config(output=str(tmp_path))), overwrite=True), "test") == tmp_path
    monkeypatch.setenv(OUTPUT, "shared")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert output_folder(config(), "fit") == Path("shared")


def test_a_table_is_no_folder_for_results() -> None:
    with pytest.raises(ZooError, match="output must be a folder, got 'out.csv'"):
        output_folder(config(output="out.csv"), "predict")


def test_the_log_of_an_interrupted_run_is_kept(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "metrics.csv").write_text(text)
        set_former_log_aside(tmp_path)
    assert not (tmp_path / "metrics.csv").exists()
    assert [(tmp_path / f"metrics-{i}.csv").read_text() for i in (1, 2)] == ["first", "second"]


def test_predictions_name_the_class_and_the_truth(tmp_path: Path) -> None:
    model = SimpleNamespace(class_names=["n1", "n2"], class_descriptions=["tench", "goldfish"])
    data = SimpleNamespace(samples=lambda split: {"test": [("a.png", 1), ("b.png", 1)]}[split])
    write_predictions([torch.tensor([[0.75, 0.25]]), torch.tensor([[0.125, 0.875]])], model, data, tmp_path / "new")
    rows = list(csv.DictReader((tmp_path / "new/predictions.csv").open()))
    assert [list(row.values()) for row in rows] == [
        ["a.png", "n1", "tench", "0.7500", "n2"],
        ["b.png", "n2", "goldfish", "0.8750", "n2"],
    ]


def test_predictions_of_other_data_in_several_processes_are_refused(
    cli: Cli, small_fit: list[str], run_folder: Path
) -> None:
    from gcpzoo.cli.zoo_cli import ZooCLI

    two = SimpleNamespace(trainer=SimpleNamespace(world_size=2), datamodule=None)
    with pytest.raises(ZooError, match="predict on other data modules needs one process, got 2"):
        ZooCLI.predict(two)  # type: ignore[arg-type]


def test_two_commands_never_write_into_one_folder_and_a_killed_one_holds_nothing(
    cli: Cli, small_fit: list[str], tmp_path: Path
) -> None:
    holder = "import fcntl, time; f = open('run/.lock', 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); print(); time.sleep(60)"
    for resume in ([], ["--resume"]):
        (tmp_path / "run").mkdir(exist_ok=True)
        with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE) as other:
            assert other.stdout
            other.stdout.readline()
            code, _, err = cli(*small_fit, "--output", "run", *resume)
            other.kill()
        assert code == 2
        assert "another run writes into 'run': wait for it" in err
        assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock"}
    assert cli(*small_fit, "--output", "run", "--resume")[0] == 0
