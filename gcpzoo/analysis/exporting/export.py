"""Export a model into one file that other runtimes read: weights, normalization, preprocessing and labels."""

from __future__ import annotations

import copy
import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcpzoo import __version__
from gcpzoo.analysis.exporting.agreement import Agreement, CheckImages, logits_of, onnx_network
from gcpzoo.data.transforms import output_size
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.heads.base import RootHead
from gcpzoo.models.class_labels import class_labels
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.paths import check_outputs, replacing

FORMATS = {"onnx": ".onnx", "torch_export": ".pt2"}
METADATA = "gcpzoo"
"""Key of ONNX's ``metadata_props``, and with ``.json`` the extra file of a ``.pt2``, that holds the metadata."""
INPUT, OUTPUT = "images", "logits"
LARGEST = 2 * 2**30 - 2**20
"""Bytes of weights in an ONNX file, whose format ends at 2 GiB."""
FAITHFUL = 1e-3
"""Largest difference of a probability between a network and its float32 export; rounding makes about 1e-6."""


class Deployed(nn.Module):
    """A network that takes bytes: uint8 images ``(B, 3, h, w)``, normalized inside, to float32 logits.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 3, until="layer1").eval()
    >>> Deployed(model)(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([1, 3])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: GCPNet) -> None:
        super().__init__()
        self.model = model
        known = model.preprocessing or Preprocessing()
        self.register_buffer("mean", torch.tensor(known.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(known.std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() / 255 - self.mean) / self.std
        logits: Tensor = self.model(x.to(next(self.model.parameters()).dtype))
        return logits.float()


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and how far it agrees with the model in PyTorch.

    Attributes:
        path: the file.
        size: in bytes.
        metadata: what the file says of itself, see :func:`describe`.
        agreement: with the model as it was loaded: its own root, float32.
        translation: with the same network in PyTorch, e.g. with the root that was put in; ``None`` for float16 and
            INT8, which only the runtime computes so.

    >>> Exported("net.onnx", 10, {}, Agreement(1, 0.0, 0.0, 1)).translation is None
    True
    """

    path: str
    size: int
    metadata: dict[str, Any]
    agreement: Agreement
    translation: Agreement | None = None


def export(
    model: GCPNet,
    path: str | Path,
    format: str = "onnx",
    check: CheckImages | None = None,
    root: str | None = None,
    half: bool = False,
    calibration: CheckImages | None = None,
) -> Exported:
    """Write a model for other runtimes, once the file has given the right answers on real images.

    The network in the file takes uint8 RGB images ``images`` ``(batch, 3, h, w)``, resized and cropped as its metadata
    says, and gives float32 ``logits`` ``(batch, classes)``. Batches may have any size, images one.

    Args:
        model: a loaded model; it is left as it is.
        path: the file, ``.onnx`` or ``.pt2``.
        format: ``onnx`` or ``torch_export`` (a program for ``torch.export.load``).
        check: images to compare on; ``None``: 64 handwritten digits.
        root: another root for a head that has one, such as ``minimax``, where ONNX has no operator for its own.
        half: store the weights and compute the backbone in float16. Covariance and root stay in float32.
        calibration: ONNX only: compute the backbone in INT8, with ranges from these images, see
            :func:`~gcpzoo.analysis.exporting.quantization.quantize`.

    Raises:
        ZooError: if the model cannot be exported so, or the file's answers are not the model's; nothing is written.

    >>> import tempfile, gcpzoo
    >>> model = gcpzoo.create_model("resnet18", "mpn_cov", 3, dim=4, until="layer1").eval()
    >>> model.preprocessing = Preprocessing(resize=(16, 16), crop=None)
    >>> file = Path(tempfile.mkdtemp(), "net.pt2")
    >>> export(model, file, "torch_export").agreement.same
    64
    """
    path = Path(path)
    _check_arguments(model, path, format, half, calibration)
    height, width = output_size(model.preprocessing or Preprocessing())
    network = _prepare(model, root, half)
    metadata = describe(network, "int8" if calibration else "float16" if half else "float32")
    check = check or CheckImages.digits(model)
    deployed = Deployed(network).eval()
    program = _trace(deployed, height, width)
    with replacing(path) as temporary, _quiet():
        if format == "onnx":
            _write_onnx(program, deployed, temporary, metadata, calibration)
            runtime = onnx_network(temporary)
        else:
            extra = {f"{METADATA}.json": json.dumps(metadata)}
            torch.export.save(program, temporary, extra_files=extra)
            runtime = torch.export.load(temporary).module()
        written = logits_of(runtime, check)
        agreement = Agreement.of(logits_of(Deployed(model).eval(), check), written, check.labels)
        translation = None
        if not half and calibration is None:
            same = agreement if root is None else Agreement.of(logits_of(deployed, check), written, check.labels)
            translation = same
            if same.probabilities > FAITHFUL:
                raise ZooError(
                    f"the exported network's probabilities differ by up to {same.probabilities:.2g} from the model's, "
                    "nothing is written; " + _other_format(format)
                )
    return Exported(str(path), path.stat().st_size, metadata, agreement, translation)


