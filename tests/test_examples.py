"""The examples: those that take seconds run; the notebooks, which have a command of their own, are read."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

import gcpzoo

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_head_learns_in_a_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert example("plain_loop").main(epochs=1) > 0.8  # chance is 0.1


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_vit.r160_in1k"])
def test_a_head_takes_the_maps_and_the_tokens_of_timm_models(name: str) -> None:
    import torch

    options = {"img_size": 64} if "vit" in name else {}
    network = example("timm_model").Pooled(name, "isqrt", num_classes=10, **options)
    loss = network(torch.rand(2, 3, 64, 64)).square().sum()
    loss.backward()
    assert all(p.grad is not None for p in network.head.parameters())
    assert network.classifier.weight.grad.abs().sum() > 0


def test_hugging_faces_trainer_trains_a_model() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers accelerate")
    pytest.importorskip("accelerate", reason="accelerate is not installed: pip install transformers accelerate")
    assert example("hf_trainer").main() > 0.8  # chance is 0.1


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_an_example_is_short_and_says_how_it_runs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert path.name in (ast.get_docstring(ast.parse(text)) or "")


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert code
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_names_what_exists(path: Path) -> None:
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"))
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gcpzoo"):
            named |= {(str(node.module), alias.name) for alias in node.names}
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"gcpzoo(\.\w+)*", ast.unparse(node.value)):
            named.add((ast.unparse(node.value), node.attr))
    assert named
    for owner, name in named:
        assert not name.startswith("_")
        assert hasattr(found(owner), name), f"{owner}.{name}"


def found(owner: str) -> object:
    """A module, or what a dotted name of the package leads to."""
    try:
        return importlib.import_module(owner)
    except ModuleNotFoundError:
        value: object = gcpzoo
        for part in owner.split(".")[1:]:
            value = getattr(value, part)
        return value


def test_there_is_a_notebook_for_each_step() -> None:
    names = [path.name for path in NOTEBOOKS]
    assert names == ["compare_heads.ipynb", "explain.ipynb", "fine_tune.ipynb", "load.ipynb"]
