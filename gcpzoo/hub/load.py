"""A model by name: from the zoo's records, the Hugging Face Hub, a folder, or a training run's checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcpzoo.errors import ZooError
from gcpzoo.hub.records import Record, describe, get_record, weights_file

if TYPE_CHECKING:
    import torch

    from gcpzoo.models.gcpnet import GCPNet

FOREIGN = (".pth", ".pt", ".bin", ".pkl", ".tar", ".th", ".safetensors")


def load(name: str | os.PathLike[str]) -> GCPNet:
    """A trained model, in eval mode, its weights verified by SHA-256 and loaded strictly.

    Args:
        name: a name of the zoo (``gcpzoo.list_models()``), ``hf-hub:owner/repo[@revision]``, ``local-dir:PATH`` or an
            existing folder, or the ``.ckpt`` file of a training run.

    Returns:
        The network in float32, with ``transform``, ``preprocessing``, ``class_names`` and ``record`` set. The global
        random state is left as it was.

    Raises:
        ZooError: unknown name, no network and nothing cached, no permission, damaged or foreign files; in one line.
    """
    from gcpzoo.hub.files import read_folder

    spec = os.fspath(name)
    if spec.startswith("hf-hub:"):
        return _from_hub(spec.removeprefix("hf-hub:"))
    path = Path(spec.removeprefix("local-dir:")).expanduser()
    if spec.startswith("local-dir:") or path.is_dir():
        if not path.is_dir():
            raise ZooError(f"there is no folder {str(path)!r}")
        model, config = read_folder(path)
        model.record = describe(config, path.resolve().name, {"folder": str(path)})
        return model
    if path.suffix == ".ckpt":
        return load_task_checkpoint(path)
    if path.suffix in FOREIGN:
        raise ZooError(
            f"{spec!r} is a file of weights alone, and pickles are never loaded: bring it into our format with "
            "'gcpzoo convert', then load the folder"
        )
    if "/" in spec:
        raise ZooError(f"{spec!r} is no folder here; for a repository on the Hub write 'hf-hub:{spec}'")
    return _from_record(get_record(spec))


def save_local(
    model: GCPNet,
    folder: str | os.PathLike[str],
    about: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Write ``model`` into ``folder`` as ``config.json`` and ``model.safetensors``, for ``gcpzoo.load(folder)``.

    Args:
        model: the network, with its ``class_names`` and ``preprocessing``.
        folder: made where it is missing.
        about: more to keep, in the fields of a :class:`~gcpzoo.hub.Record`: ``licence``, ``metrics``, ``data`` …
        dtype: store floating tensors so, e.g. ``torch.float16``; loading gives float32 again.

    Returns:
        The SHA-256 of the weights.
    """
    from gcpzoo.hub.files import save_folder

    if about is None and isinstance(model.record, Record):
        about = model.record.about()
    return save_folder(model, Path(folder), about, dtype)


def load_task_checkpoint(path: str | os.PathLike[str]) -> GCPNet:
    """The model of a training run's ``.ckpt`` file; its EMA weights where it has them.

    Nothing in the file is executed (``weights_only=True``).

    Raises:
        ZooError: no such file, damaged, or not written by :class:`gcpzoo.training.task.ClassificationTask`.
    """
    import torch

    from gcpzoo.hub.files import short
    from gcpzoo.models.gcpnet import GCPNet
    from gcpzoo.models.preprocessing import Preprocessing

    path = Path(path)
    if not path.is_file():
        raise ZooError(f"there is no checkpoint {str(path)!r}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's, zipfile's and pickle's errors have no common class
        raise ZooError(f"{path} cannot be read as a checkpoint: {short(error)}") from error
    ours = checkpoint.get("gcpzoo") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or "config" not in ours:
        raise ZooError(
            f"{path} was not written by 'gcpzoo fit'; weights of other programs come in through 'gcpzoo convert'"
        )
    # Lightning's WeightAveraging keeps the averaged weights in state_dict and the current ones elsewhere
    state = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k.startswith("model.")}
    with torch.random.fork_rng(devices=[]):
        model = GCPNet.from_config(ours["config"])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ZooError(f"{path}: its tensors do not fit its configuration: {short(error)}") from error
    model.class_names = ours.get("class_names")
    model.preprocessing = Preprocessing.from_dict(ours.get("preprocessing") or {})
    model.record = None
    return model.eval()


def class_names(record: Record) -> list[str] | None:
    """The names of a record's classes, in the classifier's order."""
    if record.class_names == "imagenet1k":
        return imagenet_names()
    if isinstance(record.class_names, str):
        raise ZooError(f"record {record.name}: class_names is a list of names, or imagenet1k")
    return record.class_names


def imagenet_names() -> list[str]:
    """The 1000 names of ImageNet-1k, in the order of its labels (of the sorted WordNet ids)."""
    from torchvision.models import ResNet50_Weights

    return list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def _from_hub(spec: str, record: Record | None = None) -> GCPNet:
    from gcpzoo.hub.client import fetch, split_revision
    from gcpzoo.hub.files import DamagedError, build, read_config

    repo, revision = split_revision(spec)
    for again in (False, True):
        config_file, weights, commit = fetch(repo, revision, force=again)
        where = f"{repo}@{commit[:12]}"
        try:
            config = read_config(config_file, where)
            digest = record.sha256 if record else config.get("weights_sha256")
            model = build(config, weights, digest, where)
            break
        except DamagedError:
            if again:
                raise
    model.record = record or describe(config, repo, {"repo": repo, "revision": commit})
    return model


def _from_record(record: Record) -> GCPNet:
    from gcpzoo.hub.files import build

    if record.unsupported:
        raise ZooError(f"{record.name} cannot be loaded: {record.unsupported} (the file: {record.source['url']})")
    if record.kind == "hub":
        return _from_hub(f"{record.source['repo']}@{record.source['revision']}", record)
    if record.kind == "authors":
        from gcpzoo.hub.authors import load_authors

        model = load_authors(record)
    else:
        weights = weights_file(record)
        if not weights.is_file():
            raise ZooError(f"{record.name}: {weights} is missing; install gcpzoo again")
        config = {"model": record.config, "preprocessing": record.preprocessing, "class_names": class_names(record)}
        model = build(config, weights, record.sha256, record.name)
    model.record = record
    return model
