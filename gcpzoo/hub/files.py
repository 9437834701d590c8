"""The format of a checkpoint: a folder with ``config.json`` and ``model.safetensors``; nothing in it is executed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from gcpzoo import __version__
from gcpzoo.data.classes import check_class_names, class_descriptions, class_ids, imagenet_classes
from gcpzoo.errors import ZooError, is_control, short
from gcpzoo.hub.records import Record, describe
from gcpzoo.limits import read_json
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.models.weights import Shapes, misfit, open_file
from gcpzoo.paths import current, replacing_together, write_text

CONFIG, WEIGHTS, FORMAT = "config.json", "model.safetensors", 1
SHA256 = re.compile(r"[0-9a-f]{64}")


class DamagedError(ZooError):
    """A file is not what its publisher wrote; fetching it again may help.

    >>> raise DamagedError("model.safetensors is damaged")
    Traceback (most recent call last):
    gcpzoo.hub.files.DamagedError: model.safetensors is damaged
    """


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, as 64 hex digits.

    >>> from gcpzoo.hub.records import get_record, weights_file
    >>> record = get_record("resnet18_isqrt.digits")
    >>> sha256(weights_file(record)) == record.sha256
    True
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_local(
    model: GCPNet,
    folder: str | os.PathLike[str],
    about: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Write ``model`` into ``folder`` as ``config.json`` and ``model.safetensors``, for ``gcpzoo.load(folder)``.

    Args:
        model: the network, with its ``class_names`` and ``preprocessing``.
        folder: created if missing; files of these two names are replaced, both or none.
        about: more to keep, in the fields of a :class:`~gcpzoo.hub.Record`: ``licence``, ``metrics``, ``data`` …;
            by default what the model's own record says.
        dtype: type of the stored floating-point tensors, e.g. ``torch.float16``; loading gives float32 again.

    Returns:
        The SHA-256 of ``model.safetensors``, which ``config.json`` holds too.

    Raises:
        ZooError: if the folder cannot be written, e.g. because the disk is full; what was there before is kept.

    >>> import tempfile, gcpzoo
    >>> model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     digest = save_local(model, folder, {"licence": "MIT"})
    ...     gcpzoo.load(folder).record.licence
    'MIT'
    """
    tensors = {}
    for key, value in model.state_dict().items():
        kind = dtype if dtype and value.is_floating_point() else value.dtype
        tensors[key] = value.detach().to("cpu", kind, copy=True).contiguous()
    if about is None and isinstance(model.record, Record):
        about = model.record.about()
    content = save(tensors, {"format": "pt"})  # safetensors' own writing would not say that the disk is full
    digest = hashlib.sha256(content).hexdigest()
    with replacing_together(Path(folder)) as temporary:
        (temporary / WEIGHTS).write_bytes(content)
        write_config(model, temporary, digest, about)
    return digest


