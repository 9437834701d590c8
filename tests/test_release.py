"""What a release is made of: versions, contents, and the workflow beside .ci/run."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("try_release", ROOT / "scripts" / "try_release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lowest_versions_pin_every_requirement_once(release: ModuleType) -> None:
    lowest = release.lowest()
    assert "torch==2.11" in lowest
    assert "jsonargparse==4.53" in lowest  # without its extra, and without its upper bound
    assert "latex2mathml==3.77" in lowest
    assert all(re.fullmatch(r"[\w.-]+==\d[\d.]*", line) for line in lowest)
    names = [line.partition("==")[0] for line in lowest]
    assert len(names) == len(set(names))


def test_what_must_not_be_published_is_refused(release: ModuleType) -> None:
    release.check_contents(["gcpzoo/runs.py", "gcpzoo/site.py"], ["gcpzoo/"], "x.whl")
    for name in ("runs/mine/last.ckpt", ".venv/bin/python", "gcpzoo/__pycache__/x.pyc", "site/index.html"):
        with pytest.raises(SystemExit, match="must not hold"):
            release.check_contents(["gcpzoo/a.py", name], ["gcpzoo/"], "x.whl")
    with pytest.raises(SystemExit, match=r"x\.whl lacks gcpzoo/py\.typed"):
        release.check_contents(["gcpzoo/a.py"], ["gcpzoo/py.typed"], "x.whl")


def test_a_command_that_fails_stops_the_trial_with_its_output(
    release: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"(?s)broken pipes.*exit code 3"):
        release.run("sh", "-c", "echo broken pipes; exit 3")


def test_the_package_says_what_it_is() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert "global covariance pooling" in project["keywords"]
    assert "Typing :: Typed" in project["classifiers"]
    assert not [c for c in project["classifiers"] if c.startswith("License ::")]  # "license" says it: an SPDX name


def test_the_workflow_runs_three_versions_of_python_and_the_lowest_dependencies() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert {"python": "3.11", "dependencies": "lowest"} in matrix["include"]
    steps = [step for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    scripts = set(re.findall(r"scripts/\w+\.\w+", " ".join(step["run"] for step in steps)))
    assert scripts == {"scripts/try_release.py"}
    assert all((ROOT / script).is_file() for script in scripts)
