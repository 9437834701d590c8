"""Parameter groups, optimizers and schedules by name."""

from __future__ import annotations

import math

import pytest
import torch

from gcpzoo.errors import ZooError
from gcpzoo.models.gcpnet import create_model
from gcpzoo.training.optimizers import OptimizerConfig, parameter_groups
from gcpzoo.training.schedules import ScheduleConfig


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return create_model("resnet18", "isqrt", 3, dim=8, until="layer2")


def rates(name: str, epochs: int, steps_per_epoch: int = 1, **kwargs: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = ScheduleConfig(name, **kwargs).create(optimizer, epochs, steps_per_epoch)  # type: ignore[arg-type]
    values = []
    for _ in range(epochs * steps_per_epoch):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_the_classifier_learns_faster_by_its_factor(model: torch.nn.Module) -> None:
    groups = parameter_groups(model, OptimizerConfig(lr=0.1, weight_decay=1e-4, classifier_lr_factor=5))
    assert {g["lr"] for g in groups} == {0.1, 0.5}
    fast = next(g for g in groups if g["lr"] == 0.5)["params"]
    assert {id(p) for p in fast} == {id(p) for p in model.classifier.parameters()}
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_layer_decay_slows_the_stages_towards_the_input(model: torch.nn.Module) -> None:
    groups = parameter_groups(model, OptimizerConfig(lr=1.0, weight_decay=0.0, layer_decay=0.5))
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    of = {n: rate[id(p)] for n, p in model.named_parameters()}
    assert of["backbone.layer2.0.conv1.weight"] == 0.5
    assert of["backbone.layer1.0.conv1.weight"] == 0.25
    assert of["backbone.conv1.weight"] == 0.0625  # before it conv1 and bn1, each a stage
    assert of["head.reduction.0.weight"] == of["classifier.weight"] == 1.0


def test_single_parameters_and_modules_have_rates_of_their_own() -> None:
    model = create_model("resnet18", "bdc", 3, dim=8, until="layer1")
    factors = {"head": 2.0, "head.temperature": 0.02, "backbone.layer1.0": 0.5}
    config = OptimizerConfig(lr=0.05, weight_decay=5e-4, lr_factors=factors, head_lr_factor=7, layer_decay=0.1)
    rate = {id(p): g["lr"] for g in parameter_groups(model, config) for p in g["params"]}
    of = {n: rate[id(p)] for n, p in model.named_parameters()}
    assert of["head.temperature"] == pytest.approx(1e-3)
    assert of["head.reduction.0.weight"] == 0.1
    assert of["backbone.layer1.0.conv1.weight"] == 0.025
    assert of["backbone.layer1.1.conv1.weight"] == pytest.approx(0.005)
    assert of["classifier.weight"] == 0.05
    (group,) = [g for g in parameter_groups(model, config) if g["lr"] == of["head.temperature"]]
    assert group["weight_decay"] == 5e-4


def test_a_rate_of_its_own_needs_a_parameter_of_that_name(model: torch.nn.Module) -> None:
    for name in ("head.temperatur", "head.reduction.0.weigh", "ead"):
        with pytest.raises(ZooError, match=f"unknown parameter in lr_factors '{name}'"):
            parameter_groups(model, OptimizerConfig(lr_factors={name: 0.02}))
    with pytest.raises(ZooError, match="must be between 0 and 1e\\+06, got -1"):
        OptimizerConfig(lr_factors={"head": -1})


def test_norms_and_biases_can_be_free_of_weight_decay(model: torch.nn.Module) -> None:
    groups = parameter_groups(model, OptimizerConfig(lr=0.1, weight_decay=1e-4, decay_norm_and_bias=False))
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert all(decay[id(p)] == (1e-4 if p.ndim > 1 else 0) for p in model.parameters())


def test_step_drops_at_its_milestones() -> None:
    assert rates("step", 6, milestones=[2, 4]) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_starts_at_one_and_falls_to_zero() -> None:
    assert rates("cosine", 4) == pytest.approx([(1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)])


@pytest.mark.parametrize(("power", "horizon", "epochs"), [(2, 49, 50), (11, 52, 30)])
def test_polynomial_is_lradju_and_lrfast(power: float, horizon: float, epochs: int) -> None:
    expected = [(1 - e / horizon) ** power for e in range(epochs)]
    assert rates("polynomial", epochs, power=power, horizon=horizon) == pytest.approx(expected, abs=1e-12)


def test_logarithmic_has_equal_ratios_and_ends_at_its_factor() -> None:
    values = rates("logarithmic", 5, final_factor=1e-4)
    assert values == pytest.approx([1, 1e-1, 1e-2, 1e-3, 1e-4])


def test_warm_up_rises_linearly_and_milestones_count_from_the_start() -> None:
    values = rates("step", 8, warmup_epochs=3, milestones=[5])
    assert values == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.1, 0.1, 0.1])


def test_a_schedule_by_steps_covers_the_same_course() -> None:
    values = rates("cosine", 4, steps_per_epoch=10)
    assert values[::10] == pytest.approx(rates("cosine", 4))


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_any_optimizer_of_torch_is_had_by_name(name: str, model: torch.nn.Module) -> None:
    optimizer = OptimizerConfig(name, lr=0.1, weight_decay=0.0).create(model)
    assert type(optimizer).__name__ == name


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Adamw", {}, "did you mean AdamW"),
        ("SGD", {"momentm": 0.9}, "did you mean momentum"),
        ("SGD", {"momentum": -1}, "momentum"),
        ("Optimizer", {}, "unknown optimizer"),
    ],
)
def test_a_wrong_optimizer_is_named(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        OptimizerConfig(name, lr=0.1, weight_decay=0.0, args=arguments)


def test_a_wrong_schedule_is_named() -> None:
    with pytest.raises(ZooError, match="did you mean cosine"):
        rates("cosin", 4)
    with pytest.raises(ZooError, match="warmup_epochs must be"):
        rates("cosine", 4, warmup_epochs=4)
