"""What the models of the zoo say of an image, one beside its control: the answers of the web page, without the page."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from gcpzoo.analysis.explanations.explain import Explanation, explain_image, find_class
from gcpzoo.analysis.over_images import logits, over_images
from gcpzoo.data.images import ImageError, read_image, upload_formats
from gcpzoo.errors import ZooError
from gcpzoo.hub.loading import load
from gcpzoo.hub.records import IN_PACKAGE, Record, get_record, list_models, weights_file
from gcpzoo.models.fingerprint import fingerprint
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.serve.engine import served_pixels
from gcpzoo.serve.predictor import ClassScore, Predictor

if TYPE_CHECKING:
    from gcpzoo.analysis.embeddings import Embeddings

KEPT = 4
"""Models that stay in memory."""
TOP = 5
WITHOUT_GRAD_CAM = "Without Grad-CAM, which needs the extra 'explain': pip install 'gcpzoo[explain]'"


@dataclass(frozen=True)
class Opinion:
    """What one model says of an image.

    Attributes:
        model: its name.
        about: its head, accuracy and verification, in a line.
        scores: the likeliest classes.
        explanation: what speaks for the explained class.

    >>> import torch
    >>> seven = Explanation(torch.zeros(3, 2, 2), 7, "7", 0.9, ("7", 0.9))
    >>> Opinion("resnet18_isqrt.digits", "head isqrt", (ClassScore("7", "7", 0.9),), seven).explanation.description
    '7'
    """

    model: str
    about: str
    scores: tuple[ClassScore, ...]
    explanation: Explanation


@dataclass(frozen=True)
class Neighbor:
    """A training image near to the one that was asked about; without ``image`` where it cannot be read any more.

    >>> Neighbor("train/7/12.png", 0.98, "7").cosine
    0.98
    """

    path: str
    cosine: float
    label: str | None = None
    image: Image.Image | None = None


@dataclass(frozen=True)
class Look:
    """All that the page shows of an image: the model's opinion first, then its control's; neighbors; remarks.

    >>> Look("digit.png", ()).neighbors
    ()
    """

    name: str
    opinions: tuple[Opinion, ...]
    neighbors: tuple[Neighbor, ...] = ()
    remarks: tuple[str, ...] = field(default=())


class Viewer:
    """The models to choose from, those in use in memory; one image at a time, whoever asks.

    Args:
        model: the first choice, what :func:`gcpzoo.load` takes; null: the embedded models only, and the others to load.
        control: a model to show beside ``model``; null: the one that its record names, where that can be loaded.
        embeddings: file of ``gcpzoo embed`` with vectors of training images; its model is the first choice unless
            ``model`` says another.

    Raises:
        ZooError: if a model or the file cannot be read.

    >>> viewer = Viewer()
    >>> viewer.choices[0]
    ('mobilenet_v2_isqrt.grocery81', 'mobilenet_v2_isqrt.grocery81')
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        control: str | os.PathLike[str] | None = None,
        embeddings: str | os.PathLike[str] | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, Predictor] = OrderedDict()
        self.embeddings = _read(embeddings)
        first = model or (None if self.embeddings is None else self.embeddings.about.get("model"))
        if control is not None and first is None:
            raise ZooError("a control needs the model that it belongs to: give model too")
        self.first = None if first is None else os.fspath(first)
        self.control = None if control is None else os.fspath(control)
        self.choices = list(_choices(self.first))
        for name in (self.first, self.control):
            if name is not None:
                self._predictor(name)  # a wrong name is an error now
        if self.embeddings is not None and self.first is not None:
            from gcpzoo.analysis.retrieval import check_model

            check_model(self.embeddings, self._predictor(self.first).model, self.first)

    def control_of(self, model: str) -> str | None:
        """Name the GAP control of a model, if it can be loaded.

        >>> Viewer().control_of("mobilenet_v2_isqrt.in1k_wang2020_lradju")
        'mobilenet_v2_gap.in1k_wang2020_lradju'
        """
        if model == self.first and self.control is not None:
            return self.control
        record = get_record(model) if model in list_models() else self._predictor(model).model.record
        name = ((record and record.control) or {}).get("record")
        return name if name in list_models() and _can_be_loaded(get_record(name)) else None

    def is_here(self, model: str) -> bool:
        """Say whether a model needs no download.

        >>> Viewer().is_here("resnet18_isqrt.digits")
        True
        """
        return model in self._loaded or (model in list_models() and get_record(model).kind == "embedded")

    def reads_digits(self, model: str) -> bool:
        """Say whether a model in memory has the ten digits as its classes.

        >>> Viewer("resnet18_isqrt.digits").reads_digits("resnet18_isqrt.digits")
        True
        """
        predictor = self._loaded.get(model)
        return predictor is not None and sorted(predictor.descriptions) == list("0123456789")

    def look(
        self, path: str | os.PathLike[str], model: str, label: str | None = None, beside_control: bool = False
    ) -> Look:
        """Ask a model about an image file.

        Args:
            path: the file.
            model: one of ``choices``.
            label: id of the class to explain; null: the likeliest.
            beside_control: ask the model's control too, about the same class.

        Raises:
            ZooError: if the image or a model cannot be read; the message names the file without its folder.

        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "grey.png"
        >>> Image.new("L", (8, 8), 128).save(file)
        >>> [opinion.model for opinion in Viewer().look(file, "resnet18_isqrt.digits").opinions]
        ['resnet18_isqrt.digits']
        """
        name = Path(path).name
        try:
            image = read_image(os.fspath(path), upload_formats())
        except ImageError as error:
            raise ImageError(str(error).replace(os.fspath(path), name)) from None
        remarks = [] if find_spec("pytorch_grad_cam") else [WITHOUT_GRAD_CAM]
        with self._lock:
            opinions = [self._ask(model, name, image, label)]
            control = self.control_of(model) if beside_control else None
            if control is not None:
                asked = label or self._predictor(model).names[opinions[0].explanation.label]
                opinions.append(self._ask(control, name, image, asked, strict=False))
            neighbors, remark = self._neighbors(image, model)
        return Look(name, tuple(opinions), tuple(neighbors), (*remarks, *([remark] if remark else [])))

    def _ask(self, name: str, file: str, image: Image.Image, label: str | None, strict: bool = True) -> Opinion:
        predictor = self._predictor(name)
        model = predictor.model
        rule = model.preprocessing or Preprocessing()
        served_pixels(rule, rule.pixels(), image, file)
        try:
            number = None if label is None else find_class(model, label)
        except ZooError:
            if strict:
                raise
            number = None  # the control knows other classes: its own likeliest
        methods = ("grad_cam", "second_order") if find_spec("pytorch_grad_cam") else ("second_order",)
        (outputs,) = over_images(model, logits, [image], read=lambda image: image, workers=0)
        (scores,) = predictor.classes(outputs.values[0][None])
        return Opinion(name, _about(model), scores, explain_image(model, image, number, methods))

    def _predictor(self, name: str) -> Predictor:
        """Keep the models that were asked last in memory, and load others."""
        if name not in self._loaded:
            self._loaded[name] = Predictor(load(name), TOP)
        self._loaded.move_to_end(name)
        others = [other for other in self._loaded if other not in (name, self.first, self.control)]
        for other in others[: max(0, len(self._loaded) - KEPT)]:
            del self._loaded[other]
        return self._loaded[name]

    def _neighbors(self, image: Image.Image, name: str) -> tuple[list[Neighbor], str | None]:
        """Find the nearest images among the embeddings, or say why there are none."""
        if self.embeddings is None:
            return [], None
        from gcpzoo.analysis.retrieval import nearest, query_vector

        found, network = self.embeddings, self._predictor(name).model
        if fingerprint(network) != found.about.get("fingerprint"):
            made = found.about.get("model") or "another model"
            return [], f"No nearest training images: the embeddings were made with {made}."
        query = query_vector(found, image, network)
        neighbors = []
        for i, cosine in zip(*(values[0].tolist() for values in nearest(found, query, TOP))):
            label = None if found.labels is None else found.class_names[int(found.labels[i])]
            near: Image.Image | None
            try:
                near = read_image(found.paths[i])
                near.thumbnail((192, 192))
            except ImageError:
                near = None
            neighbors.append(Neighbor(found.paths[i], cosine, label, near))
        return neighbors, None


