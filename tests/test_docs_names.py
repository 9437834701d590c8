"""What README, CONTRIBUTING and CHANGELOG name exists, and the first lines of Python run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_house import GROUND, ROOMS

import gcpzoo

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}
TEXT = "\n".join(PAGES.values())
FOLDERS = "gcpzoo|tests|docs|benchmarks|scripts|configs|checkpoints"


def names(path: Path) -> set[str]:
    """Functions, classes, their methods and the constants of a file, methods as ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}.{n.name}" for n in getattr(node, "body", []) if isinstance(n, ast.FunctionDef)}
        elif isinstance(node, ast.Assign):
            found |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return found


def test_every_path_that_is_named_exists() -> None:
    paths = {p for p in re.findall(rf"`((?:{FOLDERS})/[\w./]*)`", TEXT) if "NAME" not in p and p[-4:] != "ckpt"}
    assert len(paths) > 40
    assert not sorted(p for p in paths if not (ROOT / p).exists())


def test_every_function_is_in_the_file_beside_which_it_is_named() -> None:
    pairs = re.findall(r"`(gcpzoo/[\w/]+\.py)`(?::| \|) ((?:`[\w.]+`(?:, )?)+)", TEXT)
    pairs += [(path, name) for name, path in re.findall(r"(`\w+`)\)? in\s`(gcpzoo/[\w/]+\.py)`", TEXT)]
    assert len(pairs) > 25
    wrong = [
        f"{path}: {name}"
        for path, group in pairs
        for name in re.findall(r"`([\w.]+)`", group)
        if name not in names(ROOT / path)
    ]
    assert not wrong


def test_the_map_names_every_room() -> None:
    section = PAGES["CONTRIBUTING.md"].partition("## Map")[2].partition("## Rooms")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    rooms = [name for row in rows for name in re.findall(r"`gcpzoo/(\w+)(?:/|\.py)`", row)]
    assert rooms == [*ROOMS, *GROUND]


def test_the_first_lines_of_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (300, 240), "olive").save("bird.jpg")
    use = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")
    first, second, third = re.findall(r"```python\n(.*?)```", use, re.DOTALL)
    assert first in PAGES["README.md"]
    assert first in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    exec(first, scope)
    known = gcpzoo.load("resnet18_isqrt.cub50")
    assert capsys.readouterr().out.strip() in known.class_descriptions
    exec(second.replace("pretrained_backbone=True", "pretrained_backbone=False"), scope)
    assert scope["v"].shape == (1, scope["model"].num_features)  # type: ignore[attr-defined]
    exec(third.partition("\n")[2], {"gcpzoo": gcpzoo, "model": known})  # its first line asks the Hub
    assert sorted(p.name for p in Path("folder").iterdir()) == ["config.json", "model.safetensors"]


def test_the_changelogs_new_options_exist() -> None:
    from gcpzoo.cli.parser import options

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("## 0.1.0")[0]
    assert f"## {gcpzoo.__version__}" in text
    assert f"version: {gcpzoo.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    new = [
        o for row in re.findall(r"^\|[^|]+\|([^|]+)\|$", text, re.MULTILINE) for o in re.findall(r"`--([\w.]+\w)`", row)
    ]
    assert len(new) >= 5
    assert set(new) <= set(options())
