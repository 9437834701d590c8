"""Every option reaches what it is meant for: optimizer, schedule, loss, network."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch

import gcpzoo
from gcpzoo.data import ImageFolder
from gcpzoo.errors import ZooError
from gcpzoo.training import ClassificationTask, OptimizerConfig, ScheduleConfig
from gcpzoo.training.upgrade import upgrade_hyper_parameters

FORMAT1 = Path(__file__).parents[1] / "files" / "format1" / "last.ckpt"
NETWORK = {"num_classes": 3, "backbone": "resnet18", "until": "layer1", "dim": 8}


def test_one_fit_hands_every_option_on(cli: Callable, small_fit: list[str], tmp_path: Path) -> None:
    """The groups of the optimizer and the learning rates recorded in every step say what was handed on."""
    code, _, err = cli(
        *small_fit[:-6], "--trainer.accelerator", "cpu", "--trainer.max_epochs", 4, "--trainer.log_every_n_steps", 1,
        "--model.optimizer.lr", 0.1, "--model.optimizer.weight_decay", 0.01, "--model.optimizer.args.nesterov", "true",
        "--model.optimizer.classifier_lr_factor", 5, "--model.optimizer.head_lr_factor", 3,
        "--model.optimizer.layer_decay", 0.5, "--model.optimizer.decay_norm_and_bias", "false",
        "--model.schedule.name", "step", "--model.schedule.milestones", "[2]", "--model.schedule.gamma", 0.2,
        "--model.schedule.warmup_epochs", 1, "--model.schedule.interval", "step", "--output", "run",
    )  # fmt: skip
    assert code == 0, err
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    groups = state["optimizer_states"][0]["param_groups"]
    assert {(g["momentum"], g["nesterov"]) for g in groups} == {(0.9, True)}
    rates = {(round(g["initial_lr"], 6), g["weight_decay"]) for g in groups}
    assert {lr for lr, _ in rates} == {0.0125, 0.025, 0.05, 0.3, 0.5}  # stages conv1, bn1, layer1; head; classifier
    assert {decay for _, decay in rates} == {0.0, 0.01}
    rows = list(csv.DictReader((tmp_path / "run/metrics.csv").open()))
    column = next(c for c in rows[0] if c.startswith("lr-SGD") and any(r[c] and float(r[c]) == 0.5 for r in rows))
    recorded = {int(r["step"]): float(r[column]) for r in rows if r[column]}
    steps = 3  # 18 images in batches of 6
    expected = [0.5 * (1 + 3 * k / steps) / 4 for k in range(steps)]  # from 1/4 of the rate to the whole
    expected += [0.5] * steps + [0.1] * 2 * steps  # a milestone counts from the start
    assert [recorded[k] for k in sorted(recorded)] == pytest.approx(expected, rel=1e-6)


def test_weight_decay_spares_norms_and_biases_only_where_told() -> None:
    model = gcpzoo.create_model("resnet18", "gap", 3, until="layer1")
    for spare, expected in ((False, {0.0, 0.1}), (True, {0.1})):
        groups = OptimizerConfig(weight_decay=0.1, decay_norm_and_bias=spare).create(model).param_groups
        assert {g["weight_decay"] for g in groups} == expected


def test_label_smoothing_reaches_the_loss() -> None:
    task = ClassificationTask(**NETWORK, label_smoothing=0.25)
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    smooth = torch.tensor([[0.75 + 0.25 / 3, 0.25 / 3, 0.25 / 3]])
    expected = -(smooth * logits.log_softmax(1)).sum()
    assert float(task.loss(logits, labels)) == pytest.approx(float(expected), rel=1e-6)


def test_momentum_is_the_papers_unless_told_otherwise() -> None:
    model = gcpzoo.create_model("resnet18", "gap", 3, until="layer1")
    assert OptimizerConfig().create(model).param_groups[0]["momentum"] == 0.9
    assert OptimizerConfig(args={"momentum": 0.5}).create(model).param_groups[0]["momentum"] == 0.5


def test_the_fused_form_is_taken_but_under_float16() -> None:
    model = gcpzoo.create_model("resnet18", "gap", 3, until="layer1")
    assert OptimizerConfig().create(model).param_groups[0]["fused"] is True
    assert not OptimizerConfig().create(model, fused=False).param_groups[0]["fused"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: OptimizerConfig(lr=-1), "lr must be between 0 and 1e\\+06, got -1"),
        (lambda: OptimizerConfig(lr=float("nan")), "lr must be between"),
        (lambda: OptimizerConfig(layer_decay=1.5), "layer_decay must be between 0 and 1, got 1.5"),
        (lambda: ScheduleConfig(milestones=[0]), "milestones must be epochs from 1 on, got \\[0\\]"),
        (lambda: ScheduleConfig(interval="batch"), "unknown interval 'batch'; available: epoch, step"),
        (lambda: ScheduleConfig(final_factor=0), "final_factor must be between 1e-12 and 1, got 0"),
        (lambda: ClassificationTask(**NETWORK, label_smoothing=2), "label_smoothing must be between 0 and 1, got 2"),
        (lambda: ClassificationTask(**NETWORK, optimizer="SGD"), "optimizer must be of type OptimizerConfig"),
    ],
)
def test_a_value_that_cannot_work_is_refused(config: Callable, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        config()


@pytest.mark.parametrize(
    "sources",
    [
        {"checkpoint": "resnet18_isqrt.digits", "backbone_weights": "trunk.pth"},
        {"checkpoint": "resnet18_isqrt.digits", "pretrained_backbone": True},
        {"backbone_weights": "trunk.pth", "pretrained_backbone": True},
    ],
)
def test_weights_come_from_one_source(sources: dict) -> None:
    with pytest.raises(ZooError, match="weights must come from one source, got .* and"):
        ClassificationTask(num_classes=10, **sources)


def test_a_frozen_module_is_named_by_any_path(tmp_path: Path) -> None:
    for backbone, paths, frozen in (
        ("resnet18", ["layer1.0.conv1", "bn1"], ("layer1.0.conv1", "bn1.")),
        ("timm:resnet18", ["layer1", "conv1"], ("net.layer1.", "net.conv1.")),
    ):
        task = ClassificationTask(num_classes=3, backbone=backbone, head="gap", frozen=paths)
        for name, parameter in task.model.backbone.named_parameters():
            assert parameter.requires_grad != name.startswith(frozen), name


def test_checkpoints_keep_plain_values(tmp_path: Path) -> None:
    task = ClassificationTask(**NETWORK, optimizer=OptimizerConfig("AdamW", lr=2e-4), schedule=ScheduleConfig("step"))
    assert task.hparams["optimizer"] == OptimizerConfig("AdamW", lr=2e-4).to_dict()
    assert task.hparams["schedule"] == ScheduleConfig("step").to_dict()


def test_a_checkpoint_of_format_1_loads_in_every_way(cli: Callable, folder: Path) -> None:
    model = gcpzoo.load(FORMAT1)
    assert (model.config["backbone"], model.class_names) == ("squeezenet1_1", ["east", "north", "south"])
    task = ClassificationTask.load_from_checkpoint(FORMAT1)
    assert task.optimizer_config == OptimizerConfig("SGD", lr=0.05, classifier_lr_factor=5.0)
    assert task.schedule_config == ScheduleConfig("step", milestones=[1])
    assert all(torch.equal(a, b) for a, b in zip(task.model.state_dict().values(), model.state_dict().values()))
    data = ["--data", "ImageFolder", "--data.root", folder, "--data.workers", 0, "--data.batch_size", 6]
    code, out, err = cli("test", *data, "--ckpt_path", FORMAT1, "--output", "tested")
    assert code == 0, err
    assert "top-1 66.67 %" in out  # as the run recorded it
    data += ["--data.image_size", 32]
    code, _, err = cli("fit", *data, "--ckpt_path", FORMAT1, "--trainer.max_epochs", 3, "--output", "further")
    assert code == 0, err
    assert gcpzoo.load("further/checkpoints/last.ckpt").config == model.config


def test_hyper_parameters_of_today_pass_through_the_upgrade() -> None:
    stored = dict(ClassificationTask(**NETWORK).hparams)
    assert upgrade_hyper_parameters(stored) == stored


def test_metrics_count_each_class_once_on_unbalanced_data(tmp_path: Path) -> None:
    """Recall, not precision; the mean over classes, not over images; the right one within five of six classes."""
    task = ClassificationTask(num_classes=6, backbone="resnet18", until="layer1", dim=8)
    logits = -0.01 * torch.arange(6.0).repeat(7, 1)
    predicted, true = [0, 0, 0, 1, 1, 2, 5], [0, 0, 0, 0, 1, 1, 2]
    for i, k in enumerate(predicted):
        logits[i, k] = 5.0
    logits[5] = torch.tensor([4.0, 0.5, 5.0, 3.0, 2.0, -1.0])  # the true class 1 is the fifth of six
    logits[6] = torch.tensor([3.0, 2.0, -9.0, 1.0, 0.5, 4.0])  # the true class 2 is the last of six
    task.test_metrics.update(logits, torch.tensor(true))
    values = task.test_metrics.compute()
    assert float(values["test/top1"]) == pytest.approx(4 / 7)
    assert float(values["test/top5"]) == pytest.approx(6 / 7)
    assert float(values["test/per_class"]) == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert values["test/confusion"][0].tolist() == [3, 1, 0, 0, 0, 0]


def test_a_subclass_changes_the_loss_in_one_place(folder: Path, tmp_path: Path) -> None:
    class Focal(ClassificationTask):
        def configure_loss(self) -> torch.nn.Module:
            return torch.nn.MultiMarginLoss()

    assert isinstance(Focal(**NETWORK).loss, torch.nn.MultiMarginLoss)


def test_the_schedule_by_step_covers_the_whole_training(folder: Path, tmp_path: Path) -> None:
    task = ClassificationTask(**NETWORK, schedule=ScheduleConfig("cosine", interval="step"))
    trainer = L.Trainer(
        max_epochs=2, logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(task, ImageFolder(str(folder), image_size=32, batch_size=6, workers=0))
    assert trainer.global_step == 6
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("bf16-mixed", True), ("16-mixed", None)])
def test_gradients_are_clipped_before_a_fused_step_would_unscale_them(precision: str, fused: bool | None) -> None:
    task = ClassificationTask(**NETWORK)
    loop = SimpleNamespace(setup_data=lambda: None)
    length = {"max_epochs": 1, "max_steps": -1, "estimated_stepping_batches": 1, "num_training_batches": 1}
    task.trainer = SimpleNamespace(precision=precision, accumulate_grad_batches=1, fit_loop=loop, **length)  # type: ignore[assignment]
    assert task.configure_optimizers()["optimizer"].param_groups[0]["fused"] is fused


def test_the_head_is_computed_again_only_where_told() -> None:
    assert ClassificationTask(**NETWORK, recompute_head=True).model.head.recompute is True
    assert ClassificationTask(**NETWORK).model.head.recompute is False
    ClassificationTask(**{**NETWORK, "head": "gap"}, recompute_head=True)  # which keeps next to nothing