def describe(model: GCPNet, precision: str = "float32") -> dict[str, Any]:
    """Give what a caller must know, as plain JSON values: input, preprocessing, classes, and where the model is from.

    >>> import gcpzoo
    >>> about = describe(gcpzoo.load("resnet18_isqrt.digits"))
    >>> about["input"]["shape"], about["classes"][:3], about["licence"]
    (['batch', 3, 32, 32], ['0', '1', '2'], 'Apache-2.0')
    """
    known = model.preprocessing or Preprocessing()
    names, descriptions = class_labels(model)
    record = model.record
    return {
        "format": 1,
        "model": record.name if record else f"{model.config['backbone']}_{model.config['head']}",
        "licence": record.licence if record else "none stated",
        "gcpzoo": __version__,
        "head": model.config["head"],
        "root": getattr(model.head, "root", None),
        "precision": precision,
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": ["batch", 3, *output_size(known)],
            "channels": "RGB",
            "normalization": "inside the network: (image / 255 - mean) / std",
        },
        "preprocessing": {**known.to_dict(), "steps": _steps(known)},
        "output": {"name": OUTPUT, "shape": ["batch", model.num_classes], "probabilities": "softmax over the classes"},
        "classes": names,
        "descriptions": descriptions,
    }


def _steps(known: Preprocessing) -> list[str]:
    """Say in words what the caller does to an image."""
    steps = ["turn it upright by its EXIF orientation, convert it to RGB: transparent pixels white, upper 8 of 16 bits"]
    way = f"{known.interpolation}, with antialiasing, as Pillow's Image.resize"
    if isinstance(known.resize, tuple):
        steps.append(f"resize it to {known.resize[0]} rows and {known.resize[1]} columns, {way}")
    elif known.resize is not None:
        steps.append(f"resize its shorter side to {known.resize}, the longer one in proportion, rounded down, {way}")
    if known.crop is not None:
        steps.append(f"crop the {known.crop}×{known.crop} center; black borders where the image is smaller")
    return [*steps, "give it as uint8, channels first; do not scale or normalize"]


def _check_arguments(model: GCPNet, path: Path, format: str, half: bool, calibration: CheckImages | None) -> None:
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if path.suffix != FORMATS[format]:
        raise ZooError(f"output must end in {FORMATS[format]} for {format}, got {str(path)!r}")
    check_outputs([path])
    if model.head.frames > 1:
        raise ZooError(f"a model of single images can be exported; {model.head.name} reads {model.head.frames} frames")
    if calibration is not None and format != "onnx":
        raise ZooError("INT8 is an option of the format onnx; leave it out, or give --format onnx")
    if calibration is not None and half:
        raise ZooError("float16 and INT8 exclude each other; give one of them")
    if format == "onnx":
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401

        size = sum(p.numel() * (2 if half else p.element_size()) for p in model.parameters())
        if size > LARGEST:
            raise ZooError(f"an ONNX file holds up to 2 GiB, the weights take {size / 2**30:.1f}: use torch_export")


def _prepare(model: GCPNet, root: str | None, half: bool) -> GCPNet:
    """Copy the network, with the other root and in the other precision."""
    network = copy.deepcopy(model).eval().requires_grad_(False)
    if root is not None:
        if not isinstance(network.head, RootHead):
            raise ZooError(f"head {model.config['head']!r} has no root to exchange; leave --root out")
        network.head.switch_root(root)
    if half:
        network.half()
        if lost := [name for name, value in network.state_dict().items() if not value.isfinite().all()]:
            raise ZooError(f"float16 cannot hold the values of {lost[0]}: export in float32")
    return network


def _trace(deployed: Deployed, height: int, width: int) -> Any:
    example = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    batch = {INPUT: {0: torch.export.Dim("batch")}}
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(deployed, (example,), dynamic_shapes=batch)
    except ZooError:
        raise
    except Exception as error:
        raise ZooError(f"torch.export cannot record this network: {_innermost(error)}") from error


def _write_onnx(
    program: Any, deployed: Deployed, path: Path, metadata: dict[str, Any], calibration: CheckImages | None
) -> None:
    import onnx

    try:
        exported: Any = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    except torch.onnx.OnnxExporterError as error:
        raise _no_operator(deployed.model, error) from error
    proto = exported.model_proto
    symbol = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == symbol:
                dimension.dim_param = "batch"
    if calibration is not None:
        from gcpzoo.analysis.exporting.quantization import quantize

        proto = quantize(proto, deployed.model, calibration)
    proto.producer_name, proto.producer_version = "gcpzoo", __version__
    proto.doc_string = "\n".join(f"{i}. {step}" for i, step in enumerate(metadata["preprocessing"]["steps"], 1))
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(metadata, ensure_ascii=False)})
    onnx.save(proto, path)


def _no_operator(model: GCPNet, error: Exception) -> ZooError:
    """Say which operation ONNX lacks, and what works instead."""
    head = model.config["head"]
    remedies = ["--format torch_export"]
    root = getattr(model.head, "root", "minimax")
    if root != "minimax":
        try:
            copy.deepcopy(model.head).switch_root("minimax")  # type: ignore[operator]
            remedies.insert(0, "--root minimax (a root of matrix products; the difference is measured and printed)")
        except ZooError:
            pass
    reason = _innermost(error)
    if lacking := re.search(r"No ONNX function found for .*?op='([\w.]+)'", reason):
        reason = f"it has no operator for {lacking[1]}"
    works = ", or ".join(remedies)
    return ZooError(f"a model with the head {head!r} cannot become ONNX: {reason}; what works: {works}")


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition(" Failure message")[0].splitlines()[0][:300].rstrip(".")


def _other_format(format: str) -> str:
    return "--format torch_export may" if format == "onnx" else "--format onnx may"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own messages, which a user can do nothing about, off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
