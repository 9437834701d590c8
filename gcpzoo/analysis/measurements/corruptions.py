r"""Robustness to the corruptions of ImageNet-C, made by the package corrupt-tta (the extra ``analyze``).

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019;
Wang et al., CVPR 2020, compare covariance with average pooling by it. What differs from the published figures:

- errors are relative to the control, e.g. average pooling, where the paper divides by AlexNet's;
- corrupt-tta blurs motion and draws snow with OpenCV in place of ImageMagick, and nothing is stored as JPEG in between;
- strengths are those for images of 224 px, so that smaller images are hit harder.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from gcpzoo.analysis.drawing.style import add_legend, new_figure, plain, series
from gcpzoo.analysis.measurements.subject import Measurement, Row, Subject
from gcpzoo.data.loading import derived_seed
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.models.surgery import evaluating

STANDARD = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""The 15 corruptions that the mean corruption error counts."""
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Four more, which the paper keeps for validation."""
SEVERITIES = (1, 2, 3, 4, 5)
IMAGES = 100
CLEAN = "none"
SALT_AND_PEPPER = (0.03, 0.06, 0.09, 0.17, 0.27)
LEAST_SIDE = 8


def corrupt(image: Tensor, corruption: str, severity: int, seed: int = 0) -> Tensor:
    """Corrupt an image as ImageNet-C does, always alike for the same seed; the process's random state stays as it was.

    Args:
        image: uint8 ``(3, h, w)``, at least 8 px on each side, of any aspect ratio.
        corruption: one of ``STANDARD`` and ``EXTRA``.
        severity: 1 to 5.
        seed: of what is random in it.

    Returns:
        uint8 ``(3, h, w)``.

    Raises:
        ZooError: if the image, the corruption or the severity is none of these.
        ModuleNotFoundError: without the extra ``analyze``.

    >>> image = torch.full((3, 16, 24), 100, dtype=torch.uint8)
    >>> corrupt(image, "brightness", severity=5)[:, 0, 0]
    tensor([228, 228, 228], dtype=torch.uint8)
    """
    if corruption not in (*STANDARD, *EXTRA):
        raise unknown_name("corruption", corruption, (*STANDARD, *EXTRA))
    if severity not in SEVERITIES:
        raise ZooError(f"severity must be a whole number from 1 to 5, got {severity!r}")
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or min(image.shape[1:]) < LEAST_SIDE:
        raise ZooError(
            f"an image to corrupt must be uint8 (3, h, w) of at least {LEAST_SIDE} px, got {image.dtype} "
            f"{tuple(image.shape)}"
        )
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    with isolate_rng(include_cuda=False):
        np.random.seed(seed % 2**32)  # noqa: NPY002 (corrupt-tta draws from this generator)
        found = _corrupted(pixels, corruption, int(severity), seed)
    if found.shape != pixels.shape or not np.isfinite(found).all():
        raise ZooError(f"{corruption} failed on an image of {pixels.shape[1]}×{pixels.shape[0]} px")
    if corruption == "frost" and np.array_equal(found, pixels):
        raise ZooError("corrupt-tta found none of its images of frost; install it anew")
    return torch.from_numpy(np.clip(np.rint(found), 0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()


def _corrupted(pixels: Any, corruption: str, severity: int, seed: int) -> Any:
    import corrupt_tta

    if corruption == "impulse_noise":  # corrupt-tta draws it from a generator that cannot be seeded
        from skimage.util import random_noise

        rng = np.random.default_rng(seed)
        return 255 * random_noise(pixels / 255, mode="s&p", rng=rng, amount=SALT_AND_PEPPER[severity - 1])
    return np.asarray(corrupt_tta.corrupt(pixels, severity=severity, corruption_name=corruption), np.float64)


@dataclass(frozen=True)
class Accuracy:
    """How many of the corrupted images a network recognizes.

    Attributes:
        model: its name.
        corruption: ``none`` for the images as they are.
        severity: 0 for the images as they are.
        right: number of images that are right.
        images: number of images.

    >>> Accuracy("gap", "fog", 3, right=30, images=40).error
    0.25
    """

    model: str
    corruption: str
    severity: int
    right: int
    images: int

    @property
    def error(self) -> float:
        """The share of images that are wrong."""
        return 1 - self.right / self.images


@torch.no_grad()
def corrupted_accuracy(
    models: Mapping[str, nn.Module],
    pixels: Sequence[tuple[Tensor, Tensor]],
    preprocessing: Preprocessing,
    corruptions: Sequence[str] = STANDARD,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
) -> list[Accuracy]:
    """Count what networks recognize of images, as they are and corrupted; all networks see the same images.

    Args:
        models: networks by name, which compute in evaluation mode; their modes are left as they were.
        pixels: uint8 images ``(B, 3, h, w)``, resized and cropped, and labels ``(B,)``.
        preprocessing: whose normalization follows the corruption.
        corruptions, severities: which.
        seed: of what is random: each image, corruption and severity has a seed of its own.

    Raises:
        ZooError: if there are no images, or a corruption or severity is unknown.
        ModuleNotFoundError: without the extra ``analyze``.

    >>> from gcpzoo.models import Preprocessing, create_model
    >>> models = {"gap": create_model("resnet18", "gap", 2, until="layer1")}
    >>> pixels = [(torch.full((2, 3, 32, 32), 90, dtype=torch.uint8), torch.tensor([0, 1]))]
    >>> [(a.corruption, a.right) for a in corrupted_accuracy(models, pixels, Preprocessing(), ["contrast"], [5])]
    [('none', 1), ('contrast', 1)]
    """
    if not any(len(labels) for _, labels in pixels):
        raise ZooError("robustness needs images, got none")
    conditions = [(CLEAN, 0), *((name, severity) for name in corruptions for severity in severities)]
    found = []
    for name, severity in conditions:
        right, images = dict.fromkeys(models, 0), 0
        for batch, labels in pixels:
            if name != CLEAN:
                kind = zlib.crc32(name.encode())
                seeds = [derived_seed(seed, kind, severity, images + i) for i in range(len(batch))]
                batch = torch.stack([corrupt(image, name, severity, s) for image, s in zip(batch, seeds)])
            images += len(labels)
            for model_name, model in models.items():
                right[model_name] += _right(model, preprocessing.normalize(batch), labels)
        found += [Accuracy(model_name, name, severity, count, images) for model_name, count in right.items()]
    return found


def _right(model: nn.Module, x: Tensor, labels: Tensor) -> int:
    with evaluating(model):
        return int((model(x.to(next(model.parameters()))).argmax(1).cpu() == labels.cpu()).sum())


@dataclass(frozen=True)
class CorruptionError:
    r"""Errors under a corruption, relative to those of a control.

    Attributes:
        corruption: its name, or ``mean`` for the mean over corruptions (mCE).
        error: :math:`100\sum_s E_s / \sum_s E_s^\text{control}`, in per cent; ``None`` where the control makes none.
        relative: :math:`100\sum_s (E_s - E_0) / \sum_s (E_s^\text{control} - E_0^\text{control})`, of what the
            corruption adds to the error on the images as they are; ``None`` where it adds nothing to the control's.

    >>> CorruptionError("fog", error=90.0, relative=95.0).error
    90.0
    """

    corruption: str
    error: float | None
    relative: float | None


def corruption_errors(model: Sequence[Accuracy], control: Sequence[Accuracy]) -> list[CorruptionError]:
    """Compare a network's errors with a control's: one entry for each corruption, then their mean.

    Args:
        model: of :func:`corrupted_accuracy`, of one network.
        control: of the control, on the same images, corruptions and severities.

    Returns:
        The last entry is the mean corruption error, ``None`` where one of them is.

    Raises:
        ZooError: if the two are not of the same images, corruptions and severities.

    >>> ours = [Accuracy("isqrt", "none", 0, 9, 10), Accuracy("isqrt", "fog", 1, 8, 10)]
    >>> control = [Accuracy("gap", "none", 0, 9, 10), Accuracy("gap", "fog", 1, 5, 10)]
    >>> [(e.corruption, round(e.error), round(e.relative)) for e in corruption_errors(ours, control)]
    [('fog', 40, 25), ('mean', 40, 25)]
    """
    of = [{(a.corruption, a.severity): a.error for a in rows} for rows in (model, control)]
    same = {(a.corruption, a.severity, a.images) for a in model} == {
        (a.corruption, a.severity, a.images) for a in control
    }
    if not same or (CLEAN, 0) not in of[0] or len(of[0]) < 2:
        raise ZooError("a corruption error needs both networks' errors on the same images, as they are and corrupted")
    found = []
    for name in dict.fromkeys(a.corruption for a in model if a.corruption != CLEAN):
        ours, theirs = ([value for (n, _), value in errors.items() if n == name] for errors in of)
        added = [sum(values) - len(values) * errors[CLEAN, 0] for values, errors in zip((ours, theirs), of)]
        found.append(CorruptionError(name, _percent(sum(ours), sum(theirs)), _percent(*added)))
    return [*found, CorruptionError("mean", _mean([e.error for e in found]), _mean([e.relative for e in found]))]


def _percent(ours: float, theirs: float) -> float | None:
    return 100 * ours / theirs if theirs > 1e-9 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _corruptions(subject: Subject) -> list[Row]:
    pixels = list(subject.pixels("test", subject.images or IMAGES))
    names = (*STANDARD, *EXTRA) if subject.extra_corruptions else STANDARD
    networks = dict(subject.networks())
    found = corrupted_accuracy(networks, pixels, subject.data.preprocessing, names, subject.severities, subject.seed)
    rows: list[Row] = [
        {
            "model": a.model,
            "corruption": a.corruption,
            "severity": a.severity,
            "images": a.images,
            "top1": a.right / a.images,
            "error_to_control": None,
            "relative_error_to_control": None,
        }
        for a in found
    ]
    if subject.control is not None:
        ours, control = ([a for a in found if a.model == name] for name in networks)
        empty = {"severity": None, "images": ours[0].images, "top1": None}
        counted = [a for a in ours if a.corruption not in EXTRA], [a for a in control if a.corruption not in EXTRA]
        rows += [
            {
                "model": subject.name,
                "corruption": e.corruption,
                **empty,
                "error_to_control": e.error,
                "relative_error_to_control": e.relative,
            }
            for e in corruption_errors(*counted)
        ]
    return rows


def _draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    figure, (left, right) = new_figure(10, 4.4, 2)
    measured = [row for row in rows if row["top1"] is not None]
    names = list(dict.fromkeys(row["corruption"] for row in measured if row["corruption"] != CLEAN))
    for i, model in enumerate(dict.fromkeys(row["model"] for row in measured)):
        of: dict[Any, list[float]] = {}
        for row in (row for row in measured if row["model"] == model):
            of.setdefault(row["severity"], []).append(100 * row["top1"])
            of.setdefault(row["corruption"], []).append(100 * row["top1"])
        severities = sorted(key for key in of if isinstance(key, int))
        label, look = plain(model), series(i)
        left.plot(severities, [float(np.mean(of[s])) for s in severities], label=label, markersize=4, **look)
        means = [float(np.mean(of[name])) for name in names]
        right.plot(means, range(len(names)), **{**look, "linestyle": "none"}, markersize=5)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set(xlabel="severity (0: images as they are)", ylabel="top-1, mean over corruptions (%)")
    right.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    right.invert_yaxis()
    right.set(xlabel="top-1, mean over severities (%)")
    add_legend(left)
    return figure


CORRUPTIONS = Measurement(
    "corruptions",
    _corruptions,
    _draw,
    "Accuracy on the corruptions of ImageNet-C and mean corruption error relative to the control (Hendrycks & "
    "Dietterich, ICLR 2019), as in the comparison on ImageNet-C of Wang et al., CVPR 2020, which divides by AlexNet's "
    "errors",
    needs="corrupt_tta",
)
