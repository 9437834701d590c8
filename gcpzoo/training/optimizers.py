"""Optimizers: which of ``torch.optim``, and how fast each part of the network learns."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.training.checks import check_ranges

FUSED = ("SGD", "Adam", "AdamW")
"""Optimizers whose fused form is taken unless ``args`` says otherwise: one kernel for all tensors."""


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer of ``torch.optim`` and its learning rates, as plain values.

    Args:
        name: class in ``torch.optim``.
        lr: learning rate of the backbone, for the whole batch.
        weight_decay: weight decay, as the optimizer defines it.
        args: further arguments of the optimizer; SGD has momentum 0.9 unless they say otherwise.
        classifier_lr_factor: learning rate of the classifier, in multiples of ``lr``.
        head_lr_factor: learning rate of the head (its reduction layer), in multiples of ``lr``.
        lr_factors: learning rates of single parameters or modules, in multiples of ``lr``, by the names in the state
            dict, e.g. ``{"head.temperature": 0.02}``; they take the place of the factors above and below.
        layer_decay: learning rate of the backbone's last stage in multiples of ``lr``, of the stage before as its
            square, and so on towards the input; null: ``lr`` everywhere.
        decay_norm_and_bias: false exempts normalization layers and biases from weight decay.

    Raises:
        ZooError: if a value is out of range, or the optimizer or one of its arguments does not exist.

    >>> OptimizerConfig(name="AdamW", lr=2e-4).to_dict()["name"]
    'AdamW'
    >>> OptimizerConfig(name="Adamw")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown optimizer 'Adamw': did you mean AdamW?
    """

    name: str = "SGD"
    lr: float = 0.01
    weight_decay: float = 1e-4
    args: dict[str, Any] | None = None
    classifier_lr_factor: float = 1.0
    head_lr_factor: float = 1.0
    lr_factors: dict[str, float] | None = None
    layer_decay: float | None = None
    decay_norm_and_bias: bool = True

    def __post_init__(self) -> None:
        check_ranges(
            self,
            lr=(0, 1e6),
            weight_decay=(0, 1e6),
            classifier_lr_factor=(0, 1e6),
            head_lr_factor=(0, 1e6),
            layer_decay=(0, 1),
        )
        for name, factor in (self.lr_factors or {}).items():
            check_ranges(SimpleNamespace(**{f"lr_factors[{name!r}]": factor}), **{f"lr_factors[{name!r}]": (0, 1e6)})
        self._optimizer([{"params": [nn.Parameter(torch.zeros(1))]}])  # a wrong name or argument fails at once

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; ``OptimizerConfig(**values)`` takes them back.

        >>> OptimizerConfig(**OptimizerConfig(lr=0.1).to_dict()) == OptimizerConfig(lr=0.1)
        True
        """
        return asdict(self)

    def create(self, model: nn.Module, fused: bool = True) -> Optimizer:
        """Create the optimizer of a network's trainable parameters.

        Args:
            model: a :class:`gcpzoo.models.GCPNet`.
            fused: take the fused form where there is one. False under ``16-mixed``: a fused step unscales gradients
                itself, after they were to be clipped.

        >>> from gcpzoo.models import create_model
        >>> optimizer = OptimizerConfig(lr=0.1, classifier_lr_factor=5).create(create_model("resnet18", "gap", 3))
        >>> sorted(group["lr"] for group in optimizer.param_groups)
        [0.1, 0.5]
        """
        return self._optimizer(parameter_groups(model, self), fused)

    def _optimizer(self, groups: list[dict[str, Any]], fused: bool = True) -> Optimizer:
        known: dict[str, Any] = {
            n: c for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, Optimizer)
        }
        known.pop("Optimizer")
        if self.name not in known:
            raise unknown_name("optimizer", self.name, known)
        defaults: dict[str, Any] = {"momentum": 0.9} if self.name == "SGD" else {}
        if fused and self.name in FUSED and "foreach" not in (self.args or {}):
            defaults["fused"] = True
        arguments = {**defaults, **(self.args or {})}
        accepted = [a for a in inspect.signature(known[self.name]).parameters if a != "params"]
        for key in arguments:
            if key not in accepted:
                raise unknown_name(f"argument of optimizer {self.name}", key, accepted)
        try:
            optimizer: Optimizer = known[self.name](groups, lr=self.lr, weight_decay=self.weight_decay, **arguments)
            return optimizer
        except (TypeError, ValueError) as error:
            raise ZooError(f"optimizer {self.name} cannot take its arguments: {error}") from error


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Group a network's trainable parameters by learning rate and weight decay.

    Parameters of the backbone never share a group with others, so that a backbone that is frozen at first
    (:class:`gcpzoo.training.StagedUnfreezing`) leaves no group half-filled with optimizer state.

    >>> from gcpzoo.models import create_model
    >>> groups = parameter_groups(create_model("resnet18", "gap", 3), OptimizerConfig(lr=0.1))
    >>> [(group["lr"], len(group["params"])) for group in groups]
    [(0.1, 60), (0.1, 2)]
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ZooError("no parameter is left to train: frozen must leave something")
    stages = list(dict.fromkeys(stage_of(n) for n, _ in named if n.startswith("backbone.")))
    own = own_factors(model, config.lr_factors or {})
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        lr = config.lr
        if name in own:
            lr *= own[name]
        elif name.startswith(("classifier.", "first_classifier.")):
            lr *= config.classifier_lr_factor
        elif name.startswith("head."):
            lr *= config.head_lr_factor
        elif config.layer_decay is not None and name.startswith("backbone."):
            lr *= config.layer_decay ** (len(stages) - stages.index(stage_of(name)))
        decay = config.weight_decay if config.decay_norm_and_bias or parameter.ndim > 1 else 0.0
        groups.setdefault((lr, decay, name.startswith("backbone.")), []).append(parameter)
    return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay, _), p in groups.items()]


def own_factors(model: nn.Module, factors: dict[str, float]) -> dict[str, float]:
    """Find the parameters that ``lr_factors`` names, itself or by a module around them; the longest name counts.

    Raises:
        ZooError: if the network has no parameter of a name.

    >>> from gcpzoo.models import create_model
    >>> own_factors(create_model("resnet18", "bdc", 3), {"head": 1, "head.temperature": 0.02})["head.temperature"]
    0.02
    """
    names = [name for name, _ in model.named_parameters()]
    found: dict[str, float] = {}
    for key in sorted(factors, key=len):
        matching = [name for name in names if f"{name}.".startswith(f"{key}.")]
        if not matching:
            raise unknown_name("parameter in lr_factors", key, names)
        found |= dict.fromkeys(matching, factors[key])
    return found


def stage_of(name: str) -> str:
    """Return the stage of a parameter: its path up to the first part that ends in a digit.

    >>> stage_of("backbone.layer3.0.conv1.weight"), stage_of("backbone.features.13.conv.0.weight")
    ('backbone.layer3', 'backbone.features.13')
    """
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part[-1:].isdigit():
            return ".".join(parts[: i + 1])
    return "stem"
