"""Reports of runs that no sweep made: what differs is kept apart, by its name, and never averaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sweep_folder import write_predictions, write_sweep

from gcpzoo.errors import ZooError
from gcpzoo.experiments.report import collect, compare, write_report

OPTIONS = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 2, "logger": None},
    "model": {"backbone": "resnet18", "head": "isqrt", "dim": 8, "optimizer": {"lr": 0.1}},
    "data": {"class_path": "gcpzoo.data.ImageFolder", "init_args": {"root": "/data/pets", "workers": 4}},
    "output": "runs/a",
}


def write_run(
    folder: Path, seed: int | None = 0, top1: float = 0.5, teacher: str | None = None, **changes: Mapping[str, Any]
) -> Path:
    """Write the files of a run of ``gcpzoo fit``, with some of its options changed."""
    folder.mkdir(parents=True)
    options = {k: {**v, **changes.get(k, {})} if isinstance(v, dict) else v for k, v in OPTIONS.items()}
    model: Any = options["model"]
    options |= {"seed_everything": seed, "output": str(folder)}
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    report = {
        "model": {key: model[key] for key in ("backbone", "head", "dim")},
        "data": {"data": "ImageFolder", "num_classes": 3, "images": {"train": 18, "test": 10}},
        "fit": {"epochs": 1, "history": [{"epoch": 0, "val/top1": top1}]},
        "test": {"top1": top1},
        "seed": seed,
    }
    (folder / "metrics.json").write_text(json.dumps(report | ({"teacher": {"sha256": teacher}} if teacher else {})))
    write_predictions(folder / "test_predictions.csv", np.arange(10) < round(10 * top1))
    return folder


def names(blocks: list[Any]) -> dict[str, dict[str, list[int]]]:
    """Give the seeds of each head of each block."""
    return {b.title: {head.name: [run.seed for run in head.runs] for head in b.heads} for b in blocks}


def test_runs_that_differ_in_their_seed_place_and_workers_are_averaged(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0)
    data = {"init_args": {"root": "/data/pets", "workers": 0}}
    write_run(tmp_path / "b", 1, trainer={"logger": {"class_path": "CSVLogger"}}, data=data)
    assert names(compare(collect([tmp_path]))) == {"ImageFolder · resnet18": {"isqrt": [0, 1]}}


def test_runs_on_other_folders_are_other_data_though_their_classes_are_called_alike(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0, model={"head": "gap"})
    write_run(tmp_path / "b", 0, data={"init_args": {"root": "/data/wild", "workers": 4}})
    assert names(compare(collect([tmp_path]))) == {
        'ImageFolder · resnet18 · data.root="/data/pets"': {"gap": [0]},
        'ImageFolder · resnet18 · data.root="/data/wild"': {"isqrt": [0]},
    }


def test_runs_with_other_settings_are_apart_and_the_settings_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0)
    write_run(tmp_path / "b", 1, model={"optimizer": {"lr": 0.2}})
    write_run(tmp_path / "c", 0, model={"head": "gap", "optimizer": {"lr": 0.2}})
    assert names(compare(collect([tmp_path]))) == {
        "ImageFolder · resnet18 · optimizer.lr=0.1": {"isqrt": [0]},
        "ImageFolder · resnet18 · optimizer.lr=0.2": {"isqrt": [1], "gap": [0]},
    }


def test_a_head_with_other_arguments_is_another_head_of_the_same_comparison(tmp_path: Path) -> None:
    for i, dim in enumerate((8, 64)):
        write_run(tmp_path / f"isqrt{dim}", i, model={"dim": dim})
    write_run(tmp_path / "gap", 0, model={"head": "gap", "dim": None})
    assert names(compare(collect([tmp_path]))) == {
        "ImageFolder · resnet18": {"gap": [0], "isqrt, dim=64": [1], "isqrt, dim=8": [0]}
    }


def test_long_lists_of_other_settings_stay_apart(tmp_path: Path) -> None:
    for i in range(2):
        write_run(tmp_path / str(i), i, trainer={"callbacks": "x" * 200 + str(i)})
    assert len(compare(collect([tmp_path]))) == 2


def test_generations_are_not_averaged_but_those_of_several_trainings_are(tmp_path: Path) -> None:
    for run in (0, 1):
        folder = tmp_path / f"run{run}"
        write_run(folder / "generation-1", 10 * run)
        taught = {"distillation": {"teacher": str(folder / "generation-1")}}
        write_run(folder / "generation-2", 10 * run + 1, teacher=f"{run}abc", model=taught)
        (folder / "predictions.csv").write_text("path,class\n")
    expected = {"generation=1": [0, 10], "generation=2": [1, 11]}
    for places in ([tmp_path], [tmp_path / "run0", tmp_path / "run1"]):
        found = names(compare(collect(places)))
        assert {title.split(" · ")[2]: heads["isqrt"] for title, heads in found.items()} == expected


def test_students_of_other_teachers_are_apart(tmp_path: Path) -> None:
    for i in range(2):
        write_run(tmp_path / str(i), i, teacher=f"{i}" * 64, model={"distillation": {"teacher": "runs/teacher"}})
    assert len(compare(collect([tmp_path]))) == 2


def test_a_run_is_not_taken_for_a_training_of_a_sweep(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", {"gap": {0: 0.5}}, data="ImageFolder")
    write_run(tmp_path / "runs" / "a")
    assert list(names(compare(collect([sweep, tmp_path / "runs"])))) == [
        "ImageFolder · resnet18",
        "ImageFolder · resnet18 · gcpzoo fit",
    ]


def test_a_run_without_a_seed_is_refused_for_it_cannot_be_paired(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"had no seed, by which runs are paired"):
        collect([write_run(tmp_path / "a", None)])


def test_images_of_other_class_folders_are_not_the_same(tmp_path: Path) -> None:
    one, other = (write_run(tmp_path / name) for name in "ab")
    table = other / "test_predictions.csv"
    table.write_text(table.read_text().replace("/cat/", "/lion/"))
    first, second = (collect([folder])[0].predictions() for folder in (one, other))
    assert first is not None
    assert second is not None
    assert first.same_images(first)
    assert not first.same_images(second)


def test_runs_that_tested_their_best_epoch_are_said_to_have(tmp_path: Path) -> None:
    for seed in (0, 1):
        path = write_run(tmp_path / str(seed), seed) / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"checkpoint": {"kept": "best", "epoch": 1}}))
    write_report([tmp_path / "0", tmp_path / "1"], [tmp_path / "report.md"])
    told = (tmp_path / "report.md").read_text()
    assert "is of the final epoch, but for the 2 trained with --best" in told


@pytest.mark.parametrize("top1", [70, "0.7"])
def test_an_accuracy_that_is_none_is_refused(tmp_path: Path, top1: Any) -> None:
    path = write_run(tmp_path / "run") / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"test": {"top1": top1}}))
    with pytest.raises(ZooError, match=r"run/metrics.json: test/top1 must be a (share|finite number)"):
        collect([tmp_path / "run"])
