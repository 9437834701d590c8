"""The pages' commands and their outputs, which docs/make_outputs.py writes."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import pytest

from gcpzoo.cli.main import TRAINER_COMMANDS, parser

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "make_outputs.py"
spec = importlib.util.spec_from_file_location("make_outputs", SCRIPT)
assert spec is not None
assert spec.loader is not None
make_outputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_outputs)
PAGES = {page: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}
COMMANDS = [command for text in PAGES.values() for command in make_outputs.commands(text)]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pages_command_exists(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "python":
        assert (ROOT / arguments[0]).is_file()
    elif arguments[0] not in TRAINER_COMMANDS:
        assert parser().parse_args(arguments).handler is not None


def test_every_command_is_shown_with_its_output() -> None:
    assert len(COMMANDS) > 5
    for page, text in PAGES.items():
        for _, _, command, shown, _ in make_outputs.BLOCK.findall(text):
            start = f"```console\n$ {command}\n"
            assert shown.startswith(start), page
            assert len(shown) > len(start) + 10, page


def test_a_block_is_filled_and_filled_again(tmp_path: Path) -> None:
    page = "a\n<!-- run: python -c 'print(6 * 7)' -->\n<!-- ran -->\nb\n"
    once = make_outputs.fill(page, tmp_path)
    assert "```console\n$ python -c 'print(6 * 7)'\n42\n```\n<!-- ran -->\nb\n" in once
    assert make_outputs.fill(once, tmp_path) == once


def test_a_command_that_fails_stops_the_script(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="exit code 3"):
        make_outputs.fill("<!-- run: python -c 'exit(3)' -->\n<!-- ran -->", tmp_path)
    with pytest.raises(SystemExit, match="exit code 0"):
        make_outputs.fill("<!-- refused: python -c 'exit(0)' -->\n<!-- ran -->", tmp_path)
