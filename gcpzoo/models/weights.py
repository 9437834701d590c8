"""Weights in files: open them without running code, and compare them with the network that is to hold them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from gcpzoo.errors import ZooError, short

Shapes = Mapping[str, Tensor] | Mapping[str, tuple[int, ...]]
WRAPPERS = ("state_dict", "model")


def open_file(path: str | Path) -> Any:
    """Open a safetensors file, or a PyTorch file with ``weights_only=True``: no code in it is run.

    Args:
        path: the file; ``.safetensors`` is recognized by its suffix.

    Returns:
        What the file holds, its tensors on the CPU.

    Raises:
        ZooError: if the file is missing, damaged, or holds anything but tensors and plain values.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"epoch": 3, "weight": torch.ones(2)}, f"{folder}/net.pth")
    ...     open_file(f"{folder}/net.pth")
    {'epoch': 3, 'weight': tensor([1., 1.])}
    """
    path = Path(path)
    if not path.is_file():
        raise ZooError(f"no weights file {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if (compressed := _compressed(path)) is not None:
            raise ValueError(f"{compressed!r} in it is compressed, as PyTorch never does")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, torch, zipfile and pickle raise errors without a common class
        raise ZooError(
            f"{str(path)!r} cannot be read as weights: {_reason(path, error)}; "
            "expected safetensors, or a PyTorch file of tensors only"
        ) from error


def _compressed(path: Path) -> str | None:
    """Name a part of a PyTorch file that is compressed: a small file could fill the memory."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as file:
        return next((i.filename for i in file.infolist() if i.file_size > i.compress_size), None)


def check_tensor(name: str, value: Any, where: str) -> None:
    """Refuse what is no dense tensor in memory, or claims more values than are stored for it.

    Raises:
        ZooError: naming the tensor.

    >>> check_tensor("weight", torch.zeros(1).expand(10**6, 10**6), "net.ckpt")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: net.ckpt: 'weight' must be a dense tensor with all its values, got ...
    """
    dense = isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"
    if dense and not value.is_quantized and value.numel() * value.element_size() <= value.untyped_storage().nbytes():
        return
    kind = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise ZooError(f"{where}: {name!r} must be a dense tensor with all its values, got {kind}")


def _reason(path: Path, error: Exception) -> str:
    """Say in one line why a file was refused, without PyTorch's advice to load it unsafely."""
    if not isinstance(error, UnpicklingError):
        return short(error)
    try:
        objects = get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an old format, or no PyTorch file at all
        objects = []
    if objects:
        return f"it holds more than tensors ({', '.join(objects[:3])}); none of it was run"
    return "it is damaged or holds more than tensors; none of it was run"


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name, without wrapping dictionaries and the ``module.`` of ``DataParallel``.

    Raises:
        ZooError: if the file cannot be opened or holds no tensors.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"epoch": 3, "state_dict": {"module.weight": torch.ones(2)}}, f"{folder}/net.pth")
    ...     read_tensors(f"{folder}/net.pth")
    {'weight': tensor([1., 1.])}
    """
    state = open_file(path)
    for key in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    named = dict(state) if isinstance(state, Mapping) else {}
    tensors = {re.sub(r"^module\.", "", k): v for k, v in named.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise ZooError(f"{str(path)!r} holds no tensors")
    for key, value in tensors.items():
        check_tensor(key, value, str(path))
    return tensors


@dataclass(frozen=True)
class Misfit:
    """How a file's tensors differ from those that a network expects; false if they fit.

    Attributes:
        missing: names that the network has and the file lacks.
        unexpected: names that the file has and the network lacks.
        misshapen: names that both have, with different shapes.

    >>> misfit({"weight": (2, 3), "bias": (2,)}, {"weight": (2, 4)})
    Misfit(missing=('bias',), unexpected=(), misshapen=('weight',))
    >>> print(misfit({"weight": (2, 3), "bias": (2,)}, {"weight": (2, 4)}))
    1 missing, 0 unexpected and 1 misshapen tensors, such as 'weight'
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        missing, unexpected, misshapen = len(self.missing), len(self.unexpected), len(self.misshapen)
        first = (*self.unexpected, *self.misshapen, *self.missing)[:1]
        example = f", such as {first[0]!r}" if first else ""
        return f"{missing} missing, {unexpected} unexpected and {misshapen} misshapen tensors{example}"


def misfit(expected: Shapes, found: Shapes) -> Misfit:
    """Compare the names and shapes of two sets of tensors (or of shapes).

    >>> bool(misfit({"weight": (2, 3)}, {"weight": torch.zeros(2, 3)}))
    False
    """

    def shape(value: Any) -> tuple[int, ...]:
        return tuple(value.shape) if isinstance(value, Tensor) else tuple(value)

    return Misfit(
        missing=tuple(k for k in expected if k not in found),
        unexpected=tuple(k for k in found if k not in expected),
        misshapen=tuple(k for k in expected if k in found and shape(expected[k]) != shape(found[k])),
    )
