"""ClassificationTask: loss, metrics and optimizer around a GCPNet; knows nothing of any one head."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchvision.transforms import v2

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.models.gcpnet import GCPNet, create_model
from gcpzoo.training.optimizers import create_optimizer, create_schedule, optimizer_arguments, parameter_groups

FORMAT = 1
"""Version of what :meth:`ClassificationTask.on_save_checkpoint` adds to a checkpoint."""


RANGES = (
    ("label_smoothing", 0, 1),
    ("mixup_alpha", 0, 1e3),
    ("cutmix_alpha", 0, 1e3),
    ("lr", 0, 1e6),
    ("weight_decay", 0, 1e6),
    ("classifier_lr_factor", 0, 1e6),
    ("head_lr_factor", 0, 1e6),
    ("layer_decay", 0, 1),
    ("final_factor", 1e-12, 1),
    ("power", 0, 1e3),
)


class ClassificationTask(L.LightningModule):
    """Train and evaluate a network with covariance pooling, or its average-pooling control.

    Args:
        num_classes: classes; the command line takes it from the data.
        backbone: a classification network of torchvision (``resnet50``), or ``timm:NAME``.
        head: one of ``gcpzoo list --heads``.
        dim: channels after the reduction layer, or a list of them; null: no reduction; auto: 256 where there are more,
            none for gap.
        head_args: the head's own arguments.
        last_stride: 1 keeps the resolution of a ResNet's last stage; null: 1 for second-order heads, else 2.
        until: cut the backbone after this stage.
        fusion: also use the class token: sum, concat, all.
        hidden: sizes of hidden layers of the classifier.
        dropout: rate before the classifier.
        blocks: parts inserted into a ResNet, e.g. ``{"gsop": {"stages": [1, 2, 3]}}``.
        backbone_args: arguments of the backbone's constructor.
        pretrained_backbone: fetch ImageNet weights from torchvision or timm; a string picks one of torchvision's.
        backbone_weights: a file with the backbone's weights, or a model of the zoo whose backbone is taken.
        allow_partial: accept backbone weights that lack tensors.
        checkpoint: a model of the zoo (name, ``hf-hub:owner/repo``, folder) that is evaluated or trained further;
            it brings its own architecture. Its classifier is replaced when the classes differ.
        frozen_stages: parts of the backbone that are not trained, e.g. ``[conv1, bn1, layer1]``; their batch
            normalization keeps its statistics.
        optimizer: any optimizer of ``torch.optim``.
        optimizer_args: its arguments beside learning rate and weight decay; SGD has momentum 0.9 by default.
        lr: learning rate of the whole batch.
        weight_decay: weight decay.
        classifier_lr_factor: the classifier's learning rate in multiples of ``lr``.
        head_lr_factor: the same for the head's reduction layer, which starts at random when the backbone does not.
        layer_decay: factor of the learning rate from stage to stage towards the input.
        decay_norm_and_bias: false: no weight decay on normalization layers and biases.
        schedule: course of the learning rate over the epochs.
        warmup_epochs: epochs of linear rise at the beginning.
        milestones: epochs at which ``step`` multiplies the rate by gamma.
        gamma: factor of ``step``.
        power: exponent of ``polynomial``.
        horizon: epoch at which ``polynomial`` reaches zero; null: the last.
        final_factor: the last epoch's factor of ``logarithmic``.
        schedule_interval: change the rate every epoch or every step.
        label_smoothing: of the cross-entropy.
        mixup_alpha: MixUp's Beta parameter; 0: off.
        cutmix_alpha: CutMix's Beta parameter; 0: off. With both, one is drawn for each batch.
        channels_last: memory format of backbone and images, faster on most devices.
        recompute_head: compute the head again in the backward pass instead of keeping what it needs: less memory.
        compile_model: compile the network by ``torch.compile``.
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
        frozen_stages: list[str] | None = None,
        optimizer: str = "SGD",
        optimizer_args: dict[str, Any] | None = None,
        lr: float = 0.01,
        weight_decay: float = 1e-4,
        classifier_lr_factor: float = 1.0,
        head_lr_factor: float = 1.0,
        layer_decay: float | None = None,
        decay_norm_and_bias: bool = True,
        schedule: Literal["constant", "step", "cosine", "polynomial", "logarithmic"] = "cosine",
        warmup_epochs: int = 0,
        milestones: list[int] | None = None,
        gamma: float = 0.1,
        power: float = 2.0,
        horizon: float | None = None,
        final_factor: float = 1e-2,
        schedule_interval: Literal["epoch", "step"] = "epoch",
        label_smoothing: float = 0.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        channels_last: bool = False,
        recompute_head: bool = False,
        compile_model: bool = False,
    ) -> None:
        super().__init__()
        hparams = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        for name, least, most in RANGES:
            value = hparams[name]
            if value is not None and not least <= value <= most:
                raise ZooError(f"{name} must lie between {least:g} and {most:g}, got {value}")
        for name in ("mixup_alpha", "cutmix_alpha"):
            if 0 < hparams[name] < 1e-3:
                raise ZooError(f"{name} must be 0, or at least 0.001, got {hparams[name]}")
        self.trained_classes: int | None = None
        self.model = self._build(hparams)
        self.start = checkpoint or backbone_weights or (f"pretrained {backbone}" if pretrained_backbone else None)
        # What rebuilds this network without the files it started from.
        config = {k: v for k, v in self.model.config.items() if k in hparams}
        start = {"checkpoint": None, "backbone_weights": None, "pretrained_backbone": False, "allow_partial": False}
        self.save_hyperparameters({**hparams, **config, **start})
        self._freeze(frozen_stages or [])
        self._optimizer([{"params": [nn.Parameter(torch.zeros(1))]}])  # a wrong name is an error now
        if channels_last:
            self.model.backbone.to(memory_format=torch.channels_last)
        if recompute_head and isinstance(self.model.head, SecondOrderHead):  # the others keep nothing to be spared
            self.model.head.recompute = True
        if compile_model:
            self.model.compile()
        mixes = [
            mix(alpha=a, num_classes=num_classes)
            for mix, a in ((v2.MixUp, mixup_alpha), (v2.CutMix, cutmix_alpha))
            if a
        ]
        self.mix: nn.Module | None = v2.RandomChoice(mixes) if mixes else None
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.train_top1 = MulticlassAccuracy(num_classes, average="micro")
        self.val_metrics = self._metrics("val/", confusion=False)
        self.test_metrics = self._metrics("test/", confusion=True)

    def _build(self, hparams: dict[str, Any]) -> GCPNet:
        """The network: a whole checkpoint of the zoo, or a backbone (perhaps with weights) and a new head."""
        if hparams["checkpoint"]:
            from gcpzoo.hub import load

            model = load(hparams["checkpoint"])
            names = model.class_names
            for key in GCPNet.CONFIG_KEYS:
                default = inspect.signature(ClassificationTask).parameters[key].default
                if key != "num_classes" and hparams[key] not in (default, model.config[key]):
                    raise ZooError(
                        f"{hparams['checkpoint']} brings its own architecture, {key}={model.config[key]!r}: leave out "
                        f"{hparams[key]!r}, or take only its backbone by backbone_weights"
                    )
            self.trained_classes = model.num_classes
            if model.num_classes != hparams["num_classes"]:
                model.reset_classifier(hparams["num_classes"])
                names = None
            model.class_names, model.record = names, None  # its figures are not those of what is trained from it
            return model.train()
        weights: Any = hparams["backbone_weights"]
        if weights is not None and not str(weights).endswith((".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")):
            from gcpzoo.hub import load

            backbone = load(weights).backbone
            weights = getattr(backbone, "net", backbone).state_dict()
        config = {k: hparams[k] for k in GCPNet.CONFIG_KEYS}
        config["hidden"] = config["hidden"] or ()
        return create_model(
            **config,
            pretrained_backbone=hparams["pretrained_backbone"],
            backbone_weights=weights,
            allow_partial=hparams["allow_partial"],
        )

    def _freeze(self, stages: list[str]) -> None:
        children = dict(self.model.backbone.named_children())
        for name in stages:
            if name not in children:
                raise unknown_name(f"stage of {self.model.config['backbone']}", name, children)
        self.frozen = [children[name] for name in stages]
        for module in self.frozen:
            module.requires_grad_(False)

    def _metrics(self, prefix: str, confusion: bool) -> MetricCollection:
        n = self.model.num_classes
        metrics: dict[str, Any] = {
            "top1": MulticlassAccuracy(n, average="micro"),
            "top5": MulticlassAccuracy(n, top_k=min(5, n), average="micro"),
            "per_class": MulticlassAccuracy(n, average="macro"),
        }
        if confusion:
            metrics["confusion"] = MulticlassConfusionMatrix(n)
        return MetricCollection(metrics, prefix=prefix, compute_groups=False)

    def setup(self, stage: str) -> None:
        """Take class names and preprocessing from the data, and refuse data of other classes."""
        data = getattr(self.trainer, "datamodule", None)
        if data is None or stage == "predict":
            return
        if not hasattr(data, "class_names"):
            return
        if data.num_classes != self.model.num_classes:
            raise ZooError(f"the data has {data.num_classes} classes, the model {self.model.num_classes}")
        known, names = self.model.class_names, list(data.class_names)
        if known is not None and known != names:
            other = next(i for i, (a, b) in enumerate(zip(known, names)) if a != b)
            raise ZooError(
                f"the model's classes are not the data's: class {other} is {known[other]!r} to the model and "
                f"{names[other]!r} in the data; rename the folders, or train a new classifier"
            )
        self.model.class_names = names
        self.model.preprocessing = getattr(data, "preprocessing", None)

    def on_train_epoch_start(self) -> None:
        for module in self.frozen:
            module.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of images ``(B, 3, H, W)``; those of views ``(B, V, 3, H, W)`` are averaged."""
        views = x.shape[1] if x.ndim == 5 else 0
        if views:
            x = x.flatten(0, 1)
        x = x.to(self.dtype)  # float32 but for the trainer's precisions bf16-true, 16-true and 64-true
        if self.hparams["channels_last"]:
            x = x.contiguous(memory_format=torch.channels_last)
        logits = self.model(x)
        return logits.unflatten(0, (-1, views)).mean(1) if views else logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        target = y
        if self.mix is not None:
            x, target = self.mix(x, y)
        logits = self(x)
        loss = self.loss(logits, target)
        # On a GPU the look at the loss waits for it, so it is taken now and then only.
        if (batch_idx % 50 == 0 or not loss.is_cuda) and not torch.isfinite(loss):
            raise ZooError(f"the loss is {loss.item()} in epoch {self.current_epoch}: lower the learning rate")
        self.train_top1(logits, y)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(y), prog_bar=True)
        self.log("train/top1", self.train_top1, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def _evaluate(self, batch: tuple[Tensor, Tensor], metrics: MetricCollection, name: str) -> None:
        x, y = batch
        logits = self(x)
        metrics.update(logits, y)
        loss = nn.functional.cross_entropy(logits, y)
        self.log(f"{name}/loss", loss, on_epoch=True, batch_size=len(y), add_dataloader_idx=False, sync_dist=True)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, self.test_metrics, "test")

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
        """Class probabilities ``(B, num_classes)``."""
        x = batch[0] if isinstance(batch, list | tuple) else batch
        return self(x).softmax(1)

    def _optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        h = self.hparams
        arguments = optimizer_arguments(h["optimizer"], h["optimizer_args"])
        if self._trainer is not None and self.trainer.precision == "16-mixed":
            arguments = {"foreach": None, **arguments}  # a fused step unscales by itself, before gradients are clipped
        return create_optimizer(h["optimizer"], groups, lr=h["lr"], weight_decay=h["weight_decay"], **arguments)

    def configure_optimizers(self) -> Any:
        h = self.hparams
        groups = parameter_groups(
            self.model,
            h["lr"],
            h["weight_decay"],
            h["classifier_lr_factor"],
            h["head_lr_factor"],
            h["layer_decay"],
            h["decay_norm_and_bias"],
        )
        optimizer = self._optimizer(groups)
        epochs = self.trainer.max_epochs or 1
        by_step = h["schedule_interval"] == "step"
        steps = max(1, round(self.trainer.estimated_stepping_batches / epochs)) if by_step else 1
        schedule = create_schedule(
            optimizer,
            h["schedule"],
            epochs,
            h["warmup_epochs"],
            h["milestones"] or [],
            h["gamma"],
            h["power"],
            h["horizon"],
            h["final_factor"],
            steps,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": h["schedule_interval"]}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        preprocessing = self.model.preprocessing
        checkpoint["gcpzoo"] = {
            "format": FORMAT,
            "config": self.model.config,
            "class_names": self.model.class_names,
            "preprocessing": preprocessing.to_dict() if preprocessing else None,
            "start": self.start,
        }
