"""ClassificationTask: loss, metrics and optimizer around a network; it knows nothing of any one head."""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchvision.transforms import v2

from gcpzoo.data.classes import check_same_classes
from gcpzoo.data.loading import derived_seed, run_seed
from gcpzoo.errors import ZooError
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.hub.run_checkpoint import KEY, describe_run, read_run_checkpoint
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.surgery import find_modules, freeze
from gcpzoo.models.weights import open_file
from gcpzoo.training.checkpoints import check_finite
from gcpzoo.training.checks import check_group, check_labels, check_ranges
from gcpzoo.training.distillation import Distillation, DistillationConfig
from gcpzoo.training.finite_guard import FiniteGuard
from gcpzoo.training.losses import BalancedCrossEntropy
from gcpzoo.training.metrics import evaluation_metrics, gather_sums, probabilities, restore_sums
from gcpzoo.training.network import START_OPTIONS, build_network
from gcpzoo.training.optimizers import OptimizerConfig
from gcpzoo.training.schedules import ScheduleConfig, follow
from gcpzoo.training.upgrade import upgrade_hyper_parameters

Batch = tuple[Tensor, Tensor]
METRICS, COURSE = "gcpzoo_train_metrics", "gcpzoo_course"
"""Where a checkpoint keeps the means of the epoch that it is from, and its schedule's epochs and steps of an epoch."""