def _read(file: str | os.PathLike[str] | None) -> Embeddings | None:
    if file is None:
        return None
    from gcpzoo.analysis.embeddings import Embeddings

    return Embeddings.read(file)


def _choices(first: str | None) -> Iterator[tuple[str, str]]:
    """Label the models: the given one, those in the package, others in the repository, those to download."""
    records = {name: get_record(name) for name in list_models()}
    if first is not None and first not in records:
        yield first, first
    loadable = sorted(
        filter(_can_be_loaded, records.values()),
        key=lambda r: (r.name != first, r.kind != "embedded", r.name not in IN_PACKAGE, r.name),
    )
    for record in loadable:
        size = f" of {record.size / 1e6:.0f} MB" if record.size else ""
        yield record.name if record.kind == "embedded" else f"{record.name} (a download{size})", record.name


def _can_be_loaded(record: Record) -> bool:
    """Whether a model can be had here: an installed package carries some of the embedded ones only."""
    if record.kind != "embedded":
        return not record.unsupported
    try:
        return weights_file(record).is_file()
    except ZooError:
        return False


def _about(model: GCPNet) -> str:
    """Say what a model is, in a line."""
    record = model.record
    parts = [f"head {model.config['head']}"]
    if record is not None and "top1" in record.metrics:
        parts.append(f"top-1 {record.metrics['top1']:.2f} %")
        if "top1" in (record.control or {}):
            parts.append(f"its GAP control {record.control['top1']:.2f} %")
    if record is not None and record.kind != "local":
        parts.append(record.status)
    return " · ".join(parts)
