"""Callbacks: staged unfreezing with every schedule, the hybrid root's condition, the report's numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from gcpzoo.data import Augment, ImageFolder
from gcpzoo.errors import ZooError
from gcpzoo.heads import create_head
from gcpzoo.training import (
    ClassificationTask,
    CovarianceSpectrum,
    GradualUnfreezing,
    HybridRoot,
    OptimizerConfig,
    RunReport,
    ScheduleConfig,
    StagedUnfreezing,
)
from gcpzoo.training import run_report as report_module

NETWORK = {"num_classes": 3, "backbone": "resnet18", "until": "layer1", "dim": 8}


@pytest.fixture
def data(folder: Path) -> ImageFolder:
    return ImageFolder(str(folder), image_size=32, batch_size=6, workers=0)


def trainer(tmp_path: Path, **kwargs: object) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=tmp_path, **{"max_epochs": 1, **quiet, **kwargs})  # type: ignore[arg-type]


class Watch(L.Callback):
    """Keeps what the backbone and the rates are at the end of every epoch."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.statistics: list[torch.Tensor] = []
        self.rates: list[float] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        backbone = pl_module.model.backbone
        self.weights.append(backbone.conv1.weight.detach().clone())
        self.statistics.append(backbone.bn1.running_mean.clone())

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, k: int) -> None:
        if k == 0:
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("schedule", "before"),
    [
        (ScheduleConfig("constant", warmup_epochs=1), [0.025, 0.05, 0.05, 0.05]),
        (ScheduleConfig("step", milestones=[3], warmup_epochs=1), [0.025, 0.05, 0.05, 0.005]),
        (ScheduleConfig("constant", warmup_epochs=3), [0.0125, 0.025, 0.0375, 0.05]),
        (ScheduleConfig("polynomial", power=1), [0.05, 0.0375, 0.025, 0.0125]),
    ],
)
def test_staged_unfreezing_works_with_every_schedule(
    schedule: ScheduleConfig, before: list[float], data: ImageFolder, tmp_path: Path
) -> None:
    task, watch = ClassificationTask(**NETWORK, optimizer=OptimizerConfig(lr=0.05), schedule=schedule), Watch()
    run = trainer(tmp_path, max_epochs=4, callbacks=[StagedUnfreezing(unfreeze_at=2, lr_factor=0.1), watch])
    run.fit(task, data)
    expected = [*before[:2], *(0.1 * r for r in before[2:])]
    assert watch.rates == pytest.approx(expected, rel=1e-6)
    assert torch.equal(watch.weights[0], watch.weights[1])
    assert torch.equal(watch.statistics[0], watch.statistics[1])  # batch normalization keeps its statistics
    assert not torch.equal(watch.weights[1], watch.weights[2])
    assert not torch.equal(watch.statistics[1], watch.statistics[2])


def test_what_the_task_freezes_stays_frozen_after_the_unfreezing(data: ImageFolder, tmp_path: Path) -> None:
    task, watch = ClassificationTask(**NETWORK, frozen=["conv1", "bn1"]), Watch()
    trainer(tmp_path, max_epochs=2, callbacks=[StagedUnfreezing(unfreeze_at=1), watch]).fit(task, data)
    assert torch.equal(watch.weights[0], watch.weights[1])
    assert torch.equal(watch.statistics[0], watch.statistics[1])


def test_modules_begin_to_learn_one_after_the_other(data: ImageFolder, tmp_path: Path) -> None:
    class Learns(L.Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[bool, bool, bool]] = []

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            backbone = pl_module.model.backbone
            parts = (backbone.conv1, backbone.layer1[0].conv1, backbone.layer1[1].conv1)
            self.seen.append(tuple(part.weight.grad is not None for part in parts))

    learns, watch = Learns(), Watch()
    gradual = GradualUnfreezing({"backbone": 3, "layer1": 1, "layer1.1": 2})
    task = ClassificationTask(**NETWORK)
    trainer(tmp_path, max_epochs=4, limit_train_batches=1, callbacks=[gradual, learns, watch]).fit(task, data)
    assert learns.seen == [(False, False, False), (False, True, False), (False, True, True), (True, True, True)]
    assert torch.equal(watch.statistics[0], watch.statistics[2])
    assert not torch.equal(watch.statistics[2], watch.statistics[3])


@pytest.mark.parametrize(
    ("until", "said"),
    [({"layer9": 1}, "unknown module of resnet18 'layer9'"), ({"layer1": 2}, "less than the 2 epochs")],
)
def test_what_could_never_learn_is_refused(until: dict[str, int], said: str, data: ImageFolder, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=said):
        trainer(tmp_path, max_epochs=2, callbacks=[GradualUnfreezing(until)]).fit(ClassificationTask(**NETWORK), data)


