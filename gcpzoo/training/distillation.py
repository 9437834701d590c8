"""Knowledge from a teacher: a trained network whose softened answers are targets beside the labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn import functional as F

from gcpzoo.data.transforms import output_size
from gcpzoo.errors import ZooError
from gcpzoo.hub.loading import load
from gcpzoo.models.fingerprint import fingerprint
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.training.checks import check_ranges


@dataclass(frozen=True)
class DistillationConfig:
    """A teacher, and how much of it a training listens to, as plain values.

    Args:
        teacher: a model of the zoo (name, ``hf-hub:owner/repo``, folder), a run's folder or its ``.ckpt``; it must know
            the same classes in the same order. Null: no teacher.
        temperature: T, which the logits of both are divided by; higher: more is learned from the unlikely classes.
        weight: the teacher's share of the loss; the labels have the rest.
        resize: resize the training images to the teacher's own size for it; false: another size is refused.

    Raises:
        ZooError: if a value is out of range, or one is given without a teacher.

    >>> DistillationConfig(teacher="resnet18_isqrt.digits", weight=0.5).to_dict()["weight"]
    0.5
    >>> DistillationConfig(weight=0.5)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: distillation.weight needs a teacher: set distillation.teacher
    """

    teacher: str | None = None
    temperature: float = 4.0
    weight: float = 0.9
    resize: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, temperature=(0.01, 1000), weight=(0, 1))
        given = [name for name, value in asdict(self).items() if value != getattr(type(self), name)]
        if given and not self.teacher:
            raise ZooError(f"distillation.{given[0]} needs a teacher: set distillation.teacher")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; ``DistillationConfig(**values)`` takes them back.

        >>> DistillationConfig().to_dict()
        {'teacher': None, 'temperature': 4.0, 'weight': 0.9, 'resize': False}
        """
        return asdict(self)


