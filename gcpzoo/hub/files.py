"""The format of a checkpoint: a folder with ``config.json`` and ``model.safetensors``, and nothing that is executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from gcpzoo import __version__
from gcpzoo.errors import ZooError
from gcpzoo.models.backbones import FILES
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing

CONFIG, WEIGHTS, FORMAT = "config.json", "model.safetensors", 1
LIMIT = 32 * 2**20  # bytes of a config.json that are read


class DamagedError(ZooError):
    """A file is not what its publisher wrote; fetching it again may mend it."""


def short(error: BaseException) -> str:
    """An error's text on one line of moderate length."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_folder(
    model: GCPNet, folder: Path, about: Mapping[str, Any] | None = None, dtype: torch.dtype | None = None
) -> str:
    """Write ``model`` as ``config.json`` and ``model.safetensors`` into ``folder``.

    Args:
        model: the network with its ``class_names`` and ``preprocessing``.
        folder: made where it is missing; files of these two names are replaced.
        about: what else is known (fields of a record: licence, metrics, …), kept in ``config.json``.
        dtype: store floating tensors so, e.g. ``torch.float16``; loading gives float32 again.

    Returns:
        The SHA-256 of ``model.safetensors``, which ``config.json`` holds too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for key, value in model.state_dict().items():
        kind = dtype if dtype and value.is_floating_point() else value.dtype
        tensors[key] = value.detach().to("cpu", kind, copy=True).contiguous()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    digest = sha256(folder / WEIGHTS)
    config = {
        "library": "gcpzoo",
        "library_version": __version__,
        "format_version": FORMAT,
        "architecture": f"{model.config['backbone']}_{model.config['head']}",
        "model": model.config,
        "class_names": model.class_names,
        "preprocessing": (model.preprocessing or Preprocessing()).to_dict(),
        "weights_sha256": digest,
    }
    if about:
        config["about"] = dict(about)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors writes for the owner alone
    return digest


def read_config(path: Path, where: str) -> dict[str, Any]:
    """The checked ``config.json``; ``where`` names its origin in errors."""
    if path.stat().st_size > LIMIT:
        raise ZooError(f"{where}: config.json is larger than {LIMIT >> 20} MiB, which no model needs")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise DamagedError(f"{where}: config.json is not JSON; {path} is damaged or of another kind") from None
    if not isinstance(config, dict) or config.get("library") != "gcpzoo" or not isinstance(config.get("model"), dict):
        raise ZooError(f"{where} is not a gcpzoo model: its config.json is of another library")
    version = config.get("format_version")
    if not isinstance(version, int) or version > FORMAT:
        raise ZooError(
            f"{where} is in format {version} (written by gcpzoo {config.get('library_version')}), this is gcpzoo "
            f"{__version__} and reads up to {FORMAT}: pip install -U gcpzoo"
        )
    return config


def build(config: Mapping[str, Any], weights: Path, digest: str | None, where: str) -> GCPNet:
    """The network of a ``config.json`` with the tensors of ``weights``, in eval mode and float32.

    The tensors' names and shapes are compared with the configuration before anything of that size is made.

    Raises:
        ZooError: another hash than ``digest``, no safetensors, or tensors that do not fit the configuration.
    """
    if digest and (found := sha256(weights)) != digest:
        raise DamagedError(f"{where}: {weights} is damaged: its sha256 is {found[:12]}…, expected {digest[:12]}…")
    try:
        with safe_open(weights, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        kind = DamagedError if digest is None else ZooError
        raise kind(
            f"{where}: {weights} is no intact safetensors file ({error}); pickled weights are never loaded, "
            "convert them with 'gcpzoo convert'"
        ) from None
    _compare(config["model"], shapes, where)
    try:
        with torch.random.fork_rng(devices=[]):
            model = GCPNet.from_config(config["model"])
        model.load_state_dict(load_file(weights))
    except (RuntimeError, TypeError, KeyError, AttributeError, MemoryError) as error:
        raise ZooError(f"{where}: its tensors do not fit its configuration: {short(error)}") from error
    names = config.get("class_names")
    if names is not None and (
        not isinstance(names, list)
        or not all(isinstance(n, str) for n in names)
        or len(names) != model.config["num_classes"]
    ):
        raise ZooError(f"{where}: class_names must be {model.config['num_classes']} strings, one for each class")
    model.class_names = names
    if not isinstance(config.get("preprocessing") or {}, dict):
        raise ZooError(f"{where}: preprocessing must be a mapping")
    model.preprocessing = Preprocessing.from_dict(config.get("preprocessing") or {})
    return model.eval()


def read_folder(folder: Path, where: str | None = None) -> tuple[GCPNet, dict[str, Any]]:
    """A checkpoint's folder to the network and its ``config.json``."""
    where = where or str(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ZooError(
                f"{where} is no gcpzoo checkpoint: {name} is missing (expected config.json and model.safetensors; "
                "a run's last.ckpt loads by its own path, foreign weights through 'gcpzoo convert')"
            )
    config = read_config(folder / CONFIG, where)
    return build(config, folder / WEIGHTS, config.get("weights_sha256"), where), config


def _compare(model_config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Strictly compare the file's tensors with those of the configuration, built on the meta device."""
    arguments = model_config.get("backbone_args") or {}
    if not isinstance(arguments, Mapping) or FILES & set(arguments):
        raise ZooError(f"{where}: its configuration would read other files ({', '.join(arguments)}), which is refused")
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            expected = {k: tuple(v.shape) for k, v in GCPNet.from_config(model_config).state_dict().items()}
    except ZooError as error:
        raise ZooError(f"{where}: {error}") from None
    except (TypeError, AttributeError, KeyError, ValueError, OverflowError) as error:
        raise ZooError(f"{where}: its configuration is not valid: {short(error)}") from error
    except RuntimeError:  # some networks compute with values as they are built, which the meta device has not
        return
    missing = [k for k in expected if k not in shapes]
    foreign = [k for k in shapes if k not in expected]
    misshapen = [k for k in expected if k in shapes and shapes[k] != expected[k]]
    if wrong := missing + foreign + misshapen:
        raise ZooError(
            f"{where}: its tensors do not fit its configuration: {len(missing)} missing, {len(foreign)} foreign, "
            f"{len(misshapen)} misshapen, such as {wrong[0]!r}"
        )