def write_config(model: GCPNet, folder: Path, digest: str, about: Mapping[str, Any] | None = None) -> None:
    """Write the ``config.json`` of ``model``, whose weights have the SHA-256 ``digest``.

    >>> import tempfile, gcpzoo
    >>> model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_config(model, Path(folder), "0" * 64)
    ...     read_config(Path(folder, "config.json"), "here")["architecture"]
    'resnet18_gap'
    """
    config = {
        "library": "gcpzoo",
        "library_version": __version__,
        "format_version": FORMAT,
        "architecture": f"{model.config['backbone']}_{model.config['head']}",
        "model": model.config,
        "class_names": model.class_names,
        "class_descriptions": model.class_descriptions,
        "preprocessing": (model.preprocessing or Preprocessing()).to_dict(),
        "weights_sha256": digest,
    }
    if about:
        config["about"] = dict(about)
        describe(config, "about", {})  # refuses what could not be read again
    write_text(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def read_config(path: Path, where: str) -> dict[str, Any]:
    """Read and check a ``config.json``; ``where`` names its origin in errors.

    Raises:
        DamagedError: if it is not UTF-8 or not JSON.
        ZooError: if it is too large, of another library or of a newer format, or lacks what a model needs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "config.json")
    ...     _ = path.write_text('{"model_type": "bert"}')
    ...     read_config(path, "owner/bert")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: owner/bert is not a gcpzoo model: its config.json is of another library
    """
    try:
        config = read_json(path, f"{where}: config.json")
    except ZooError:
        raise
    except UnicodeDecodeError as error:
        raise DamagedError(f"{where}: config.json must be UTF-8 text ({error.reason}); {path} is damaged") from None
    except ValueError:
        raise DamagedError(f"{where}: config.json is not JSON; {path} is damaged or of another kind") from None
    if not isinstance(config, dict) or config.get("library") != "gcpzoo" or not isinstance(config.get("model"), dict):
        raise ZooError(f"{where} is not a gcpzoo model: its config.json is of another library")
    version = config.get("format_version")
    if not isinstance(version, int) or version > FORMAT:
        raise ZooError(
            f"{where} is in format {version} (written by gcpzoo {config.get('library_version')}), this is gcpzoo "
            f"{__version__} and reads up to {FORMAT}: pip install -U gcpzoo"
        )
    for key in ("backbone", "head", "num_classes"):
        if key not in config["model"]:
            raise ZooError(f"{where}: config.json lacks {key!r} in 'model'")
    digest = config.get("weights_sha256")
    if digest is not None and not (isinstance(digest, str) and SHA256.fullmatch(digest)):
        raise ZooError(f"{where}: weights_sha256 must be 64 hex digits, got {digest!r}")
    describe(config, where, {})  # refuses wrong types in its "about"
    return config


def build(config: Mapping[str, Any], weights: Path, digest: str | None, where: str) -> GCPNet:
    """Build the network of a ``config.json`` with the tensors of ``weights``, in eval mode and float32.

    The names and shapes of the tensors are compared with the configuration before anything of that size is allocated.

    Args:
        config: ``model``, ``class_names``, ``class_descriptions`` and ``preprocessing``.
        weights: a safetensors file.
        digest: its SHA-256; ``None``: not checked.
        where: origin of the files, named in errors.

    Raises:
        ZooError: if the hash differs, the file is not safetensors, or its tensors do not fit the configuration.

    >>> from gcpzoo.hub.records import get_record, weights_file
    >>> record = get_record("resnet18_isqrt.digits")
    >>> build({"model": record.config}, weights_file(record), record.sha256, "here").num_classes
    10
    """
    if digest and (found := sha256(weights)) != digest:
        raise DamagedError(f"{where}: {weights} is damaged: its sha256 is {found[:12]}…, expected {digest[:12]}…")
    try:
        with safe_open(weights, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        kind = DamagedError if digest is None else ZooError
        raise kind(
            f"{where}: {weights} is not an intact safetensors file ({error}); pickled weights are never loaded, "
            "convert them with 'gcpzoo convert'"
        ) from None
    check_fit(config["model"], shapes, where)
    try:
        with torch.random.fork_rng(devices=[]):
            model = GCPNet.from_config(config["model"])
        model.load_state_dict(open_file(weights))
    except (RuntimeError, TypeError, KeyError, AttributeError, MemoryError) as error:
        raise ZooError(f"{where}: its tensors do not fit its configuration: {short(error)}") from error
    set_classes(model, config.get("class_names"), config.get("class_descriptions"), where)
    if not isinstance(config.get("preprocessing") or {}, dict):
        raise ZooError(f"{where}: preprocessing must be a mapping, got {config['preprocessing']!r}")
    model.preprocessing = Preprocessing.from_dict(config.get("preprocessing") or {})
    return model.eval()


def set_classes(model: GCPNet, names: Any, descriptions: Any = None, where: str = "the model") -> None:
    """Set the ids and descriptions of a model's classes, checked.

    Args:
        model: receives ``class_names`` and ``class_descriptions``.
        names: a list of ids, ``imagenet1k`` for its 1000 wnids, or ``None`` if not known. The names that checkpoints
            of version 0.1 carry for ImageNet become wnids.
        descriptions: what people read, one for each class; by default ImageNet's words for wnids, else the ids.
        where: origin of the names, named in errors.

    Raises:
        ZooError: if there are not as many printable strings as classes, or an id is empty or given twice.

    >>> import gcpzoo
    >>> model = gcpzoo.create_model("resnet18", "gap", until="layer1")
    >>> set_classes(model, "imagenet1k")
    >>> model.class_names[0], model.class_descriptions[0]
    ('n01440764', 'tench, Tinca tinca')
    """
    if names == "imagenet1k":
        names = list(imagenet_classes())
    count = model.config["num_classes"]
    for field, values in (("class_names", names), ("class_descriptions", descriptions)):
        if values is None:
            continue
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values) or len(values) != count:
            raise ZooError(f"{where}: {field} must be {count} strings, one for each class")
    if names is not None:
        names = class_ids(names)  # first, as torchvision's words for ImageNet repeat some
        check_class_names(names, where)
    for text in descriptions or []:
        if any(map(is_control, text)):
            raise ZooError(f"{where}: class_descriptions must not contain control characters, got {text!r}")
    model.class_names = names
    model.class_descriptions = descriptions
    if descriptions is None and model.class_names is not None:
        model.class_descriptions = class_descriptions(model.class_names)


def read_folder(folder: Path, where: str | None = None) -> tuple[GCPNet, dict[str, Any]]:
    """Read a checkpoint's folder.

    Args:
        folder: holds ``config.json`` and ``model.safetensors``.
        where: name of the checkpoint in errors; by default the folder.

    Returns:
        The network, and the content of ``config.json``.

    Raises:
        ZooError: if a file is missing, damaged, or does not fit.

    >>> import tempfile, gcpzoo
    >>> model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_local(model, folder)
    ...     again, config = read_folder(Path(folder))
    >>> config["library"], again.num_classes
    ('gcpzoo', 2)
    """
    where = where or str(folder)
    for name in (CONFIG, WEIGHTS):
        if not current(folder, name).is_file():
            raise ZooError(
                f"{where} is not a gcpzoo checkpoint: {name} is missing (expected config.json and model.safetensors; "
                "a run's last.ckpt loads by its own path, foreign weights through 'gcpzoo convert')"
            )
    config = read_config(current(folder, CONFIG), where)
    return build(config, current(folder, WEIGHTS), config.get("weights_sha256"), where), config


def check_fit(model_config: Mapping[str, Any], shapes: Shapes, where: str) -> None:
    """Compare a file's tensors strictly with those of a configuration, built on the meta device: nothing is allocated.

    Raises:
        ZooError: if the configuration cannot work or exceeds a limit, or a tensor is missing, unexpected or misshapen.

    >>> check_fit({"backbone": "resnet18", "head": "gap", "until": "layer1", "num_classes": 3}, {}, "w.ckpt")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: w.ckpt: its tensors do not fit its configuration: ... missing, ...
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            expected = {k: tuple(v.shape) for k, v in GCPNet.from_config(model_config).state_dict().items()}
    except ZooError as error:
        raise ZooError(f"{where}: {error}") from None
    except (TypeError, AttributeError, KeyError, ValueError, OverflowError, RuntimeError, AssertionError) as error:
        raise ZooError(f"{where}: its configuration is not valid: {short(error)}") from error
    if wrong := misfit(expected, shapes):
        raise ZooError(f"{where}: its tensors do not fit its configuration: {wrong}")
