"""``gcpzoo list`` and ``info``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import gcpzoo
from gcpzoo.hub.records import get_record

Cli = Callable[..., tuple[int, str, str]]


def test_list_shows_models_heads_and_backbones(cli: Cli) -> None:
    code, out, _ = cli("list")
    assert code == 0
    assert all(name in out for name in gcpzoo.list_models())
    assert [row["name"] for row in json.loads(cli("list", "--heads", "--json")[1])] == gcpzoo.list_heads()
    assert "resnet50" in cli("list", "--backbones")[1].split()
    assert {r["name"] for r in json.loads(cli("list", "resnet18_*", "--json")[1])} == set(
        gcpzoo.list_models("resnet18_*")
    )


def test_list_fits_80_columns(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli("list")[1].splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 2 + len(gcpzoo.list_models())
    assert "licence" in cli("list", "--wide")[1].splitlines()[0]


def listed(cli: Cli, *filters: str) -> list[dict[str, Any]]:
    code, out, err = cli("list", "--json", *filters)
    assert code == 0, err
    return list(json.loads(out))


def test_list_filters_by_head_data_licence_size_and_whether_it_loads(cli: Cli) -> None:
    everything = listed(cli)
    assert {m["name"] for m in listed(cli, "--head", "dropcov")} == {
        m["name"] for m in everything if m["head"] == "dropcov"
    }
    digits = {m["name"] for m in listed(cli, "--data", "digits")}
    assert "resnet18_isqrt.digits" in digits
    assert {name.rpartition(".")[2] for name in digits} <= {"digits", "digits_minimax"}
    assert all("MIT" in m["licence"] for m in listed(cli, "--licence", "mit"))
    assert {m["name"] for m in everything} - {m["name"] for m in listed(cli, "--loadable")} == {
        m["name"] for m in everything if not m["loadable"]
    }
    small = listed(cli, "--max-size", "2")
    assert small
    assert all(m["size"] <= 2e6 for m in small)


def test_filters_that_leave_nothing_are_repeated(cli: Cli) -> None:
    code, _, err = cli("list", "--head", "dropcov", "--max-size", "0.001")
    assert (code, "--head dropcov --max-size 0.001" in err) == (2, True)
    code, _, err = cli("list", "--head", "isqr")
    assert (code, "did you mean isqrt" in err) == (2, True)


def test_info_counts_parameters_and_operations(cli: Cli) -> None:
    code, out, err = cli("info", "resnet18_isqrt")
    assert code == 0, err
    assert "backbone" in out
    assert "head" in out


@pytest.mark.parametrize("name", ["resnet18_isqrt.cub50", "resnet50_isqrt.in1k_li2018"])
def test_info_is_a_page_with_control_cost_licence_use_and_paper(name: str, cli: Cli) -> None:
    code, out, _ = cli("info", name)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    labels = [line[:12].strip() for line in out.splitlines()[1:]]
    for label in ("network", "accuracy", "control", "cost", "licence", "load", "fine-tune", "cite"):
        assert label in labels
    known = json.loads(cli("info", name, "--json")[1])
    assert known["metrics"] == get_record(name).metrics
    assert known["complexity"]["parameters"]["total"] > 4e6


def test_info_counts_for_the_size_that_the_model_was_measured_at(cli: Cli) -> None:
    assert json.loads(cli("info", "resnet18_isqrt.digits", "--json")[1])["complexity"]["image"] == [32, 32]


def test_benchmark_measures_the_model_beside_its_control(cli: Cli) -> None:
    code, out, err = cli("benchmark", "resnet18_isqrt.digits", "--rounds", "2", "--batch-size", "2", "--json")
    assert code == 0, err
    model, control = json.loads(out)["models"]
    assert model["model"] == "resnet18_isqrt.digits"
    assert control["ratio"] == 1
    assert model["images_per_second"] > model["training_images_per_second"] > 0
    assert model["kept_bytes"] > control["kept_bytes"]
    for wrong in (["--device", "abacus"], ["--rounds", "0"], ["--device", "cuda:77"]):
        code, _, err = cli("benchmark", "resnet18_isqrt.digits", *wrong)
        assert (code, wrong[0] in err, len(err.splitlines())) == (2, True, 1)


def test_heads_and_backbones_are_listed_by_pattern(cli: Cli) -> None:
    assert [row["name"] for row in json.loads(cli("list", "--heads", "--json", "mp*")[1])] == ["mpa_lya", "mpn_cov"]
    assert cli("list", "--backbones", "resnet18*")[1].split() == ["resnet18"]
    assert "timm:resnet18d" in cli("list", "--timm", "*resnet18*")[1].split()


def test_models_in_the_package_are_listed_before_those_to_fetch(cli: Cli) -> None:
    names = set(gcpzoo.list_models())
    rows = [line.split()[0] for line in cli("list")[1].splitlines() if line.split()[:1] and line.split()[0] in names]
    embedded = [name for name in rows if get_record(name).kind == "embedded"]
    assert embedded
    assert rows == [*sorted(embedded), *sorted(set(rows) - set(embedded))]
