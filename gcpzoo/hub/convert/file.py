"""One file of an author's weights to a folder in our format."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gcpzoo.errors import unknown_name
from gcpzoo.hub.convert import SOURCES, TRIANGLES
from gcpzoo.hub.records import Record

if TYPE_CHECKING:
    from gcpzoo.models.gcpnet import GCPNet


def convert(
    file: str | os.PathLike[str],
    source: str,
    arch: str,
    output: str | os.PathLike[str],
    triangle: str = "auto",
    record: Record | None = None,
) -> GCPNet:
    """Convert the authors' weights and write them as a folder that :func:`gcpzoo.load` takes.

    Sizes, classes and the kind of the network are read from the names and shapes of the tensors. Nothing in the file
    is executed.

    Args:
        file: the authors' file (``.pth``, ``.pth.tar``, ``.safetensors``), with or without its wrapping in
            ``state_dict`` and ``DataParallel``.
        source: the authors' repository, one of ``gcpzoo.hub.convert.SOURCES``.
        arch: their own name of the model, e.g. ``mpncovresnet50``, ``resnet50_ACD``, ``resnet18_mpncov``.
        output: the folder to write.
        triangle: order of the classifier's columns: ``upper`` (row by row), ``lower`` (files of fast-MPN-COV from
            before December 2018), or ``auto``: lower for the file known to be so, else upper.
        record: what is known of the file, kept beside the weights.

    Returns:
        The converted network, in eval mode.

    Raises:
        ZooError: for an unknown source or architecture, and a file that cannot be read or does not fit.

    >>> import tempfile, torch, torchvision
    >>> theirs = torchvision.models.resnet18(num_classes=5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(theirs.state_dict(), f"{folder}/resnet18.pth")
    ...     model = convert(f"{folder}/resnet18.pth", "gcp_optimization", "resnet18", f"{folder}/converted")
    >>> model.config["head"], model.num_classes
    ('gap', 5)
    """
    from gcpzoo.hub.convert.common import assemble, read_tensors, transpose_triangle
    from gcpzoo.hub.files import save_local, set_classes, sha256
    from gcpzoo.models.preprocessing import Preprocessing

    if source not in SOURCES:
        raise unknown_name("source", source, SOURCES)
    if triangle not in TRIANGLES:
        raise unknown_name("order of the triangle", triangle, TRIANGLES)
    file = Path(file)
    converter = importlib.import_module(f"gcpzoo.hub.convert.{source}")
    config, state = converter.convert(read_tensors(file), arch)
    digest = sha256(file)
    known_lower = digest.startswith(tuple(getattr(converter, "LOWER", ("none",))))
    if triangle == "lower" or (triangle == "auto" and known_lower):
        transpose_triangle(config, state)
    model = assemble(config, state, f"{file} ({arch} of {source})")
    about: dict[str, object] = {"provenance": f"converted from {file.name} ({arch} of {source}), sha256 {digest}"}
    if record:
        model.preprocessing = Preprocessing.from_dict(record.preprocessing)
        about = {**record.about(), "provenance": f"{record.provenance}; {about['provenance']}"}
    names = "imagenet1k" if config["num_classes"] == 1000 else None
    set_classes(model, record.class_names if record else names, where=f"{file}")
    model.record = None
    save_local(model, output, about)
    return model
