"""``docs/metrics.schema.json`` describes what runs write, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import gcpzoo
from gcpzoo.training.run_report import FORMAT

DOCS = Path(__file__).parents[1] / "docs"
SCHEMA = json.loads((DOCS / "metrics.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
REPORT = Path(__file__).parent / "files" / "metrics.json"


@pytest.fixture
def reports(cli: Callable, small_fit: list[str]) -> list[dict[str, Any]]:
    """The reports of a new run, with everything that can be logged, and of an evaluation of its checkpoint."""
    watch = ["--trainer.callbacks+=gcpzoo.training.CovarianceSpectrum"]
    model = gcpzoo.create_model("resnet18", "gap", 3, until="layer1")
    model.class_names = ["east", "north", "south"]
    gcpzoo.hub.save_local(model, "teacher")
    teacher = ["--model.distillation.teacher", "teacher", "--model.distillation.resize", "true"]
    code, _, err = cli(*small_fit, *watch, *teacher, "--trainer.max_epochs", 1, "--output", "run")
    assert code == 0, err
    data = small_fit[1:9]
    code, _, err = cli("validate", *data, "--ckpt_path", "run/checkpoints/last.ckpt", "--output", "evaluation")
    assert code == 0, err
    return [json.loads(Path(run, "metrics.json").read_text(encoding="utf-8")) for run in ("run", "evaluation")]


def objects(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All JSON objects in a report, with their place."""
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from objects(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner, f"{path}[]")


def test_the_schema_is_valid_and_of_the_format_that_is_written() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["format"]["const"] == FORMAT


def test_the_reports_of_a_new_run_follow_the_schema_to_their_last_key(reports: list[dict[str, Any]]) -> None:
    run, evaluation = reports
    assert {"fit", "test", "teacher"} <= set(run)
    assert {"ece", "brier"} <= set(run["test"])
    assert "validate" in evaluation
    assert {"spectrum/condition", "lr-SGD/pg1", "val/per_class", "val/ece", "val/brier"} <= set(
        run["fit"]["history"][0]
    )
    for report in reports:
        VALIDATOR.validate(report)
        _check_that_no_further_key_is_valid(report)


def _check_that_no_further_key_is_valid(report: dict[str, Any]) -> None:
    free = ("/model/head_args", "/model/backbone_args", "/accuracy_of_class")  # keys that depend on head, data
    for place, _ in objects(report):
        if not place.endswith(free):
            broken = copy.deepcopy(report)
            next(inner for where, inner in objects(broken) if where == place)["unheard_of"] = 1
            assert not VALIDATOR.is_valid(broken), place


@pytest.mark.parametrize("key", ["format", "gcpzoo", "model", "data", "seed", "parameters"])
def test_a_report_without_one_of_its_parts_is_invalid(key: str) -> None:
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    del report[key]
    assert not VALIDATOR.is_valid(report)


@pytest.mark.parametrize(("key", "value"), [("top1", 93.65), ("images", -1), ("loss", "low")])
def test_values_of_another_unit_are_invalid(key: str, value: Any) -> None:
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    report["test"][key] = value
    assert not VALIDATOR.is_valid(report)


def test_a_report_of_an_older_version_follows_the_schema() -> None:
    VALIDATOR.validate(json.loads(REPORT.read_text(encoding="utf-8")))


def test_a_data_module_of_ones_own_is_known_by_its_name_alone() -> None:
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    VALIDATOR.validate({**report, "data": {"data": "MyData"}})
    assert not VALIDATOR.is_valid({**report, "data": {"data": "MyData", "unheard_of": 1}})


def properties(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        for group in ("properties", "patternProperties"):
            for name, inner in schema.get(group, {}).items():
                yield f"{path}/{name}", inner
        for name, inner in schema.items():
            yield from properties(inner, f"{path}/{name}")


def test_every_field_is_described() -> None:
    definitions = {f"#/$defs/{name}": value for name, value in SCHEMA["$defs"].items()}
    known = {**definitions, None: {}}
    fields = list(properties(SCHEMA))
    assert len(fields) > 60
    assert not [p for p, f in fields if not f.get("description") and "description" not in known[f.get("$ref")]]
