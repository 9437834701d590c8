"""The ``.ckpt`` file of a training run: opened once, here, in both of its format versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcpzoo import __version__
from gcpzoo.data.classes import class_ids
from gcpzoo.data.seen import files_of_splits
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.hub.files import check_fit, set_classes
from gcpzoo.hub.records import describe
from gcpzoo.limits import check_values
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.models.weights import check_tensor, open_file

FORMAT = 2
KEY = "gcpzoo"


@dataclass(frozen=True)
class RunCheckpoint:
    """What gcpzoo keeps in a checkpoint of Lightning.

    Attributes:
        format: version of the layout; 1 was written by gcpzoo 0.1, whose hyper-parameters were flat.
        config: configuration of the network, as in ``model.config``.
        class_names: ids of the classes in the order of the labels.
        preprocessing: what images go through before the network.
        start: where the training started from: a model, a file, or ``None`` for random weights.
        hyper_parameters: arguments of :class:`gcpzoo.training.ClassificationTask`, as stored.
        state_dict: tensors of the network; the averaged ones where the run kept a moving average.
        epoch, step: when it was written: in which epoch, from 0, and after how many optimizer steps; ``None``: unknown.
        start_licence: of the model that the training started from, where known.
        files: numbers of the image files of each split of its data, see :mod:`gcpzoo.data.seen`; empty: unknown.

    >>> import gcpzoo
    >>> model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
    >>> RunCheckpoint(2, model.config, ["no", "yes"], None, None, {}, model.state_dict()).build().class_names
    ['no', 'yes']
    """

    format: int
    config: dict[str, Any]
    class_names: list[str] | None
    preprocessing: Preprocessing | None
    start: str | None
    hyper_parameters: dict[str, Any]
    state_dict: dict[str, Tensor]
    epoch: int | None = None
    step: int | None = None
    start_licence: str | None = None
    files: dict[str, Tensor] = field(default_factory=dict)

    def build(self) -> GCPNet:
        """Rebuild the network in eval mode, with its tensors, classes and preprocessing.

        Raises:
            ZooError: if the tensors do not fit the configuration exactly.

        >>> import gcpzoo
        >>> model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
        >>> RunCheckpoint(2, model.config, None, None, None, {}, {}).build()
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: the checkpoint: its tensors do not fit its configuration: ...
        """
        check_fit(self.config, self.state_dict, "the checkpoint")  # before anything of that size is allocated
        with torch.random.fork_rng(devices=[]):
            model = GCPNet.from_config(self.config)
        model.load_state_dict(self.state_dict)
        set_classes(model, self.class_names, where="the checkpoint")
        model.preprocessing = self.preprocessing
        if self.start and self.start_licence:  # what a model is trained from binds what is made of it
            about = {"licence": self.start_licence, "provenance": f"trained from {self.start}"}
            known = {"model": self.config, "class_names": self.class_names, "about": about}
            model.record = describe(known, "run", {})
        return model.eval()

    def check_arguments(self, arguments: Mapping[str, Any], known: Iterable[str]) -> None:
        """Refuse hyper-parameters before a task is built from them: unknown ones, and another or an absurd network.

        Args:
            arguments: of the task, in the form of today.
            known: names that the task takes.

        Raises:
            ZooError: naming the hyper-parameter, or the tensors that do not fit.

        >>> import gcpzoo
        >>> model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
        >>> run = RunCheckpoint(2, model.config, None, None, None, {}, model.state_dict())
        >>> run.check_arguments({**model.config, "dim": 10**9}, model.CONFIG_KEYS)
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: the checkpoint: dim must be a positive number of channels, ...
        """
        known = list(known)
        for key in arguments:
            if key not in known:
                raise unknown_name("hyper-parameter of the checkpoint", str(key), known)
        network = {key: arguments[key] for key in GCPNet.CONFIG_KEYS if key in arguments}
        check_fit({**network, "hidden": network.get("hidden") or []}, self.state_dict, "the checkpoint")


def describe_run(model: GCPNet, start: str | None, start_licence: str | None = None) -> dict[str, Any]:
    """Build the entry that a run adds to Lightning's checkpoint: plain values only.

    >>> import gcpzoo
    >>> describe_run(gcpzoo.create_model("resnet18", "gap", 2, until="layer1"), start=None)["format"]
    2
    """
    return {
        "format": FORMAT,
        "library_version": __version__,
        "config": model.config,
        "class_names": model.class_names,
        "preprocessing": model.preprocessing.to_dict() if model.preprocessing else None,
        "start": start,
        "start_licence": start_licence,
    }


def read_run_checkpoint(path: str | Path) -> RunCheckpoint:
    """Open a run's ``.ckpt`` file; nothing in it is executed.

    Raises:
        ZooError: if the file is missing or damaged, of another program, or of a newer format.

    >>> import tempfile, gcpzoo
    >>> model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
    >>> state = {f"model.{key}": value for key, value in model.state_dict().items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"state_dict": state, "gcpzoo": describe_run(model, None)}, f"{folder}/last.ckpt")
    ...     read_run_checkpoint(f"{folder}/last.ckpt").config["head"]
    'gap'
    """
    content = open_file(path)
    ours = content.get(KEY) if isinstance(content, Mapping) else None
    if not isinstance(ours, Mapping) or not isinstance(ours.get("config"), Mapping):
        raise ZooError(
            f"{path} was not written by 'gcpzoo fit'; bring weights of other programs in by 'gcpzoo convert'"
        )
    version = ours.get("format", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise ZooError(
            f"{path} is in format {version}, written by gcpzoo {ours.get('library_version')}; this is gcpzoo "
            f"{__version__} and reads formats up to {FORMAT}: pip install -U gcpzoo"
        )
    hyper_parameters = content.get("hyper_parameters", {})
    check_values([ours, hyper_parameters], str(path))
    if not isinstance(content.get("state_dict"), Mapping) or not all(isinstance(k, str) for k in content["state_dict"]):
        raise ZooError(f"{path} holds no 'state_dict' of named tensors; it is damaged")
    if "num_classes" not in ours["config"] or not isinstance(hyper_parameters, Mapping):
        raise ZooError(f"{path} holds no 'num_classes' in its configuration, or no hyper-parameters; it is damaged")
    names = ours.get("class_names")
    kept = ours.get("preprocessing")
    # Lightning's WeightAveraging keeps the averaged weights in state_dict and the current ones elsewhere.
    state = {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")}
    for key, value in state.items():
        check_tensor(key, value, str(path))
    epoch, step = (n if isinstance(n := content.get(key), int) else None for key in ("epoch", "global_step"))
    return RunCheckpoint(
        format=version,
        config=dict(ours["config"]),
        class_names=None if names is None else _ids(names, path),
        preprocessing=Preprocessing.from_dict(kept) if kept else None,
        start=ours.get("start"),
        hyper_parameters=dict(hyper_parameters),
        state_dict=state,
        epoch=epoch,
        step=step,
        start_licence=licence if isinstance(licence := ours.get("start_licence"), str) else None,
        files=files_of_splits(content),
    )


def _ids(names: Any, path: str | Path) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ZooError(f"{path}: class_names must be a list of strings, got {type(names).__name__}")
    return class_ids(names)
