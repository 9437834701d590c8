"""``gcpzoo fit --generations``: who learns from whom, how a stopped command goes on, and what the ensemble answers."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from run_files import Moments, assert_same_results, differences, read_checkpoint
from torch import Tensor

import gcpzoo
from gcpzoo.analysis import fit_temperature
from gcpzoo.data import Digits
from gcpzoo.errors import ZooError
from gcpzoo.training.generations import check_teachers, evaluate_generations, figures

Cli = Callable[..., tuple[int, str, str]]
DIGITS = [
    "fit", "--data", "Digits", "--data.val_fraction", "0.1", "--data.batch_size", "64", "--data.image_size", "16",
    "--model.backbone", "resnet18", "--model.until", "layer1", "--model.dim", "8", "--model.optimizer.lr", "0.05",
    "--model.optimizer.classifier_lr_factor", "5", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "6",
    "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
]  # fmt: skip
THREE = ["--generations", "3", "--model.distillation.temperature", "2", "--model.distillation.weight", "0.6"]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("generations")}


@pytest.fixture
def born(finished: dict[str, Path], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of three generations, by a config with their number; made once."""
    if "born" not in finished:
        monkeypatch.chdir(finished["folder"])
        config = {"generations": 3, "model": {"distillation": {"temperature": 2, "weight": 0.6}}}
        Path("distill.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        code, _, err = cli(*DIGITS, "--config", "distill.yaml", "--output", "born")
        assert code == 0, err
        finished["born"] = finished["folder"] / "born"
        monkeypatch.chdir(tmp_path)
    return finished["born"]


def log_probabilities(run: Path, split: str) -> tuple[Tensor, Tensor]:
    """What a run's network says, computed without a trainer."""
    data = Digits(image_size=16, val_fraction=0.1)
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    network = gcpzoo.load(run)
    with torch.no_grad():
        answers = [(network(data.preprocessing.normalize(x)).log_softmax(1), y) for x, y in loader]
    return torch.cat([a for a, _ in answers]), torch.cat([y for _, y in answers])


def test_each_generation_learns_from_the_one_before_from_other_random_weights(born: Path) -> None:
    reports = [read(born / f"generation-{i}" / "metrics.json") for i in (1, 2, 3)]
    assert [report["seed"] for report in reports] == [0, 1, 2]
    assert "teacher" not in reports[0]
    for i in (1, 2):
        teacher = {k: v for k, v in reports[i]["teacher"].items() if k != "sha256"}
        assert teacher == {"teacher": f"born/generation-{i}", "temperature": 2, "weight": 0.6, "resize": False}
        state = read_checkpoint(born / f"generation-{i + 1}")["callbacks"]["Distillation"]
        assert state == {"sha256": reports[i]["teacher"]["sha256"]}
    assert reports[1]["teacher"]["sha256"] != reports[2]["teacher"]["sha256"]


def test_the_ensemble_answers_with_the_mean_of_the_probabilities(born: Path) -> None:
    members = [log_probabilities(born / f"generation-{i}", "test") for i in (1, 2, 3)]
    mean, labels = torch.stack([answers.exp() for answers, _ in members]).mean(0), members[0][1]
    with (born / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["class"]) for row in rows] == mean.argmax(1).tolist()
    assert [float(row["probability"]) for row in rows] == pytest.approx(mean.max(1).values.tolist(), abs=1e-4)
    *each, ensemble = read(born / "generations.json")["evaluations"]
    assert ensemble["name"] == "ensemble"
    assert ensemble["test"] == pytest.approx(figures(mean.log(), labels), abs=2e-6)
    for row, (answers, _) in zip(each, members, strict=True):
        report = read(born / row["name"] / "metrics.json")["test"]
        assert row["test"] == pytest.approx({key: report[key] for key in row["test"]}, abs=2e-6)
        assert row["test"] == pytest.approx(figures(answers, labels), abs=2e-6)


def test_the_temperatures_are_fitted_on_the_validation_images_alone(born: Path) -> None:
    runs = [born / f"generation-{i}" for i in (1, 2, 3)]
    known, tested = ([log_probabilities(run, split) for run in runs] for split in ("val", "test"))
    for answers in (known, tested):
        mean = torch.stack([a.exp() for a, _ in answers]).mean(0).log()
        answers.append((mean, answers[0][1]))
    for row, (val, val_labels), (test, labels) in zip(
        read(born / "generations.json")["evaluations"], known, tested, strict=True
    ):
        temperature = fit_temperature(val, val_labels)
        assert row["temperature"] == pytest.approx(temperature, rel=1e-3)
        assert abs(fit_temperature(test, labels) / temperature - 1) > 1e-2
        assert row["test_at_temperature"] == pytest.approx(figures(test / temperature, labels), abs=1e-4)
        assert row["test_at_temperature"]["top1"] == row["test"]["top1"]


