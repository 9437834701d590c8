"""What the file of a sweep asks for, and which mistakes in it are named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweep_folder import BASE

from gcpzoo.errors import ZooError
from gcpzoo.experiments.sweep import Run, plan, read_plan
from gcpzoo.experiments.sweep.options import lay_over, read_options
from gcpzoo.experiments.sweep.results import FIGURES

SPACE = {"model.optimizer.lr": [0.001, 0.1]}


def test_every_combination_is_a_training(write: Callable) -> None:
    axes = {
        "data": ["Digits"],
        "head": ["gap", "isqrt"],
        "dim": {"small": {"model.dim": 8}, "large": {"model.dim": 64}},
    }
    asked = read_plan(write(axes=axes, seeds=[0, 7]))
    assert asked.axes == ("data", "backbone", "head", "dim")
    found = [(r.cell.labels["head"], r.cell.labels["dim"], r.seed, r.options["model"]["dim"]) for r in asked.runs()]
    assert found == [(h, n, s, d) for s in (0, 7) for h in ("gap", "isqrt") for n, d in (("small", 8), ("large", 64))]
    assert {r.options["seed_everything"] for r in asked.runs()} == {0, 7}
    assert len({r.hash for r in asked.runs()}) == len({r.name for r in asked.runs()}) == 8


def test_overrides_change_options_and_seeds_of_some_cells_and_leave_others_out(write: Callable) -> None:
    rules = [
        {"when": {"head": "gap"}, "options": {"model.optimizer.lr": 0.3}},
        {"when": {"head": ["isqrt", "bcnn"]}, "seeds": [5]},
        {"when": {"head": "cbp", "data": "Digits"}, "skip": True},
    ]
    asked = read_plan(write(axes={"head": ["gap", "isqrt", "bcnn", "cbp"]}, seeds=[0, 1], overrides=rules))
    assert [(r.cell.labels["head"], r.seed) for r in asked.runs()] == [
        ("gap", 0), ("gap", 1), ("isqrt", 5), ("bcnn", 5)
    ]  # fmt: skip
    assert [c.options["model"].get("optimizer") for c in asked.cells] == [{"lr": 0.3}, None, None]


def test_the_hash_is_that_of_the_options_not_of_their_order_or_names(write: Callable) -> None:
    one = read_plan(write(axes={"head": {"gap": {"model": {"dim": 8, "until": "layer2"}}}})).runs()[0]
    other = read_plan(write(axes={"head": {"mean": {"model.until": "layer2", "model.head": "gap", "model.dim": 8}}}))
    assert one.hash == other.runs()[0].hash
    changed = read_plan(write(axes={"head": {"gap": {"model": {"dim": 9, "until": "layer2"}}}})).runs()[0]
    assert changed.hash != one.hash
    assert changed.recipe != one.recipe
    assert Run(one.cell, 1).recipe == one.recipe
    assert Run(one.cell, 1).hash != one.hash


def test_a_change_of_a_config_file_is_a_change_of_the_training(write: Callable, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    hashes = []
    for dim in (8, 9):
        config.write_text(f"model: {{backbone: resnet18, dim: {dim}}}\ndata: {{class_path: gcpzoo.data.Digits}}\n")
        hashes.append(read_plan(write(base={"config": str(config)}, axes={"head": ["gap"]})).runs()[0].hash)
    assert hashes[0] != hashes[1]


def test_no_axis_can_take_the_name_of_another_column() -> None:
    assert set(plan.RESERVED) == {"seed", "epoch", *(name for name in (*FIGURES, *plan.ABOUT) if "/" not in name)}


def test_a_replaced_name_takes_its_arguments_along() -> None:
    below = read_options({"model": {"head": "isqrt", "head_args": {"iterations": 3}}, "data": "Digits"}, "a")
    below = lay_over(below, read_options({"data.image_size": 16}, "b"))
    kept = lay_over(below, read_options({"model.head": "isqrt", "model.head_args.dim": 4, "data": "Digits"}, "c"))
    assert kept["model"]["head_args"] == {"iterations": 3, "dim": 4}
    assert kept["data"]["init_args"] == {"image_size": 16}
    other = lay_over(below, read_options({"model.head": "gap", "data": "ImageFolder", "data.root": "x"}, "c"))
    assert "head_args" not in other["model"]
    assert other["data"] == {"class_path": "gcpzoo.data.ImageFolder", "init_args": {"root": "x"}}
    assert below["model"]["head_args"] == {"iterations": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"axes": {"head": ["gapp"]}}, "gapp.*did you mean gap"),
        ({"axes": {"head": ["gap"]}, "seed": [0]}, "unknown key 'seed': did you mean seeds"),
        ({"axes": {"data": ["Digits"]}}, "at least the axis head"),
        ({"axes": {"head": []}}, "axes.head must be"),
        ({"axes": {"head": ["gap"], "seed": {"a": {}}}}, "axes.seed: the name must be"),
        ({"axes": {"head": ["gap"]}, "seeds": [0, 0]}, "different whole numbers"),
        ({"axes": {"head": ["gap"]}, "seeds": 3}, "different whole numbers"),
        ({"axes": {"head": ["gap"]}, "seeds": [2**32]}, r"from 0 to 2\^32 - 1.*got \[4294967296\]"),
        (
            {
                "axes": {"head": ["gap"], "lr": {"a": {"model.optimizer.lr": 0.01}, "b": {"model.optimizer.lr": 0.02}}},
                "search": {"space": SPACE},
            },
            "gap · a and .*gap · b are the same training but for what the search chooses",
        ),
        ({"axes": {"head": ["gap"]}, "control": "gab"}, "unknown control 'gab'"),
        ({"axes": {"head": {"a": {"model.head": "gap"}, "gap": {}}}}, "a and .*gap are the same training"),
        ({"axes": {"head": ["gap"]}, "overrides": [{"when": {"head": "isqrt"}}]}, "unknown head 'isqrt'"),
        ({"axes": {"head": ["gap"]}, "overrides": [{"when": {"heads": "gap"}}]}, "unknown axis 'heads'"),
        ({"axes": {"head": ["gap"]}, "overrides": [{"when": {}, "skip": True}]}, "skip every cell"),
        ({"axes": {"head": ["gap"]}, "base": {"model.backbone": "resnet18"}}, "no data"),
        ({"axes": {"head": ["gap"]}, "base": {**BASE, "output": "x"}}, "output is set by the sweep"),
        ({"axes": {"head": ["gap"]}, "base": {**BASE, "generations": 3}}, "set generations to 1"),
        ({"axes": {"head": ["gap"]}, "base": {**BASE, "best": True}}, "tests the final epoch"),
        ({"axes": {"head": ["gap"]}, "base": {**BASE, "model": {"backbone": "x"}}}, "must be given once"),
        ({"axes": {"head": ["gap"]}, "base": {"config": "pretrain/digit.yaml"}}, "did you mean pretrain/digits.yaml"),
        ({"axes": {"head": ["gap"]}, "search": {"space": {}}}, "space must map"),
        ({"axes": {"head": ["gap"]}, "search": {"space": {"a": [1, 2]}, "trials": 7}}, "from 1 to 6, got 7"),
        (
            {"axes": {"head": ["gap"]}, "search": {"space": {"model.optimizer.lr": [0.1, 0.01]}}},
            "must be two finite numbers above 0",
        ),
        ({"axes": {"head": ["gap"]}, "search": {"space": {"data.seed": [1, 2]}}}, "of the model or the trainer"),
        ({"axes": {"head": ["gap"]}, "overrides": 5}, "overrides must be a list of mappings of when, .*, got 5"),
        ({"axes": {"head": ["gap"]}, "output": ["a"]}, r"output must be the path of a folder, got \['a'\]"),
        (
            {"axes": {"head": ["gap"]}, "search": {"space": {"model.lr": [1, 2]}}},
            "'model.lr' is now 'model.optimizer.lr'",
        ),
        ({"axes": {"head": {"gap": {"model.lr": 1}}}}, "axes.head.gap: option 'model.lr' is now 'model.optimizer.lr'"),
        ({"axes": {"head": ["gap"]}, "base": {"config": "./finetune/pictures.yaml"}}, "is now 'finetune/images.yaml'"),
        ({"axes": {"head": ["gap"], "backbone": ["resnet19"]}}, "resnet19 · gap: unknown backbone 'resnet19': did you"),
        ({"axes": {"head": ["gap"]}, "base": {**BASE, "data": "Digitz"}}, "unknown data module 'Digitz'.* Digits"),
        (
            {"axes": {"head": ["gap"]}, "search": {"space": SPACE, "options": {"model.head": "gapp"}}},
            "search: Digits · resnet18 · gap: unknown head 'gapp'",
        ),
        (
            {"axes": {"head": ["gap"]}, "base": {**BASE, "data.val_on_test": True}, "search": {"space": {"a": [1, 2]}}},
            "must not see the test images",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(write: Callable, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        read_plan(write(**content))


def test_a_run_is_told_apart_by_its_seed(write: Callable) -> None:
    cell = read_plan(write(axes={"head": ["gap"]})).cells[0]
    assert Run(cell, 0).hash != Run(cell, 1).hash
    assert os.sep not in Run(cell, 0).name


def test_a_folder_has_a_name_that_disks_take_however_long_the_names_of_its_cell_are(write: Callable) -> None:
    cell = read_plan(write(axes={"head": {"共分散" * 60: {"model.head": "gap"}}})).cells[0]
    assert len(os.fsencode(Run(cell, 2**32 - 1).name)) < 200


@pytest.mark.parametrize("ends", [[0.1, float("inf")], [float("nan"), 1.0], ["1e-4", 1.0], [True, 2], [1.0]])
def test_bounds_of_a_search_are_two_finite_numbers(write: Callable, ends: list[Any]) -> None:
    with pytest.raises(ZooError, match=r"space.model.optimizer.lr must be two finite numbers above 0"):
        read_plan(write(axes={"head": ["gap"]}, search={"space": {"model.optimizer.lr": ends}}))


def test_a_file_and_a_config_of_the_package_are_found_behind_a_dot(write: Callable, tmp_path: Path) -> None:
    (asked,) = read_plan(write(base={"config": "./pretrain/digits.yaml"}, axes={"head": ["gap"]})).cells
    (same,) = read_plan(write(base={"config": "pretrain/digits.yaml"}, axes={"head": ["gap"]})).cells
    assert asked.options == same.options
    assert len(read_plan("./sweep/digits.yaml").cells) == 2
    with pytest.raises(ZooError, match="is a folder: give a file"):
        read_plan(tmp_path)