def test_a_frozen_backbone_gathers_several_batches_for_a_step(data: ImageFolder, tmp_path: Path) -> None:
    """Three batches of 6 images; four are gathered at most, so that the first epoch has one step."""

    class Steps(L.Callback):
        def __init__(self) -> None:
            self.counts: list[int] = []

        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.counts.append(trainer.global_step)

    steps, schedule = Steps(), ScheduleConfig("constant")
    task = ClassificationTask(**NETWORK, schedule=schedule)
    callback = StagedUnfreezing(unfreeze_at=1, accumulate=4)
    trainer(tmp_path, max_epochs=2, callbacks=[callback, steps]).fit(task, data)
    assert steps.counts == [1, 4]


def test_gathered_batches_learn_as_one_large_batch(folder: Path, tmp_path: Path) -> None:
    """18 training images, in three batches of 6 or in one, without random augmentation."""
    weights = []
    for batch_size, accumulate in ((6, 3), (18, 1)):
        torch.manual_seed(0)
        task = ClassificationTask(**{**NETWORK, "dim": None}, schedule=ScheduleConfig("constant"))
        plain = ImageFolder(
            str(folder), image_size=32, batch_size=batch_size, workers=0, augment=Augment("center", flip=0)
        )
        callback = StagedUnfreezing(unfreeze_at=1, accumulate=accumulate)
        trainer(tmp_path, max_epochs=2, limit_train_batches=1.0, callbacks=[callback, Stop()]).fit(task, plain)
        weights.append(task.model.classifier.weight.detach())
    assert torch.allclose(*weights, atol=1e-6)


