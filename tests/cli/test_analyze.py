"""``gcpzoo analyze`` on the command line: tables, figures, the page, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gcpzoo.hub.run_checkpoint import describe_run
from gcpzoo.models import Preprocessing, create_model

Cli = Callable[..., tuple[int, str, str]]
ANALYZE = ("analyze", "resnet18_isqrt.digits", "--data", "Digits")


def write_run(
    folder: Path, head: str = "isqrt", image_size: int = 16, history: list | None = None, **data: object
) -> Path:
    """A run's folder on three classes, as far as an analysis reads it."""
    torch.manual_seed(len(head))
    model = create_model("resnet18", head, 3, dim=4, until="layer1")
    model.class_names = ["east", "north", "south"]
    model.preprocessing = Preprocessing(resize=(image_size, image_size), crop=None)
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    (folder / "checkpoints").mkdir(parents=True)
    content = {"state_dict": state, "gcpzoo": describe_run(model, None), "epoch": 1, "global_step": 6}
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    report = {"model": model.config, "seed": 0, "hardware": "a machine", "data": {"data": "ImageFolder", **data}}
    (folder / "metrics.json").write_text(json.dumps({**report, "fit": {"epochs": 2, "history": history or []}}))
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_analyzed_beside_its_control_on_the_images_that_it_held_out(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    history = [{"epoch": e, "spectrum/effective_rank": 2.0, "spectrum/condition_nonzero": 9.0 - e} for e in (0, 1)]
    write_run(tmp_path / "run", history=history)
    write_run(tmp_path / "control", "mpn_cov")
    options = ("--only", "conditioning,calibration", "--control", "control", "--batch-size", "4", "--output", "out")
    code, out, err = cli("analyze", "run", "--data", folder, *options)
    assert code == 0, err
    assert out.splitlines() == ["conditioning …", "calibration …", "written: out, to be read from index.html"]
    rows = read(tmp_path / "out" / "conditioning.csv")
    assert {(r["model"], r["source"]) for r in rows} == {
        ("run", "final"), ("run", "logged by the run"), ("control", "final")
    }  # fmt: skip
    assert [r["condition_nonzero"] for r in rows[-2:]] == ["9", "8"]
    whole = [r for r in read(tmp_path / "out" / "calibration.csv") if r["bin"] == "all"]
    assert {(r["model"], r["images"]) for r in whole} == {("run", "9"), ("control", "9")}
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Guo et al., ICML 2017" in page
    assert page.count("<svg") == 2
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["models"].keys() == {"run", "control"}
    assert about["models"]["run"]["config"]["head"] == "isqrt"
    assert about["models"]["run"]["sha256"] != about["models"]["control"]["sha256"]
    command = " ".join(about["command"])
    assert command.startswith(f"gcpzoo analyze run --data {folder} --only conditioning,calibration --control control")
    assert " --batch-size 4 --seed 0 " in command
    assert "--extra-corruptions" not in command
    assert "torch" in about["hardware"]
    assert about["data"]["images"] == {"train": 18, "val": 6, "test": 9}


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> str:
    """A measurement that never applies, by its name."""
    from gcpzoo.analysis.measurements import analyze as kit
    from gcpzoo.analysis.measurements.subject import Measurement

    none = Measurement("none", lambda subject: [], lambda rows: None, "nothing")
    monkeypatch.setitem(kit.MEASUREMENTS, "none", none)
    return "none"


def test_class_folders_are_split_as_the_run_split_them(cli: Cli, folder: Path, nothing: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", seed=5, val_fraction=0.25, test_fraction=0.5)
    options = ("--only", nothing, "--output", "out")
    code, _, err = cli("analyze", "run", "--data", folder / "train", *options)
    assert code == 0, err
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert (about["data"]["seed"], about["data"]["images"]) == (5, {"train": 6, "test": 9, "val": 3})
    code, _, err = cli("analyze", "run", "--data", folder / "train", *options, "--val-fraction", 0)
    assert json.loads((tmp_path / "out" / "about.json").read_text())["data"]["images"] == {"train": 9, "test": 9}


def test_a_fold_its_best_epoch_and_a_file_of_it_are_measured_on_the_images_that_the_run_tested(
    cli: Cli, folder: Path, nothing: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "fold-2", seed=5, val_fraction=0.5, test_fraction=1 / 6, folds=6, fold=1)

    def check(model: Path) -> None:
        code, _, err = cli("analyze", model, "--data", folder / "train", "--only", nothing)
        assert code == 0, err
        data = json.loads((tmp_path / "analysis" / "about.json").read_text())["data"]
        assert (data["seed"], data["folds"], data["fold"], data["images"]["test"]) == (5, 6, 1, 3)

    check(run)
    last = run / "checkpoints" / "last.ckpt"
    check(last)
    last.with_name("best.ckpt").write_bytes(last.read_bytes())
    report = json.loads((run / "metrics.json").read_text())
    kept = {"checkpoint": {"kept": "best", "epoch": 1, "metric": "val/top1", "value": 0.5}}
    (run / "metrics.json").write_text(json.dumps(report | kept))
    check(run)
    code, _, err = cli("analyze", run, "--data", folder / "train", "--output", folder / "train" / "analysis")
    assert code == 2
    assert "output must lie outside of the images" in err


def test_a_control_that_held_out_other_images_is_refused(cli: Cli, folder: Path, nothing: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", seed=5, val_fraction=0.25)
    write_run(tmp_path / "control", "gap", seed=6, val_fraction=0.25)
    write_run(tmp_path / "alike", "gap", seed=5, val_fraction=0.25)
    arguments = ("analyze", "run", "--data", folder / "train", "--only", nothing, "--control")
    code, _, err = cli(*arguments, "control")
    assert code == 2
    assert "control must have held out the images of run to be its control: its seed is 6, not 5" in err
    assert cli(*arguments, "alike")[0] == 0


def test_the_report_of_another_model_is_refused(cli: Cli, folder: Path, tmp_path: Path) -> None:
    report = write_run(tmp_path / "other", "gap") / "metrics.json"
    write_run(tmp_path / "run")
    report.replace(tmp_path / "run" / "metrics.json")
    code, _, err = cli("analyze", "run", "--data", folder)
    assert code == 2
    assert "metrics.json is of another model: its head is 'gap'" in err


def test_what_does_not_apply_is_said(cli: Cli, nothing: str, tmp_path: Path) -> None:
    code, out, _ = cli(*ANALYZE, "--only", nothing)
    assert code == 0
    assert "none does not apply to this network or these data" in out
    assert (tmp_path / "analysis" / "index.html").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--only", "spektrum"), "unknown measurement 'spektrum': did you mean spectrum?"),
        (("--only", ","), "--only must name measurements"),
        (("--images", 0), "--images must be at least 1, got 0"),
        (("--seed", -1), "--seed must be at least 0, got -1"),
        (("--data", "Digit"), "unknown folder or data set 'Digit': did you mean Digits?"),
        (("--data", "CUB200"), "--root must name the folder of CUB200"),
        (("--root", "birds"), "--root is for a data set that --data names"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, tmp_path: Path, options: tuple, message: str) -> None:
    code, _, err = cli(*ANALYZE, *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_control_of_another_preprocessing_or_of_other_classes_is_refused(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    write_run(tmp_path / "run")
    write_run(tmp_path / "large", image_size=24)
    code, _, err = cli("analyze", "run", "--data", folder, "--control", "large")
    assert code == 2
    assert "large must have the preprocessing of run" in err
    code, _, err = cli("analyze", "run", "--data", "Digits")
    assert code == 2
    assert "run knows 3 classes, the data have 10" in err
