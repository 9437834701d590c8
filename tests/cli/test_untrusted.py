"""Config files and options of others: what they may import, and how much they may hold."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BOMB = "a: &a [1, 1]\n" + "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}' if i else '*a'] * 10)}]\n" for i in range(9))
MERGES = "b0: &b0 {x: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 10)}]}}\n" for i in range(1, 9))


@pytest.fixture
def quick(small_fit: list[str]) -> list[str]:
    return [*small_fit, "--trainer.fast_dev_run", "1", "--trainer.logger", "false"]


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that can be imported and says so; no config may import it."""
    text = "from lightning.pytorch.callbacks import Callback\nclass Mine(Callback):\n    pass\n"
    (tmp_path / "stranger.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    return "stranger.Mine"


OPTIONS = [
    ["--trainer.callbacks", "stranger.Mine"],
    ["--trainer.callbacks+=stranger.Mine"],
    ["--trainer.callbacks", '[{"class_path": "stranger.Mine"}]'],
    ["--trainer.callbacks", "callbacks.yaml"],
    ["--trainer.logger", "stranger.Mine"],
    ["--trainer.logger", '{class_path: "stranger.Mine"}'],
    ["--trainer.plugins", "stranger.Mine"],
    ["--data", "stranger.Mine"],
    ["--config", "config.yaml"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_a_class_of_another_package_is_refused_before_it_is_imported(
    cli: Callable, quick: list[str], stranger: str, options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "callbacks.yaml").write_text(f"[{{class_path: {stranger}}}]")
    allowed = "allow_import: stranger\n" if options[0] == "--config" else ""
    (tmp_path / "config.yaml").write_text(f"trainer:\n  callbacks:\n  - class_path: {stranger}\n")
    code, _, err = cli(*quick, *options)
    assert code == 2
    assert err.strip().splitlines()[-1].endswith("add --allow-import stranger if you trust it")
    assert "stranger" not in sys.modules
    if allowed:  # a config cannot allow what it names
        (tmp_path / "config.yaml").write_text(allowed + (tmp_path / "config.yaml").read_text())
        assert cli(*quick, *options)[0] == 2
        assert "stranger" not in sys.modules


def test_a_package_is_allowed_by_the_command_line_for_that_command_alone(
    cli: Callable, quick: list[str], stranger: str
) -> None:
    for more in (["--allow-import", "stranger"], ["--allow-import=stranger"]):
        code, _, err = cli(*quick, "--trainer.callbacks+=stranger.Mine", *more)
        assert code == 0, err
    assert cli(*quick, "--trainer.callbacks+=stranger.Mine")[0] == 2


@pytest.mark.parametrize("name", ["torch.os.system", "torch.hub.load", "lightning.pytorch.trainer.trainer.os.system"])
def test_what_runs_programs_is_refused_also_behind_an_allowed_package(
    cli: Callable, quick: list[str], name: str, tmp_path: Path
) -> None:
    callback = f"class_path: lightning.pytorch.callbacks.LambdaCallback, init_args: {{on_fit_start: {name}}}"
    (tmp_path / "config.yaml").write_text(f"trainer: {{callbacks: [{{{callback}}}]}}")
    code, _, err = cli(*quick, "--config", "config.yaml")
    assert code == 2
    assert "is not imported" in err


def test_short_names_of_the_trainer_still_work(cli: Callable, quick: list[str]) -> None:
    options = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/top1"]
    code, _, err = cli(*quick, *options)
    assert code == 0, err


@pytest.mark.parametrize("name", ["os.path!", "", "jsonargparse"])
def test_an_import_is_allowed_by_the_name_of_a_package(cli: Callable, quick: list[str], name: str) -> None:
    code, _, err = cli(*quick, f"--allow-import={name}")
    assert code == 2
    assert "--allow-import must be the name of a package" in err


@pytest.mark.parametrize("bomb", [BOMB, MERGES, "[" * 200_000, "a: " + "1:" * 100_000 + "1", "a: &a [*a]"])
@pytest.mark.parametrize("option", ["--config", "--trainer.callbacks", "--model"])
def test_a_bomb_of_yaml_is_refused_at_once(
    cli: Callable, quick: list[str], bomb: str, option: str, tmp_path: Path
) -> None:
    (tmp_path / "bomb.yaml").write_text(bomb)
    code, _, err = cli(*quick, option, "bomb.yaml")
    assert code == 2
    assert err.count("\n") <= 2
    assert "must" in err
