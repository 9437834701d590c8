"""Weights of other programs into our format: one small file a source, a table of renames plus what is special."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gcpzoo.errors import ZooError, unknown_name

if TYPE_CHECKING:
    from gcpzoo.hub.records import Record
    from gcpzoo.models.gcpnet import GCPNet

SOURCES = ("differentiable_svd", "dropcov", "fast_mpn_cov", "gcp_optimization", "gsop", "pytorchcv")
TRIANGLES = ("auto", "upper", "lower")


def convert(
    file: str | os.PathLike[str],
    source: str,
    arch: str,
    output: str | os.PathLike[str],
    triangle: str = "auto",
    record: Record | None = None,
) -> GCPNet:
    """Convert the authors' weights and write them as a folder that ``gcpzoo.load`` takes.

    Sizes, classes and the kind of the network are read from the tensors' names and shapes. The file is read without
    running anything in it (``weights_only=True``).

    Args:
        file: the authors' file (``.pth``, ``.pth.tar``, ``.safetensors``), with or without its wrapping in
            ``state_dict`` and ``DataParallel``.
        source: the authors' repository, one of ``SOURCES``.
        arch: their own name of the model, e.g. ``mpncovresnet50``, ``resnet50_ACD``, ``resnet18_mpncov``.
        output: the folder to write.
        triangle: order of the classifier's columns: ``upper`` (row by row), ``lower`` (files of fast-MPN-COV from
            before December 2018), or ``auto``: lower for the file known to be so, else upper.
        record: what is known of the file, kept beside the weights.

    Returns:
        The converted network, in eval mode.

    Raises:
        ZooError: unknown source or architecture, a file that cannot be read or does not fit the architecture.
    """
    if source not in SOURCES:
        raise unknown_name("source", source, SOURCES)
    if triangle not in TRIANGLES:
        raise unknown_name("order of the triangle", triangle, TRIANGLES)
    from gcpzoo.hub.convert.common import assemble, read_tensors, transpose_triangle
    from gcpzoo.hub.files import save_folder, sha256
    from gcpzoo.hub.load import class_names, imagenet_names
    from gcpzoo.models.preprocessing import Preprocessing

    file = Path(file)
    tensors = read_tensors(file)
    module = importlib.import_module(f"gcpzoo.hub.convert.{source}")
    config, state = module.convert(tensors, arch)
    digest = sha256(file)
    known_lower = digest.startswith(tuple(getattr(module, "LOWER", ("none",))))
    if triangle == "lower" or (triangle == "auto" and known_lower):
        transpose_triangle(config, state)
    model = assemble(config, state, f"{file} ({arch} of {source})")
    model.class_names = imagenet_names() if config["num_classes"] == 1000 else None
    about: dict[str, object] = {"provenance": f"converted from {file.name} ({arch} of {source}), sha256 {digest}"}
    if record:
        model.preprocessing = Preprocessing.from_dict(record.preprocessing)
        model.class_names = class_names(record)
        about = {**record.about(), "provenance": f"{record.provenance}; {about['provenance']}"}
    model.record = None
    try:
        save_folder(model, Path(output), about)
    except OSError as error:
        raise ZooError(f"{output} cannot be written: {error}") from error
    return model
