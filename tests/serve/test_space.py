"""The Hugging Face Space: its front matter, its requirements, its program."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "spaces"


def test_the_front_matter_names_the_program_and_a_gradio_that_is_allowed() -> None:
    front = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    least = int(extras["app"][0].partition(">=")[2].split(".")[0])
    assert front["sdk"] == "gradio"
    assert int(front["sdk_version"].split(".")[0]) == least
    assert (SPACE / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60  # the Hub refuses longer ones


def test_the_requirements_are_the_package_with_extras_that_it_has() -> None:
    (line,) = (SPACE / "requirements.txt").read_text(encoding="utf-8").split()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert line.startswith("gcpzoo[")
    assert set(line.removeprefix("gcpzoo[").rstrip("]").split(",")) <= set(extras)


def test_the_program_serves_the_page_to_other_computers(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[dict[str, Any]] = []
    monkeypatch.setattr("gcpzoo.serve.serve_page", lambda **options: served.append(options), raising=False)
    runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    assert served == [{"host": "0.0.0.0", "port": 7860}]
