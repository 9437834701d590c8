"""ClassificationTask: what it learns, records and restores."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch
from image_files import draw
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader, TensorDataset

import gcpzoo
from gcpzoo.data import ImageFolder
from gcpzoo.errors import ZooError
from gcpzoo.training import (
    ClassificationTask,
    CovarianceSpectrum,
    HybridRoot,
    OptimizerConfig,
    ScheduleConfig,
    StagedUnfreezing,
)

SMALL = {"num_classes": 3, "backbone": "resnet18", "until": "layer1", "dim": 8, "optimizer": OptimizerConfig(lr=0.05)}


def trainer(tmp_path: Path, **kwargs: object) -> L.Trainer:
    quiet = {
        "max_epochs": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
    }
    return L.Trainer(default_root_dir=tmp_path, **{**quiet, **kwargs})  # type: ignore[arg-type]


@pytest.fixture
def data(folder: Path) -> ImageFolder:
    return ImageFolder(str(folder), image_size=32, batch_size=6, workers=0)


def test_two_epochs_separate_three_simple_classes(data: ImageFolder, tmp_path: Path) -> None:
    L.seed_everything(0)
    task, run = (
        ClassificationTask(**{**SMALL, "optimizer": OptimizerConfig(lr=0.05, classifier_lr_factor=5)}),
        trainer(tmp_path, max_epochs=8),
    )
    run.fit(task, data)
    values = run.test(task, data, verbose=False)[0]
    assert values["test/top1"] > 0.8  # chance is 0.33
    assert values["test/top5"] == 1.0
    assert int(task.confusion.sum()) == 9
    assert values["test/per_class"] == pytest.approx(values["test/top1"])  # equally many of each class


def test_a_checkpoint_rebuilds_the_same_network_without_the_files_it_started_from(
    data: ImageFolder, tmp_path: Path
) -> None:
    weights = tmp_path / "trunk.pth"
    torch.save(gcpzoo.create_model("resnet18", "gap", 2).backbone.state_dict(), weights)
    task = ClassificationTask(**SMALL, backbone_weights=str(weights), head_args={"iterations": 3})
    run = trainer(tmp_path, limit_train_batches=1)
    run.fit(task, data)
    run.save_checkpoint(tmp_path / "x.ckpt")
    weights.unlink()
    other = ClassificationTask.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert other.model.config == task.model.config
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other.eval()(x), task.eval()(x))
    loaded = gcpzoo.load(tmp_path / "x.ckpt")
    assert loaded.class_names == ["east", "north", "south"]
    assert loaded.preprocessing == data.preprocessing
    assert torch.equal(loaded(x), task(x))


def test_views_are_averaged(data: ImageFolder) -> None:
    task = ClassificationTask(**SMALL).eval()
    x = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.stack([task(x[:, v]) for v in range(4)]).mean(0)
        torch.testing.assert_close(task(x), expected)


def test_frozen_stages_neither_learn_nor_move_their_statistics(data: ImageFolder, tmp_path: Path) -> None:
    task = ClassificationTask(**SMALL, frozen=["conv1", "bn1"])
    before = {k: v.clone() for k, v in task.model.backbone.state_dict().items()}
    trainer(tmp_path).fit(task, data)
    after = task.model.backbone.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith(("conv1", "bn1")))
    assert not torch.equal(before["layer1.0.conv1.weight"], after["layer1.0.conv1.weight"])


def test_mixup_and_cutmix_give_soft_targets(data: ImageFolder, tmp_path: Path) -> None:
    task = ClassificationTask(**SMALL, mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1)
    seen = []
    task.loss.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1]))
    trainer(tmp_path).fit(task, data)
    assert all(t.shape[1] == 3 and torch.allclose(t.sum(1), torch.ones(len(t))) for t in seen)


def test_moving_averages_are_what_a_checkpoint_gives(data: ImageFolder, tmp_path: Path) -> None:
    """The average is computed by hand, step by step, from the weights after every step."""
    weights: list[torch.Tensor] = []

    class Steps(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            weights.append(pl_module.model.classifier.weight.detach().clone())

    task = ClassificationTask(**SMALL)
    run = trainer(tmp_path, max_epochs=2, callbacks=[Steps(), EMAWeightAveraging(decay=0.75)], limit_val_batches=0)
    run.fit(task, data)
    run.save_checkpoint(tmp_path / "ema.ckpt")
    assert len(weights) == 6
    average = weights[0]
    for weight in weights[1:]:
        average = 0.75 * average + 0.25 * weight
    state = torch.load(tmp_path / "ema.ckpt", weights_only=True)
    loaded = gcpzoo.load(tmp_path / "ema.ckpt").classifier.weight
    torch.testing.assert_close(loaded, average, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(loaded, weights[-1], atol=1e-4)
    assert torch.equal(loaded, state["state_dict"]["model.classifier.weight"])


def test_mixed_precision_keeps_the_head_in_float32(data: ImageFolder, tmp_path: Path) -> None:
    task, seen = ClassificationTask(**SMALL), []
    task.model.head.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    trainer(tmp_path, precision="bf16-mixed", limit_train_batches=1, limit_val_batches=0).fit(task, data)
    assert set(seen) == {torch.float32}


def test_data_of_other_classes_is_refused(data: ImageFolder, tmp_path: Path) -> None:
    task = ClassificationTask(**{**SMALL, "num_classes": 4})
    with pytest.raises(ZooError, match="the data has 3 classes, the model 4"):
        trainer(tmp_path).fit(task, data)
    task = ClassificationTask(**SMALL)
    task.model.class_names = ["east", "west", "south"]
    with pytest.raises(ZooError, match="class 1 is 'west' to the model and 'north' in the data"):
        trainer(tmp_path).fit(task, data)


def test_pixels_that_are_not_finite_stop_the_training_and_are_not_blamed_on_the_learning_rate(tmp_path: Path) -> None:
    x = torch.zeros(4, 3, 32, 32)
    x[1] = torch.nan
    loader = DataLoader(TensorDataset(x, torch.zeros(4, dtype=torch.long)), batch_size=2)
    with pytest.raises(ZooError, match="pixels are not finite in epoch 0, batch 0: images 1 of the batch; mend"):
        trainer(tmp_path).fit(ClassificationTask(**SMALL), loader)


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_files(data: ImageFolder, tmp_path: Path) -> None:
    class Overflow(ClassificationTask):
        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
            return super().training_step(batch, batch_idx) * (torch.inf if batch_idx == 1 else 1)

    with pytest.raises(ZooError, match=r"not finite in epoch 0, batch 1 \(.*train/.*png.*\); lower the learning rate"):
        trainer(tmp_path).fit(Overflow(**SMALL), data)
    assert not list(tmp_path.glob("**/*.ckpt"))


def test_hybrid_root_switches_at_the_last_milestone_and_is_recorded(data: ImageFolder, tmp_path: Path) -> None:
    def fit(epochs: int, ckpt_path: Path | None = None) -> ClassificationTask:
        task = ClassificationTask(**SMALL, schedule=ScheduleConfig("step", milestones=[1, 2]))
        run = trainer(tmp_path, max_epochs=epochs, callbacks=[HybridRoot("svd_pade")])
        run.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
        run.save_checkpoint(tmp_path / "hybrid.ckpt")
        return task

    assert fit(2).model.head.root == "isqrt"
    assert fit(3).model.head.root == "svd_pade"
    assert gcpzoo.load(tmp_path / "hybrid.ckpt").head.root == "svd_pade"
    assert ClassificationTask.load_from_checkpoint(tmp_path / "hybrid.ckpt").model.head.root == "svd_pade"
    assert fit(4, tmp_path / "hybrid.ckpt").model.head.root == "svd_pade"  # resumed


def test_hybrid_root_can_wait_for_the_condition_number(data: ImageFolder, tmp_path: Path) -> None:
    for condition, root in ((1.0, "isqrt"), (1e30, "svd_pade")):
        task = ClassificationTask(**SMALL)
        trainer(tmp_path, callbacks=[HybridRoot("svd_pade", condition=condition)]).fit(task, data)
        assert task.model.head.root == root


@pytest.mark.parametrize(
    ("head", "callback", "message"),
    [
        ("gap", {"epoch": 1}, "needs a head whose root can be exchanged"),
        ("isqrt", {}, "needs an epoch, a condition, or a schedule with milestones"),
        ("isqrt", {"root": "svd_pad", "epoch": 1}, "did you mean svd_pade"),
    ],
)
def test_hybrid_root_that_cannot_work_is_refused_at_the_start(
    head: str, callback: dict, message: str, data: ImageFolder, tmp_path: Path
) -> None:
    task = ClassificationTask(**{**SMALL, "head": head})
    with pytest.raises(ZooError, match=message):
        trainer(tmp_path, callbacks=[HybridRoot(**callback)]).fit(task, data)


def test_staged_unfreezing_trains_the_backbone_from_its_epoch_on(data: ImageFolder, tmp_path: Path) -> None:
    task, weights = ClassificationTask(**SMALL, schedule=ScheduleConfig("constant")), []

    class Watch(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            weights.append(task.model.backbone.conv1.weight.detach().clone())

    run = trainer(tmp_path, max_epochs=3, callbacks=[StagedUnfreezing(unfreeze_at=2, lr_factor=0.1), Watch()])
    run.fit(task, data)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.005)


def test_the_covariance_spectrum_is_logged(data: ImageFolder, tmp_path: Path) -> None:
    run = trainer(tmp_path, callbacks=[CovarianceSpectrum()])
    run.fit(ClassificationTask(**SMALL), data)
    assert 1 <= run.callback_metrics["spectrum/effective_rank"] <= 8
    assert run.callback_metrics["spectrum/condition"] >= 1


def test_unknown_frozen_modules_are_named() -> None:
    with pytest.raises(ZooError, match="did you mean conv1"):
        ClassificationTask(**SMALL, frozen=["conv"])


def test_every_class_weighs_the_same_in_the_balanced_loss(tmp_path: Path) -> None:
    for label, (name, count) in enumerate((("many", 9), ("few", 3))):
        for k in range(count):
            draw(tmp_path / "data" / "train" / name / f"{k}.png", label, k, size=32)
    data = ImageFolder(str(tmp_path / "data"), image_size=32, batch_size=6, workers=0, val_fraction=0)
    task = ClassificationTask(**{**SMALL, "num_classes": 2}, balanced=True, label_smoothing=0.1)
    trainer(tmp_path, max_steps=1).fit(task, data)
    logits, labels = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 1, 0])
    few, many = 12 / (2 * 3), 12 / (2 * 9)
    assert torch.equal(task.loss.weight, torch.tensor([few, many]))
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)
    expected = (torch.tensor([few, many])[labels] * plain).mean()
    torch.testing.assert_close(task.loss(logits, labels), expected)
    torch.testing.assert_close(task.loss(logits, torch.nn.functional.one_hot(labels, 2).float()), expected)
    assert not [key for key in task.state_dict() if key.startswith("loss")]


def test_balancing_needs_a_list_of_the_images(tmp_path: Path) -> None:
    class Plain(L.LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            return DataLoader(TensorDataset(torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.long)), 2)

    with pytest.raises(ZooError, match="balanced needs a data module that lists its images"):
        trainer(tmp_path).fit(ClassificationTask(**SMALL, balanced=True), Plain())


def test_the_likeliest_class_is_that_of_the_largest_logit_also_in_bfloat16() -> None:
    logits = (0.1 * torch.randn(500, 98, generator=torch.Generator().manual_seed(0))).bfloat16()
    decided = logits.argmax(1)
    assert (logits.softmax(1).argmax(1) != decided).any()  # what it is about
    task = ClassificationTask(num_classes=3, backbone="resnet18", until="layer1", head="gap")
    task.model.forward = lambda x: logits  # type: ignore[method-assign]
    assert torch.equal(task.predict_step(torch.zeros(1, 3, 32, 32), 0).argmax(1), decided)
