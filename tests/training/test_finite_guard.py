"""What is not finite, or no class, never reaches the weights or a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from run_files import differences

from gcpzoo.data import ImageFolder
from gcpzoo.data.screening import Index
from gcpzoo.errors import ZooError
from gcpzoo.training import ClassificationTask, OptimizerConfig, RunCheckpoints, ScheduleConfig
from gcpzoo.training.checkpoints import WholeCheckpointIO, check_finite

BAD = 2
"""The batch with an image that is not finite."""


class Spoilt(ImageFolder):
    """The images of the tests; in each epoch the second image of one batch has a pixel that is not finite."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
        if self.trainer.training and self._train is not None and self._train.batches == BAD + 1:
            images[1, 0, 0, 0] = torch.nan
        return images, labels


class LeaveOut(L.Callback):
    """Takes the optimizer step of one batch away, with all that its forward pass changed."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.before = {k: v.clone() for k, v in pl_module.model.named_buffers()}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_idx == BAD:
            for parameter in pl_module.parameters():
                parameter.grad = None
            for name, buffer in pl_module.model.named_buffers():
                buffer.copy_(self.before[name])


def train(data: ImageFolder, run: Path, policy: str, *callbacks: L.Callback, **options: Any) -> dict[str, Any]:
    """Train an epoch of six batches, and return the checkpoint after it."""
    L.seed_everything(0, verbose=False)
    network = {"num_classes": 3, "backbone": "resnet18", "until": "layer1", "dim": 8, "dropout": 0.2}
    task = ClassificationTask(
        **network, optimizer=OptimizerConfig("AdamW", lr=1e-3), schedule=ScheduleConfig("cosine", interval="step"),
        on_nonfinite=policy,
    )  # fmt: skip
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = L.Trainer(
        default_root_dir=run, max_epochs=1, limit_val_batches=0, callbacks=[*callbacks, RunCheckpoints(2)],
        plugins=[WholeCheckpointIO()], **quiet, **options,
    )  # fmt: skip
    trainer.fit(task, data)
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def images(kind: type[ImageFolder], folder: Path) -> ImageFolder:
    return kind(str(folder), image_size=32, batch_size=3, workers=0, check=False)


def bad_file(data: ImageFolder) -> str:
    return data.training_files(0, BAD)[1]


def test_a_skipped_step_leaves_no_trace(folder: Path, tmp_path: Path) -> None:
    """Weights, statistics, and the optimizer's moments are those of a training without that step."""
    spoilt = images(Spoilt, folder)
    with pytest.warns(UserWarning, match="optimizer step skipped: pixels are not finite in epoch 0, batch 2") as warned:
        skipped = train(spoilt, tmp_path / "skipped", "skip")
    text = next(str(w.message) for w in warned if "skipped" in str(w.message))
    assert f"{bad_file(spoilt)}; mend or remove" in text
    without = train(images(ImageFolder, folder), tmp_path / "without", "stop", LeaveOut())
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert list(differences(skipped[part], without[part])) == []
    assert skipped["state_dict"]["model.backbone.bn1.num_batches_tracked"] == 5
    assert {int(state["step"]) for state in skipped["optimizer_states"][0]["state"].values()} == {5}
    assert skipped["state_dict"]["model.classifier.weight"].isfinite().all()


def test_a_skipped_step_drops_all_batches_that_were_gathered_for_it(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="optimizer step skipped: .* batch 2"):
        skipped = train(images(Spoilt, folder), tmp_path, "skip", accumulate_grad_batches=2)
    assert skipped["state_dict"]["model.backbone.bn1.num_batches_tracked"] == 4


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_stopped_training_names_the_file_and_keeps_the_checkpoint_before(
    folder: Path, tmp_path: Path, precision: str
) -> None:
    data = images(Spoilt, folder)
    with pytest.raises(ZooError, match="pixels are not finite in epoch 0, batch 2: ") as error:
        train(data, tmp_path, "stop", precision=precision)
    assert f"{bad_file(data)}; mend or remove these images" in str(error.value)
    assert "learning rate" not in str(error.value)
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_a_loss_that_overflows_names_the_batch_and_the_learning_rate(folder: Path, tmp_path: Path) -> None:
    class Overflow(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == BAD:
                pl_module.model.classifier.weight.data.fill_(torch.inf)

    data = images(ImageFolder, folder)
    with pytest.raises(ZooError, match="the loss or a gradient is not finite in epoch 0, batch 2") as error:
        train(data, tmp_path, "stop", Overflow())
    assert all(file in str(error.value) for file in data.training_files(0, BAD))
    assert "lower the learning rate, or set model.on_nonfinite to skip" in str(error.value)


@pytest.mark.parametrize("place", ["weights", "optimizer", "statistics"])
def test_a_checkpoint_that_is_not_finite_does_not_replace_a_finite_one(
    folder: Path, tmp_path: Path, place: str
) -> None:
    class Spoil(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3:  # the checkpoint of this step is written next
                moments = next(iter(trainer.optimizers[0].state.values()))
                backbone = pl_module.model.backbone
                spoilt = {
                    "weights": backbone.conv1.weight.data,
                    "optimizer": moments["exp_avg"],
                    "statistics": backbone.bn1.running_var,
                }
                spoilt[place].view(-1)[0] = torch.nan

    with pytest.raises(ZooError, match="is not finite, so no checkpoint is written and the last one stays"):
        train(images(ImageFolder, folder), tmp_path, "stop", Spoil())
    kept = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    check_finite(kept)
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_an_error_that_names_the_image(folder: Path, label: int) -> None:
    class Mislabelled(ImageFolder):
        def index(self) -> Index:
            index = super().index()
            index.splits["train"][4] = (index.splits["train"][4][0], label)
            return index

    data = images(Mislabelled, folder)
    with pytest.raises(ZooError, match=f"labels must be between 0 and 2, got {label} for .*4.png"):
        data.setup("fit")


def test_a_label_of_another_data_module_is_refused_before_it_is_used() -> None:
    task = ClassificationTask(num_classes=3, backbone="resnet18", until="layer1", dim=8)
    batch = torch.zeros(4, 3, 32, 32), torch.tensor([0, 2, 3, 1])
    with pytest.raises(ZooError, match="labels must be between 0 and 2, got 3 for image 2 of a batch of 4"):
        task.on_before_batch_transfer(batch, 0)
