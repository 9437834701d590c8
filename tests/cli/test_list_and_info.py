"""``gcpzoo list`` and ``info``."""

from __future__ import annotations

import json
from collections.abc import Callable

import gcpzoo

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