class ClassificationTask(L.LightningModule):
    """Train and evaluate a network with covariance pooling, or its average-pooling control.

    A subclass overrides one of the small ``configure_*`` methods to change the loss, the mixing of images, the metrics
    or the optimizer.

    Args:
        num_classes: number of classes; the command line takes it from the data.
        backbone: a classification network of torchvision (``resnet50``), or ``timm:NAME``.
        head: one of ``gcpzoo list --heads``.
        dim: channels after the reduction layer, or a list of them; null: no reduction; auto: 256 where there are more,
            none for gap.
        head_args: arguments of the head.
        last_stride: 1 keeps the resolution of a ResNet's last stage; null: 1 for second-order heads, else 2.
        until: stage after which the backbone is cut.
        fusion: use the class token (or the mean) too: sum, mean, mean_norm, concat, all.
        hidden: sizes of hidden layers of the classifier.
        dropout: dropout rate before the classifier.
        blocks: parts inserted into the backbone, e.g. ``{"gsop": {"stages": [1, 2, 3]}}``.
        backbone_args: arguments of the backbone's constructor.
        pretrained_backbone: fetch ImageNet weights from torchvision or timm; a string picks one of torchvision's.
        backbone_weights: a file with the backbone's weights, or a model of the zoo whose backbone is taken.
        allow_partial: accept backbone weights that lack tensors.
        checkpoint: a model of the zoo (name, ``hf-hub:owner/repo``, folder) that is evaluated or trained further; it
            brings its own network. Its classifier is replaced where the number of classes differs.
        frozen: modules of the backbone that are not trained, by path or start of a path, e.g. ``[conv1, bn1, layer1]``;
            they run as in evaluation, without dropout and with fixed statistics. ``[backbone]``: all but adapters.
        optimizer: optimizer and learning rates.
        schedule: course of the learning rate over the epochs.
        distillation: a teacher whose answers are learned beside the labels.
        balanced: let every class weigh the same in the loss, however many training images it has.
        label_smoothing: share of the target spread over all classes by the cross-entropy.
        mixup_alpha: parameter of MixUp's Beta distribution; 0: no MixUp.
        cutmix_alpha: parameter of CutMix's Beta distribution; 0: no CutMix. With both, each batch draws one.
        on_nonfinite: what to do when loss or gradients are not finite: ``stop``, or ``skip`` the optimizer step. Both
            name the batch's files.
        channels_last: memory format of backbone and images, faster on most devices.
        recompute_head: compute the head again in the backward pass instead of keeping what it needs: less memory.
        compile_model: compile the network by ``torch.compile``.

    Raises:
        ZooError: if a value is out of range, a name is unknown, or two arguments contradict each other.

    >>> task = ClassificationTask(num_classes=3, backbone="resnet18", until="layer1", dim=8)
    >>> task(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        head: str = "isqrt",
        dim: int | list[int] | Literal["auto"] | None = "auto",
        head_args: dict[str, Any] | None = None,
        last_stride: int | None = None,
        until: str | None = None,
        fusion: str | None = None,
        hidden: list[int] | None = None,
        dropout: float = 0.0,
        blocks: dict[str, Any] | None = None,
        backbone_args: dict[str, Any] | None = None,
        pretrained_backbone: bool | str = False,
        backbone_weights: str | None = None,
        allow_partial: bool = False,
        checkpoint: str | None = None,
        frozen: list[str] | None = None,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (frozen)
        schedule: ScheduleConfig = ScheduleConfig(),  # noqa: B008 (frozen)
        distillation: DistillationConfig = DistillationConfig(),  # noqa: B008 (frozen)
        balanced: bool = False,
        label_smoothing: float = 0.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        on_nonfinite: Literal["stop", "skip"] = "stop",
        channels_last: bool = False,
        recompute_head: bool = False,
        compile_model: bool = False,
    ) -> None:
        super().__init__()
        arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.optimizer_config = check_group(OptimizerConfig, "optimizer", optimizer)
        self.schedule_config = check_group(ScheduleConfig, "schedule", schedule)
        self.distillation = Distillation(check_group(DistillationConfig, "distillation", distillation))
        self.balanced = balanced
        self.label_smoothing, self.mixup_alpha, self.cutmix_alpha = label_smoothing, mixup_alpha, cutmix_alpha
        check_ranges(self, label_smoothing=(0, 1), mixup_alpha=(0, 1e3), cutmix_alpha=(0, 1e3))
        self.channels_last = channels_last
        self.guard = FiniteGuard(on_nonfinite)
        network = {key: arguments[key] for key in GCPNet.CONFIG_KEYS} | {"hidden": hidden or []}
        point = build_network(network, default_network(), **{key: arguments[key] for key in START_OPTIONS})
        self.model, self.start, self.trained_classes = point.model, point.source, point.trained_classes
        self.start_licence = point.licence
        self.frozen = find_modules(self.model.backbone, frozen or [])
        freeze(self.frozen)
        self._save(arguments)
        self._prepare(recompute_head, compile_model)
        self.former_course: list[int] | None = None
        self.mix = self.configure_mix()
        self.loss = self.configure_loss()
        self.train_loss = MeanMetric()
        self.train_top1 = MulticlassAccuracy(self.model.num_classes, average="micro")
        # Lightning's own mean over processes rounds their mean number of images down; "disable" keeps NaN, not weights
        self.loss_of_images = MeanMetric(nan_strategy="disable")
        self.val_metrics = self.configure_metrics("val/")
        self.test_metrics = self.configure_metrics("test/")
        self.test_metrics.add_metrics({"confusion": MulticlassConfusionMatrix(self.model.num_classes)})

    def _save(self, arguments: Mapping[str, Any]) -> None:
        """Keep what rebuilds this network without the files that it started from, as plain values."""
        config = {k: v for k, v in self.model.config.items() if k in arguments}
        start = {"checkpoint": None, "backbone_weights": None, "pretrained_backbone": False, "allow_partial": False}
        groups = {"optimizer": self.optimizer_config, "schedule": self.schedule_config}
        plain = {key: group.to_dict() for key, group in (groups | {"distillation": self.distillation.config}).items()}
        self.save_hyperparameters({**arguments, **config, **start, **plain})

    def _prepare(self, recompute_head: bool, compile_model: bool) -> None:
        if self.channels_last:
            self.model.backbone.to(memory_format=torch.channels_last)
        if recompute_head and isinstance(self.model.head, SecondOrderHead):  # other heads keep next to nothing
            self.model.head.recompute = True
        if compile_model:
            self.model.compile()

    # --- places to override

    def configure_loss(self) -> nn.Module:
        """Return the training loss of logits and targets (labels, or shares of classes after mixing)."""
        kind = BalancedCrossEntropy if self.balanced else nn.CrossEntropyLoss
        return kind(label_smoothing=self.label_smoothing)

    def configure_mix(self) -> nn.Module | None:
        """Return a module that mixes the images and labels of a training batch; ``None``: no mixing."""
        for name in ("mixup_alpha", "cutmix_alpha"):
            if 0 < getattr(self, name) < 1e-3:
                raise ZooError(f"{name} must be 0 or at least 0.001, got {getattr(self, name)}")
        kinds = ((v2.MixUp, self.mixup_alpha), (v2.CutMix, self.cutmix_alpha))
        mixes = [mix(alpha=alpha, num_classes=self.model.num_classes) for mix, alpha in kinds if alpha]
        return v2.RandomChoice(mixes) if mixes else None

    def configure_metrics(self, prefix: str) -> MetricCollection:
        """Return the metrics of an evaluation beside its loss: accuracies, calibration error and Brier score."""
        return evaluation_metrics(self.model.num_classes, prefix)

    def configure_optimizers(self) -> Any:
        """Return optimizer and schedule in Lightning's form."""
        optimizer = self.optimizer_config.create(self.model, fused=self.trainer.precision != "16-mixed")
        epochs, steps = self._length()
        interval = self.schedule_config.interval
        self.course = [epochs, steps if interval == "step" else 1]
        scheduler = self.schedule_config.create(optimizer, *self.course)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def configure_callbacks(self) -> list[L.Callback]:
        """Return the callbacks that belong to every training of this task."""
        return [self.guard, self.distillation]

    def _length(self) -> tuple[int, int]:
        """Return the epochs of the training, also where ``max_steps`` ends it, and the steps of an epoch."""
        total, epochs = self.trainer.estimated_stepping_batches, self.trainer.max_epochs or -1
        if not math.isfinite(total):
            raise ZooError("a schedule needs an end: set trainer.max_epochs or trainer.max_steps")
        self.trainer.fit_loop.setup_data()  # with max_steps alone the batches are not counted yet
        batches = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        if epochs < 1 or self.trainer.max_steps > 0:
            epochs = math.ceil(total / max(batches, 1))
        return max(epochs, 1), max(1, round(total / max(epochs, 1)))

    # --- Lightning's hooks

    def setup(self, stage: str) -> None:
        """Take the classes and the preprocessing from the data, and refuse data of other classes."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(self.loss, BalancedCrossEntropy):
            self.loss.count_images(data, self.model.num_classes)
        if stage == "predict" or not hasattr(data, "class_names"):
            return
        if data.num_classes != self.model.num_classes:
            raise ZooError(f"the data has {data.num_classes} classes, the model {self.model.num_classes}")
        names = list(data.class_names)
        check_same_classes(self.model.class_names, names)
        self.model.class_names = names
        self.model.class_descriptions = list(getattr(data, "class_descriptions", names))
        self.model.preprocessing = getattr(data, "preprocessing", None)

    def on_train_start(self) -> None:
        if self.former_course not in (None, self.course):  # resumed with another number of epochs
            follow(self.trainer.lr_scheduler_configs[0].scheduler, self.schedule_config, *self.course)
        nn.ModuleList(self.frozen).eval()  # also where a training goes on in the middle of an epoch

    def on_train_epoch_start(self) -> None:
        nn.ModuleList(self.frozen).eval()
        for metric in self._train_metrics().values():
            metric.reset()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Refuse labels that are no class, while they are on the CPU, where this does not make it wait."""
        if isinstance(batch, list | tuple) and len(batch) == 2:
            check_labels(batch[1], self.model.num_classes)
        return batch

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let what is random in a step, such as dropout and mixing, follow from seed, epoch, batch and process."""
        torch.manual_seed(derived_seed(run_seed(), self.current_epoch, batch_idx, self.global_rank))

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits ``(B, num_classes)`` of images or clips; averaged over views ``(B, V, 3, H, W)`` of images."""
        views = x.shape[1] if x.ndim == 5 and self.model.head.frames == 1 else 0
        if views:
            x = x.flatten(0, 1)
        x = x.to(self.dtype)  # float32, or what the trainer's precisions bf16-true, 16-true and 64-true make of it
        if self.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        logits = self.model(x)
        return logits.unflatten(0, (-1, views)).mean(1) if views else logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = batch
        target = y
        if self.mix is not None:
            x, target = self.mix(x, y)
        logits = self(x)
        loss = self.distillation(self.loss(logits, target), logits, x)
        self.train_loss.update(loss.detach(), weight=len(y))
        self.train_top1.update(logits.detach(), y)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/top1", self.train_top1, on_step=False, on_epoch=True)
        return loss

    def _train_metrics(self) -> dict[str, Metric]:
        return {"loss": self.train_loss, "top1": self.train_top1}

    def _evaluate(self, batch: Batch, metrics: MetricCollection, name: str) -> Tensor:
        x, y = batch
        logits = self(x)
        metrics.update(logits, y)
        self.loss_of_images.update(nn.functional.cross_entropy(logits, y, reduction="none"))
        self.log(f"{name}/loss", self.loss_of_images, on_epoch=True, add_dataloader_idx=False)
        return logits

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return probabilities(self._evaluate(batch, self.test_metrics, "test"))

    def on_validation_epoch_end(self) -> None:
        for name, value in self.val_metrics.compute().items():
            self.log(name, value, prog_bar=name == "val/top1")
        self.val_metrics.reset()

    def on_test_epoch_end(self) -> None:
        values = self.test_metrics.compute()
        self.confusion = values.pop("test/confusion").cpu()
        self.log_dict(values)
        self.test_metrics.reset()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute class probabilities ``(B, num_classes)``."""
        x = batch[0] if isinstance(batch, list | tuple) else batch
        return probabilities(self(x))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the network, and the epoch's means so far.

        Raises:
            ZooError: if a tensor is not finite; nothing is written then.
        """
        check_finite(checkpoint)
        checkpoint[KEY] = describe_run(self.model, self.start, self.start_licence)
        checkpoint[COURSE] = getattr(self, "course", None)
        checkpoint[METRICS] = gather_sums(self._train_metrics())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.former_course = checkpoint.get(COURSE)
        restore_sums(self._train_metrics(), checkpoint.get(METRICS, {}))

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **kwargs: Any) -> ClassificationTask:  # type: ignore[override]
        """Load a run's ``.ckpt`` file of either format; see Lightning for the keyword arguments."""
        run, parameters = read_run_checkpoint(checkpoint_path), inspect.signature(cls).parameters
        stored = upgrade_hyper_parameters(run.hyper_parameters)
        stored |= {key: parameters[key].default for key in START_OPTIONS if key in parameters}  # the weights are here
        run.check_arguments({**stored, **{k: v for k, v in kwargs.items() if k in stored}}, parameters)
        buffer = io.BytesIO()  # Lightning reads the file again; it gets these hyper-parameters, not the file's own
        torch.save({**open_file(checkpoint_path), "hyper_parameters": stored}, buffer)
        buffer.seek(0)
        try:
            return super().load_from_checkpoint(buffer, **{"weights_only": True, **kwargs})
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ZooError(f"{checkpoint_path} is damaged: {type(error).__name__}: {error}") from error


def default_network() -> dict[str, Any]:
    """Return the defaults of the arguments that describe the network.

    >>> default_network()["head"]
    'isqrt'
    """
    parameters = inspect.signature(ClassificationTask).parameters
    return {key: parameters[key].default for key in GCPNet.CONFIG_KEYS if key != "num_classes"}
