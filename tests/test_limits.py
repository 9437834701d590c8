"""Texts beyond the limits are refused before anything of their size is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcpzoo.errors import ZooError
from gcpzoo.limits import LEVELS, TEXT_BYTES, VALUES, check_values, load_json, load_yaml, read_text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- " * (LEVELS + 1) + "1", "at most 100 levels"),
        ("{a: " * 200_000, "at most 100 levels"),
        ("a: &a [" + "1, " * 9 + "1]\nb: [" + "*a, " * 100_000 + "*a]", "at most 1,000,000 values"),
        ("a: &a [*a]", "must not contain itself"),
        ("a: " + "1:" * 500 + "1", "numbers of at most 300 characters"),
        ("a: " + "9" * 250, "whole numbers of at most 2.64"),
        ("a: 0x" + "f" * 250, "whole numbers of at most 2.64"),
        ("!!timestamp x", "not valid YAML"),
        ("!!bool x", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("a: [", "not valid YAML"),
        ("2026-99-99", "not valid YAML"),
    ],
)
def test_yaml_beyond_a_limit_is_refused(text: str, words: str) -> None:
    with pytest.raises(ZooError, match=words):
        load_yaml(text, "x.yaml")


def test_yaml_within_the_limits_keeps_its_aliases() -> None:
    assert load_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {d: 3}}", "x.yaml") == {"a": [1, 2], "b": [1, 2], "c": {"d": 3}}
    assert load_yaml("- " * LEVELS + "1", "x.yaml")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_json_holds_finite_numbers(number: str) -> None:
    with pytest.raises(ZooError, match="finite numbers"):
        load_json(f"[{number}]", "x.json")


def test_json_that_is_none_is_an_ordinary_error() -> None:
    for text in ("[" * 100_000, "{", "9" * 5000):
        with pytest.raises(ValueError, match=r"levels|property name|digits") as error:
            load_json(text, "x.json")
        assert not isinstance(error.value, ZooError)


def test_shared_values_count_each_time() -> None:
    shared: object = [0] * 10
    for _ in range(6):
        shared = [shared] * 10
    with pytest.raises(ZooError, match=f"at most {VALUES:,} values"):
        check_values(shared, "x.ckpt")


def test_a_long_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.yaml").open("wb") as file:
        file.truncate(TEXT_BYTES + 1)
    with pytest.raises(ZooError, match="must be at most 32 MiB, it is larger"):
        read_text(tmp_path / "x.yaml", "x.yaml")


def test_a_key_given_twice_in_one_mapping_is_named_with_its_lines() -> None:
    with pytest.raises(ZooError, match=r"mine\.yaml: the key 'lr' is given twice, in lines 3 and 5"):
        load_yaml("model:\n  optimizer:\n    lr: 1\n    args: {lr: 2}\n    lr: 3\n", "mine.yaml")


def test_the_same_key_in_several_mappings_and_merges_is_no_repetition() -> None:
    text = "a: &a {lr: 1}\nb: {lr: lr}\nc: [{lr: 1}, {lr: 2}]\nd: {<<: *a, lr: 4}\n"
    assert load_yaml(text, "mine.yaml")["d"] == {"lr": 4}
