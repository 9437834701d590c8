"""INT8 where it is safe: the layers of the backbone, not the covariance that follows."""

from __future__ import annotations

import ast
from typing import Any

from gcpzoo.analysis.exporting.agreement import CheckImages
from gcpzoo.errors import ZooError
from gcpzoo.models.gcpnet import GCPNet

LAYERS = ("Conv", "Gemm", "MatMul")
CALIBRATION = 512
"""Images that the ranges are taken from; more change little."""
PLACES = ("model.backbone", "model.head.reduction")


def quantize(proto: Any, model: GCPNet, images: CheckImages) -> Any:
    """Compute the backbone's layers in INT8: weights by channel, activations in the ranges seen on ``images``.

    Weights take 7 bits: sums of two products of 8 bits overflow on x86 processors without VNNI.

    Only layers with weights, in the backbone and in the head's reduction, are quantized. From the covariance on
    everything stays in float32: its eigenvalues span orders of magnitude, while INT8 keeps 1/256 of the largest entry;
    the small ones, which a matrix root exists to raise, would be rounding noise. The same holds for parts inserted into
    the backbone that compute a covariance, and for the classifier, which reads the root's entries.

    Args:
        proto: the float32 network, as ``torch.onnx.export`` writes it.
        model: the network it was made of.
        images: typical images for the ranges; of more than 512, so many at equal distances are taken.

    Returns:
        The network with INT8 layers, in ONNX's format of quantize and dequantize nodes.

    Raises:
        ZooError: if there is no layer to quantize.

    >>> import onnx
    >>> from gcpzoo.models import create_model
    >>> empty = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    >>> model = create_model("resnet18", "gap", 3, until="layer1")
    >>> quantize(empty, model, CheckImages.digits(model))
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: there is no layer of the backbone that INT8 could compute
    """
    import tempfile
    from pathlib import Path

    import onnx

    nodes = quantizable(proto, model)
    if not nodes:
        raise ZooError("there is no layer of the backbone that INT8 could compute")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(proto, before)
        quantize_static(
            before,
            after,
            _Reader(images.at_most(CALIBRATION), proto.graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_quantize=nodes,
        )
        return onnx.load(after)


def quantizable(proto: Any, model: GCPNet) -> list[str]:
    """Name the nodes that INT8 may compute.

    >>> import onnx
    >>> from gcpzoo.models import create_model
    >>> proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    >>> quantizable(proto, create_model("resnet18", "gap", 3, until="layer1"))
    []
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    inserted = {f"model.{k}" for k, m in model.named_modules() if type(m).__module__.startswith("gcpzoo.blocks")}
    found = []
    for node in proto.graph.node:
        places = _places(node)
        inside = any(place == p or place.startswith(f"{p}.") for p in PLACES for place in places)
        if node.op_type in LAYERS and inside and not inserted & places and weights & set(node.input[1:2]):
            found.append(node.name)
    return found


def _places(node: Any) -> set[str]:
    """Names of the modules that a node belongs to, the outer ones too."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            return set(ast.literal_eval(entry.value))
    return set()


class _Reader:
    """What onnxruntime asks for images."""

    def __init__(self, images: CheckImages, name: str) -> None:
        self.batches, self.name = images.batches(), name

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch.numpy()}
