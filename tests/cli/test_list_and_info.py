"""``gcpzoo list`` and ``info``."""

from __future__ import annotations

import json
from collections.abc import Callable

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


def test_info_counts_parameters_and_operations(cli: Cli) -> None:
    code, out, err = cli("info", "resnet18_isqrt")
    assert code == 0, err
    assert "backbone" in out
    assert "head" in out


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