class Distillation(Callback):
    r"""Mix what a teacher says into the training loss.

    .. math:: (1 - \alpha) \cdot \text{loss} + \alpha \, T^2 \, \text{KL}\big(\text{softmax}(z_t / T) \,\|\,
        \text{softmax}(z_s / T)\big)

    for the logits of teacher and student, :math:`\alpha` the config's weight and :math:`T` its temperature. The teacher
    sees the batch as the student does, mixed by MixUp and CutMix, but normalized in its own way. It stays in eval mode,
    gets no gradients, and is part of no checkpoint; a checkpoint knows it by the SHA-256 of its weights.

    :class:`~gcpzoo.training.ClassificationTask` brings this callback, by its argument ``distillation``.

    Raises:
        ZooError: at the start of a training, if the teacher cannot be loaded, has other classes or another image size,
            or is not the one that a resumed run began with.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.

    >>> teaching = Distillation(DistillationConfig(teacher="resnet18_isqrt.digits"))
    >>> teaching.load()
    >>> teaching.record()["weight"], len(teaching.record()["sha256"])
    (0.9, 64)
    """

    def __init__(self, config: DistillationConfig) -> None:
        self.config = config
        self.network: GCPNet | None = None
        self.sha256: str | None = None
        self.seen: Preprocessing | None = None

    def __call__(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Return the loss of a batch with the teacher's share; without a teacher the loss as it is.

        Args:
            loss: of the student's logits and the labels.
            logits: of the student, ``(B, num_classes)``.
            images: what the student saw, ``(B, 3, H, W)``.
        """
        if self.config.teacher is None:
            return loss
        soft = soft_target_loss(logits, self._answers(images), self.config.temperature)
        return (1 - self.config.weight) * loss + self.config.weight * soft

    def load(self, data: Any = None) -> None:
        """Load the teacher, if there is one and it is not loaded yet, and compare it with the data module."""
        name = self.config.teacher
        if name is None:
            return
        if self.network is None:
            self.network = load(name).eval().requires_grad_(False)
            self.sha256 = fingerprint(self.network)
        known, names = self.network.class_names, getattr(data, "class_names", None)
        if names is not None and known != list(names):
            raise ZooError(f"the teacher {name} must know the classes of the data: {_difference(known, list(names))}")
        self.seen = getattr(data, "preprocessing", None)
        if self.seen and not self.config.resize and (size := self._size()) not in (None, output_size(self.seen)):
            raise ZooError(
                f"the teacher {name} sees images of {_pixels(size)}, this training {_pixels(output_size(self.seen))}: "
                "set data.image_size, or distillation.resize to resize them for the teacher"
            )

    def record(self) -> dict[str, Any] | None:
        """Return what identifies the teacher, and its part in the loss; ``None`` if none was loaded."""
        if self.sha256 is None:
            return None
        return {**self.config.to_dict(), "sha256": self.sha256}

    # --- Lightning's hooks

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self.load(getattr(trainer, "datamodule", None))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.network is not None:
            self.network.to(pl_module.device, pl_module.dtype)

    def state_dict(self) -> dict[str, Any]:
        return {"sha256": self.sha256} if self.sha256 else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before = state_dict.get("sha256")
        if before and self.sha256 and before != self.sha256:  # an evaluation loads none
            raise ZooError(
                f"the teacher {self.config.teacher} is not the one that this run began with: its weights have the "
                f"sha256 {self.sha256[:12]}…, those of the run's teacher {before[:12]}…; bring that one back, or start "
                "again with another --output"
            )

    # --- what the teacher sees and says

    def _answers(self, images: Tensor) -> Tensor:
        if self.network is None:
            self.load()
        assert self.network is not None
        parameter = next(self.network.parameters())
        with torch.no_grad():
            logits: Tensor = self.network(self._own_view(images).to(parameter.device, parameter.dtype))
        return logits

    def _own_view(self, images: Tensor) -> Tensor:
        """Bring normalized images to the teacher's mean and standard deviation, and to its size where asked."""
        own = self.network.preprocessing if self.network else None
        if own is None or self.seen is None:
            return images
        if (own.mean, own.std) != (self.seen.mean, self.seen.std):
            mean, std, own_mean, own_std = (
                torch.tensor(v, device=images.device)[:, None, None]
                for v in (self.seen.mean, self.seen.std, own.mean, own.std)
            )
            images = (images * std + (mean - own_mean)) / own_std
        size = self._size()
        if self.config.resize and size is not None and images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return images

    def _size(self) -> tuple[int, int] | None:
        """Return the teacher's height and width; ``None`` if they are not known or depend on the image."""
        own = self.network.preprocessing if self.network else None
        if own is None or (own.crop is None and not isinstance(own.resize, tuple)):
            return None
        return output_size(own)


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""Compare two softened answers, :math:`T^2 \, \text{KL}(\text{softmax}(z_t / T) \| \text{softmax}(z_s / T))`.

    The factor :math:`T^2` keeps the gradients' size where T changes. Computed in float32 or wider.

    Args:
        student, teacher: logits ``(B, num_classes)``.
        temperature: T.

    Returns:
        The mean over the batch, in nats times T².

    >>> z = torch.tensor([[2.0, 0.0]])
    >>> float(soft_target_loss(z, z, temperature=4.0))
    0.0
    """
    z_s, z_t = (z.to(torch.promote_types(z.dtype, torch.float32)) / temperature for z in (student, teacher))
    divergence = F.kl_div(z_s.log_softmax(1), z_t.log_softmax(1), reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def _difference(known: list[str] | None, names: list[str]) -> str:
    if known is None:
        return "it does not say which classes it knows"
    if len(known) != len(names):
        return f"it has {len(known)}, the data {len(names)}"
    other = next(i for i, (a, b) in enumerate(zip(known, names)) if a != b)
    return f"class {other} is {known[other]!r} to the teacher and {names[other]!r} in the data"


def _pixels(size: tuple[int, int] | None) -> str:
    return f"{size[1]}×{size[0]} px" if size else "any size"