def test_generations_that_were_stopped_go_on_exactly(
    born: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the second epoch of the second generation."""

    def stop() -> None:
        raise KeyboardInterrupt

    moments = Moments(monkeypatch)
    moments.acts["test"] = lambda: moments.acts.update({(1, 3): stop})
    arguments = [*DIGITS, *THREE, "--checkpoint.every_n_train_steps", "2", "--output", "born"]
    code, _, err = cli(*arguments)
    assert code == 130
    assert "the same command with --resume --output born goes on" in err
    assert not (tmp_path / "born/generation-3").exists()
    code, out, err = cli(*arguments, "--resume")
    assert code == 0, err
    assert "the run in born/generation-1 has finished: nothing to do" in out
    for i in (1, 2, 3):
        assert_same_results(born / f"generation-{i}", tmp_path / f"born/generation-{i}")
    assert list(differences(read(born / "generations.json"), read(tmp_path / "born/generations.json"))) == []


def test_a_further_generation_joins_finished_ones(born: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(born, tmp_path / "born")
    code, out, err = cli(*DIGITS, *THREE, "--generations", 4, "--output", "born", "--resume")
    assert code == 0, err
    assert out.count("nothing to do") == 3
    names = [row["name"] for row in read(tmp_path / "born/generations.json")["evaluations"]]
    assert names == ["generation-1", "generation-2", "generation-3", "generation-4", "ensemble"]


def test_a_finished_generation_that_another_network_taught_is_not_evaluated(born: Path, tmp_path: Path) -> None:
    shutil.copytree(born, tmp_path / "born")
    shutil.copytree(born / "generation-2", tmp_path / "born/generation-1", dirs_exist_ok=True)
    runs = [tmp_path / f"born/generation-{i}" for i in (1, 2, 3)]
    with pytest.raises(ZooError, match=r"generation-2 did not learn from \S+-1 as it is now:.*bring its own"):
        evaluate_generations(runs, Digits(image_size=16, val_fraction=0.1))
    (runs[1] / "metrics.json").unlink()
    with pytest.raises(ZooError, match=r"generation-2/metrics\.json names no teacher"):
        check_teachers(runs)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "there are none: set data.val_fraction"),
        ({"val_on_test": True}, "validation images that are not the test images"),
    ],
)
def test_no_temperature_is_fitted_on_test_images(options: dict[str, Any], reason: str, born: Path) -> None:
    runs = [born / "generation-1", born / "generation-2"]
    report, _ = evaluate_generations(runs, Digits(image_size=16, batch_size=64, **options), accelerator="cpu")
    assert len(report["evaluations"]) == 3
    for row in report["evaluations"]:
        assert reason in row["no_temperature"]
        assert "temperature" not in row


def test_a_teacher_of_ones_own_teaches_the_first_generation(cli: Cli, tmp_path: Path) -> None:
    quick = ["--trainer.limit_train_batches", "1", "--trainer.max_epochs", "1", "--evaluate", "false"]
    teacher = ["--model.distillation.teacher", "resnet18_isqrt.digits", "--data.image_size", "32"]
    code, _, err = cli(*DIGITS, *quick, *teacher, "--generations", 2, "--output", "o")
    assert code == 0, err
    teachers = [read(tmp_path / f"o/generation-{i}/metrics.json")["teacher"]["teacher"] for i in (1, 2)]
    assert teachers == ["resnet18_isqrt.digits", "o/generation-1"]
    assert not (tmp_path / "o/generations.json").exists()  # it would be an evaluation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--generations", "0", "--output", "o"], "generations must be at least 1, got 0"),
        (["--generations", "2", "--resume"], "give --output DIR"),
        (["--generations", "2", "--trainer.enable_checkpointing", "false"], "generations learn from checkpoints"),
        (["--generations", "2", "--ckpt_path", "last.ckpt"], "--ckpt_path belongs to one training"),
        (["--model.distillation.weight", "0.5"], "distillation.weight needs a teacher"),
    ],
)
def test_options_that_do_not_go_with_generations_are_refused(
    options: list[str], message: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "last.ckpt").touch()
    environment = dict(os.environ)
    code, _, err = cli(*DIGITS, *options)
    assert code == 2
    assert message in err
    assert not list(tmp_path.glob("*/"))
    left = [key for key in os.environ.keys() - environment.keys() if key.startswith(("GCPZOO_OUTPUT", "LOCAL_RANK"))]
    assert not left  # a first command of a process sets others, for its threads


def test_a_folder_holds_one_training_or_generations_never_both(born: Path, cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli(*DIGITS, "--output", born, "--resume")
    assert (code, "holds generations: go on with --generations N" in err) == (2, True)
    code, _, err = cli(*DIGITS, *THREE, "--output", born / "generation-1", "--resume")
    assert (code, "holds a single training: give another --output" in err) == (2, True)
    assert not (born / "generation-1" / "generation-1").exists()
    predictions = (born / "predictions.csv").read_bytes()
    code, _, err = cli("predict", "--model", born / "generation-1", "--data", "Digits", "--output", born)
    assert (code, "holds a training, whose results stay as they are" in err) == (2, True)
    assert (born / "predictions.csv").read_bytes() == predictions


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--model.distillation.weight", "1.5"), "weight must be between 0 and 1, got 1.5"),
        (("--trainer.max_epochs", "3"), "trainer.max_epochs must stay 2"),
    ],
)
def test_what_cannot_go_on_is_refused_before_the_first_generation_is_touched(
    option: tuple[str, str], message: str, born: Path, cli: Cli
) -> None:
    before = (born / "generation-1" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    code, _, err = cli(*DIGITS, *THREE, *option, "--output", born, "--resume")
    assert code == 2
    assert message in err
    assert (born / "generation-1" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before