class Stop(L.Callback):
    """Ends a training after its first epoch."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = True


@pytest.mark.parametrize(
    ("schedule", "batches", "message"),
    [
        (ScheduleConfig("cosine", interval="step"), 1, "set schedule.interval to epoch"),
        (ScheduleConfig("constant"), 2, "trainer.accumulate_grad_batches must be 1 beside"),
    ],
)
def test_gathering_beside_what_counts_steps_is_refused(
    schedule: ScheduleConfig, batches: int, message: str, data: ImageFolder, tmp_path: Path
) -> None:
    task, callback = ClassificationTask(**NETWORK, schedule=schedule), StagedUnfreezing(unfreeze_at=1, accumulate=2)
    run = trainer(tmp_path, max_epochs=2, callbacks=[callback], accumulate_grad_batches=batches)
    with pytest.raises(ZooError, match=message):
        run.fit(task, data)


def test_many_processes_drop_the_frozen_gradients_instead(data: ImageFolder, tmp_path: Path) -> None:
    """With several processes every parameter keeps its place in the reduction, and no frozen one is stepped."""
    callback = StagedUnfreezing(unfreeze_at=1)
    task = ClassificationTask(**NETWORK)
    backbone = task.model.backbone
    for parameter in backbone.parameters():
        parameter.grad = torch.ones_like(parameter)

    class Two:
        world_size, current_epoch = 2, 0

    callback.on_train_epoch_start(Two(), task)
    assert all(p.requires_grad for p in backbone.parameters())
    assert not any(m.training for m in backbone.modules())
    callback.on_before_optimizer_step(Two(), task, None)
    assert all(p.grad is None for p in backbone.parameters())
    for parameter in backbone.parameters():
        parameter.grad = torch.ones_like(parameter)
    Two.current_epoch = 1
    callback.on_before_optimizer_step(Two(), task, None)
    assert all(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StagedUnfreezing(0), "unfreeze_at must be at least 1, got 0"),
        (lambda: StagedUnfreezing(1, lr_factor=0), "lr_factor must be positive, got 0"),
        (lambda: StagedUnfreezing(1, accumulate=0), "accumulate must be at least 1, got 0"),
        (lambda: HybridRoot(epoch=1, condition=2.0), "give epoch or condition, not both"),
    ],
)
def test_a_callback_that_cannot_work_is_refused(make: object, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        make()  # type: ignore[operator]


def test_the_hybrid_root_waits_for_the_non_zero_spectrum(data: ImageFolder, tmp_path: Path) -> None:
    """With fewer positions than channels the whole covariance never gets a finite condition number."""
    network = {"num_classes": 3, "backbone": "resnet18", "until": "layer2", "dim": 64}
    task = ClassificationTask(**network)
    callback = HybridRoot("svd_pade", condition=1e15)
    trainer(tmp_path, callbacks=[callback], limit_val_batches=0).fit(task, data)
    assert (task.model.head.root, callback.switched) == ("svd_pade", 0)


@pytest.mark.parametrize(("condition", "root"), [(1.1e10, "svd_pade"), (0.9e10, "isqrt")])
def test_the_condition_of_the_hybrid_root_is_computed_in_float64(condition: float, root: str) -> None:
    """In float32 a covariance with eigenvalues 1 and 1e-10 is singular; the features hold both."""
    a, b = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1]], dtype=torch.float64)
    x = (torch.stack([a + 1e-5 * b, a - 1e-5 * b]) / math.sqrt(2)).float().view(1, 2, 2, 2)
    task = ClassificationTask(num_classes=3, backbone="resnet18", until="layer1", dim=None)
    task.model.head = create_head("isqrt", in_features=2)
    task.model.forward_features = lambda images: x  # type: ignore[method-assign]
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    callback = HybridRoot("svd_pade", condition=condition)
    batch = (torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.long))
    callback.on_train_batch_start(SimpleNamespace(strategy=strategy, current_epoch=0), task, batch, 0)
    assert task.model.head.root == root


def test_the_whole_spectrum_is_logged_by_name(data: ImageFolder, tmp_path: Path) -> None:
    run = trainer(tmp_path, callbacks=[CovarianceSpectrum()])
    run.fit(ClassificationTask(**NETWORK), data)
    logged = {k for k in run.callback_metrics if k.startswith("spectrum/")}
    assert logged == {f"spectrum/{k}" for k in ("effective_rank", "rank", "condition", "condition_nonzero")}


def test_values_that_are_not_finite_are_null_in_the_report(data: ImageFolder, tmp_path: Path) -> None:
    class Infinite(L.Callback):
        def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            pl_module.log("spectrum/condition", math.inf, batch_size=1)

    trainer(tmp_path, callbacks=[Infinite(), RunReport()]).fit(ClassificationTask(**NETWORK), data)
    row = json.loads((tmp_path / "metrics.json").read_text())["fit"]["history"][0]
    assert row["spectrum/condition"] is None


def test_the_seconds_of_a_resumed_run_include_those_before(
    data: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(report_module, "time", clock)

    class Tick(L.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            clock.now += 10.0

    def fit(epochs: int, ckpt_path: Path | None) -> float:
        report = RunReport()
        run = trainer(tmp_path, max_epochs=epochs, limit_val_batches=0, callbacks=[Tick(), report])
        run.fit(ClassificationTask(**NETWORK), data, ckpt_path=ckpt_path, weights_only=True)
        run.save_checkpoint(tmp_path / "x.ckpt")
        return report.report["fit"]["seconds"]

    assert fit(1, None) == 30  # three batches
    assert fit(3, tmp_path / "x.ckpt") == 90


def test_validation_and_test_are_not_confused(data: ImageFolder, tmp_path: Path) -> None:
    """Metrics of both are logged in one run; the report takes each from its own prefix."""
    report, task = RunReport(), ClassificationTask(**NETWORK)
    run = trainer(tmp_path, callbacks=[report])
    run.validate(task, data, verbose=False)
    validated = {k.split("/")[1]: round(float(v), 6) for k, v in run.callback_metrics.items()}
    run.test(task, data, verbose=False)
    tested = {k.split("/")[1]: round(float(v), 6) for k, v in run.callback_metrics.items()}
    assert validated["loss"] != tested["loss"]
    for stage, expected in (("validate", validated), ("test", tested)):
        found = {k: report.report[stage][k] for k in ("loss", "top1", "top5", "per_class")}
        assert found == {k: expected[k] for k in found}


def test_an_epoch_that_is_trained_again_replaces_its_row(data: ImageFolder, tmp_path: Path) -> None:
    report = RunReport()
    rows = [{"epoch": e, "train/loss": -1.0} for e in range(3)]
    report.load_state_dict({"fit": {"epochs": 3, "history": rows, "seconds": 1.0}})
    trainer(tmp_path, max_epochs=2, callbacks=[report]).fit(ClassificationTask(**NETWORK), data)
    history = report.report["fit"]["history"]
    assert [row["epoch"] for row in history] == [0, 1]
    assert all(row["train/loss"] > 0 for row in history)


def test_the_accuracy_of_a_class_is_the_share_of_its_own_images(data: ImageFolder, tmp_path: Path) -> None:
    report, task = RunReport(), ClassificationTask(**NETWORK)
    run = trainer(tmp_path, callbacks=[report])
    with torch.no_grad():
        task.model.classifier.weight.zero_()
        task.model.classifier.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))  # whatever the image, the second class
    run.test(task, data, verbose=False)
    assert report.report["test"]["accuracy_of_class"] == {"east": 0.0, "north": 1.0, "south": 0.0}
    assert report.report["test"]["images"] == 9
    assert report.report["test"]["top1"] == pytest.approx(1 / 3, abs=1e-6)
