"""What would give a wrong result in silence is refused: other runs' folders, callbacks that never act, odd configs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest

import gcpzoo
from gcpzoo.data import ImageFolder
from gcpzoo.errors import ZooError
from gcpzoo.serve import Predictor
from gcpzoo.training import ClassificationTask, HybridRoot, OptimizerConfig, ScheduleConfig, StagedUnfreezing

NETWORK = {"num_classes": 3, "backbone": "resnet18", "until": "layer1", "dim": 8}


def trainer(tmp_path: Path, **kwargs: object) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=tmp_path, enable_checkpointing=False, **{**quiet, **kwargs})  # type: ignore[arg-type]


@pytest.fixture
def data(folder: Path) -> ImageFolder:
    return ImageFolder(str(folder), image_size=32, batch_size=6, workers=0)


def test_an_evaluation_never_goes_into_a_trainings_folder(cli: Callable, small_fit: list[str], tmp_path: Path) -> None:
    assert cli(*small_fit, "--output", "run", "--trainer.limit_train_batches", 1)[0] == 0
    before = {p.name: p.read_bytes() for p in Path("run").iterdir() if p.suffix in (".json", ".yaml")}
    code, _, err = cli("test", "--model", "resnet18_isqrt.digits", "--data", "Digits", "--output", "run")
    assert code == 2
    assert "'run' holds a training, whose results stay as they are: give another --output" in err
    assert {name: (Path("run") / name).read_bytes() for name in before} == before


def test_a_run_never_writes_among_the_images_it_reads(cli: Callable, small_fit: list[str], folder: Path) -> None:
    arguments = [folder / "train" if argument == str(folder) else argument for argument in small_fit]
    code, _, err = cli(*arguments, "--output", folder / "train/runs")
    assert (code, "output must lie outside of the images" in err) == (2, True)
    assert not (folder / "train/runs").exists()


def test_the_report_of_another_model_is_not_added_to(cli: Callable) -> None:
    Path("other").mkdir()
    report = {"model": {"backbone": "vgg16"}, "test": {"top1": 0.99}}
    Path("other/metrics.json").write_text(json.dumps(report))
    arguments = ["test", "--model", "resnet18_isqrt.digits", "--data", "Digits", "--output", "other"]
    assert "is the report of another model" in cli(*arguments)[2]
    assert json.loads(Path("other/metrics.json").read_text()) == report
    Path("other/metrics.json").write_text("{")
    code, _, err = cli(*arguments)
    assert code == 2
    assert "metrics.json is not JSON" in err


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("fit", ["--model.distillation", "5"],
         "model.distillation must be a mapping of resize, teacher, temperature, weight, or a YAML file of one, got 5"),
        ("test", ["--generations", "2"], "--generations belongs to 'gcpzoo fit', got it with test: leave it out"),
        ("fit", ["--model.distillation.teacher", "resnet18_isqrt.digits"], "the teacher resnet18_isqrt.digits sees"),
        ("validate", ["--model.checkpoint", "resnet18_isqrt.digits"], "no val split"),
    ],
)  # fmt: skip
def test_what_is_refused_prints_one_line_and_leaves_nothing(
    command: str, options: list[str], message: str, cli: Callable, tmp_path: Path
) -> None:
    network = ["--model.backbone", "resnet18", "--model.until", "layer1"] if command == "fit" else []
    code, out, err = cli(command, "--data", "Digits", "--data.image_size", 16, *network, *options)
    assert (code, out) == (2, "")
    assert err.startswith("gcpzoo: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (StagedUnfreezing(unfreeze_at=2), "unfreeze_at must be less than the 2 epochs, got 2"),
        (HybridRoot("svd_pade", epoch=2), "epoch must be less than the 2 epochs, got 2"),
    ],
)
def test_a_callback_that_never_acts_is_refused(
    callback: L.Callback, message: str, data: ImageFolder, tmp_path: Path
) -> None:
    with pytest.raises(ZooError, match=message):
        trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(ClassificationTask(**NETWORK), data)


def test_the_schedule_step_needs_milestones(data: ImageFolder, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="schedule step must have milestones, got none"):
        trainer(tmp_path, max_epochs=1).fit(ClassificationTask(**NETWORK, schedule=ScheduleConfig("step")), data)


@pytest.mark.parametrize("length", [{"max_epochs": -1, "max_steps": 6}, {"max_epochs": 1000, "max_steps": 6}])
@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_schedule_ends_where_max_steps_ends_the_training(
    length: dict, interval: str, data: ImageFolder, tmp_path: Path
) -> None:
    rates = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    task = ClassificationTask(
        **NETWORK, optimizer=OptimizerConfig(lr=1.0), schedule=ScheduleConfig("polynomial", power=1, interval=interval)
    )
    trainer(tmp_path, **length, limit_val_batches=0, callbacks=[Watch()]).fit(task, data)
    expected = [1, 1, 1, 0.5, 0.5, 0.5] if interval == "epoch" else [1 - k / 6 for k in range(6)]  # 3 steps an epoch
    assert rates == pytest.approx(expected)


def test_a_schedule_without_an_end_is_refused(data: ImageFolder, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="a schedule needs an end: set trainer.max_epochs or trainer.max_steps"):
        trainer(tmp_path, max_epochs=-1, max_time={"seconds": 5}).fit(ClassificationTask(**NETWORK), data)


def test_more_processes_than_cores_are_refused(cli: Callable, small_fit: list[str]) -> None:
    code, _, err = cli(*small_fit, "--trainer.devices", 4096)
    assert code == 2
    assert "trainer.devices must be at most" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: 3\n", "model must be a mapping of options, got 3"),
        ("trainer: []\n", "trainer must be a mapping of options, got []"),
        ("model: {optimizer: 3}\n", "model.optimizer must be a mapping of options, got 3"),
        (b"\x89PNG\r\n\xff", "must be text in UTF-8"),
    ],
)
def test_a_config_of_another_shape_is_one_line(text: str | bytes, message: str, cli: Callable) -> None:
    Path("mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, err = cli("fit", "--config", "mine.yaml")
    assert code == 2
    assert message in err


@pytest.mark.parametrize("name", ["resnet18_isqrt", "inception_v3_isqrt"])
def test_info_refuses_a_size_that_the_network_does_not_take(name: str, cli: Callable) -> None:
    assert "size must be at least 1, got 0" in cli("info", name, "--size", 0)[2]
    if name == "inception_v3_isqrt":
        code, _, err = cli("info", name, "--size", 40)
        assert code == 2
        assert "does not take images of 40 pixels" in err


def test_an_answer_that_is_not_finite_is_an_error(folder: Path) -> None:
    model = gcpzoo.create_model("resnet18", "isqrt", 3, dim=8, until="layer1").eval()
    model.classifier.bias.data.fill_(float("nan"))
    with pytest.raises(ZooError, match="values that are not finite"):
        list(Predictor(model)([folder / "test" / "north" / "0.png"]))


def test_names_are_printed_without_their_control_characters(cli: Callable, folder: Path) -> None:
    odd = Path("esc\x1b[31m.png")
    odd.write_bytes((folder / "test" / "north" / "0.png").read_bytes())
    code, out, err = cli("predict", "--model", "resnet18_isqrt.digits", odd)
    assert code == 0, err
    assert "\x1b" not in out
    assert out.startswith("esc\\x1b[31m.png")
