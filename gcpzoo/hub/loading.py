"""A model by name: from the zoo's records, the Hugging Face Hub, a folder, or a training run's checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from gcpzoo.errors import ZooError
from gcpzoo.hub.authors import converted_folder, load_authors
from gcpzoo.hub.client import fetch, split_revision
from gcpzoo.hub.files import WEIGHTS, DamagedError, build, read_config, read_folder
from gcpzoo.hub.records import COMMIT, Record, describe, get_record, weights_file
from gcpzoo.hub.run_checkpoint import read_run_checkpoint
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.paths import current, run_file

FOREIGN = (".pth", ".pt", ".bin", ".pkl", ".tar", ".th", ".safetensors")


def load(name: str | os.PathLike[str]) -> GCPNet:
    """Load a trained model in eval mode; its weights are verified by SHA-256 and loaded strictly.

    Args:
        name: a name of the zoo (``gcpzoo.list_models()``), ``hf-hub:owner/repo[@revision]``, ``local-dir:PATH`` or an
            existing folder, or a training run's folder or ``.ckpt`` file.

    Returns:
        The network in float32, with ``transform``, ``preprocessing``, ``class_names``, ``class_descriptions`` and
        ``record`` set. The global random state is left as it was.

    Raises:
        ZooError: for an unknown name, no network and nothing cached, no permission, damaged or foreign files, a folder
            of several generations.

    >>> model = load("resnet18_isqrt.digits")
    >>> model.num_classes, model.record.status
    (10, 'accuracy verified')
    """
    return load_stored(name)[0]


def load_stored(name: str | os.PathLike[str]) -> tuple[GCPNet, Path | None]:
    """Load a model as :func:`load` does, and give the file of its weights.

    Returns:
        The model, and the safetensors file it was read from; ``None`` for a run's checkpoint.

    >>> model, file = load_stored("resnet18_isqrt.digits")
    >>> file.name
    'resnet18_isqrt.digits.safetensors'
    """
    spec = os.fspath(name) if isinstance(name, str | os.PathLike) else None
    if not spec:
        raise ZooError(f"name must be a name of the zoo, hf-hub:owner/repo, a folder or a .ckpt file, got {name!r}")
    if spec.startswith("hf-hub:"):
        return _from_hub(spec.removeprefix("hf-hub:"))
    path = Path(spec.removeprefix("local-dir:")).expanduser()
    if run := run_file(path):
        path = run
    elif spec.startswith("local-dir:") or path.is_dir():
        return _from_folder(path)
    if path.suffix == ".ckpt":
        return load_task_checkpoint(path), None
    if path.suffix in FOREIGN:
        raise ZooError(
            f"{spec!r} is a file of weights alone, and pickles are never loaded: bring it into our format with "
            "'gcpzoo convert', then load the folder"
        )
    if "/" in spec:
        raise ZooError(f"{spec!r} is not a local folder; for a repository on the Hub write 'hf-hub:{spec}'")
    return _from_record(get_record(spec))


def load_task_checkpoint(path: str | os.PathLike[str]) -> GCPNet:
    """Load the model of a training run's ``.ckpt`` file; its averaged weights if the run kept a moving average.

    Nothing in the file is executed.

    Raises:
        ZooError: if there is no such file, or it is damaged or not written by ``gcpzoo fit``.

    >>> load_task_checkpoint("runs/nothing/last.ckpt")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: no weights file 'runs/nothing/last.ckpt'
    """
    try:
        return read_run_checkpoint(Path(path)).build()
    except ZooError as error:
        known = str(path) in str(error)
        raise (error if known else ZooError(f"{path}: {error}")) from error.__cause__


def _from_folder(path: Path) -> tuple[GCPNet, Path]:
    if not path.is_dir():
        raise ZooError(f"there is no folder {str(path)!r}")
    model, config = read_folder(path)
    model.record = describe({**config, "class_names": model.class_names}, path.resolve().name, {"folder": str(path)})
    return model, current(path, WEIGHTS)


def _from_hub(spec: str, record: Record | None = None) -> tuple[GCPNet, Path]:
    repo, revision = split_revision(spec)
    for again in (False, True):
        config_file, weights, resolved = fetch(repo, revision, force=again)
        where = f"{repo}@{resolved[:12] if COMMIT.fullmatch(resolved) else resolved}"
        try:
            config = read_config(config_file, where)
            digest = record.sha256 if record else config.get("weights_sha256")
            model = build(config, weights, digest, where)
            break
        except DamagedError:
            if again:
                raise
    model.record = record or describe(
        {**config, "class_names": model.class_names}, repo, {"repo": repo, "revision": resolved}
    )
    return model, weights


def _from_record(record: Record) -> tuple[GCPNet, Path]:
    if record.unsupported:
        raise ZooError(f"{record.name} cannot be loaded: {record.unsupported} (the file: {record.source['url']})")
    if record.kind == "hub":
        return _from_hub(f"{record.source['repo']}@{record.source['revision']}", record)
    if record.kind == "authors":
        model, weights = load_authors(record), current(converted_folder(record), WEIGHTS)
    else:
        weights = weights_file(record)
        config = {"model": record.config, "preprocessing": record.preprocessing, "class_names": record.class_names}
        model = build(config, weights, record.sha256, record.name)
    model.record = record
    return model, weights
