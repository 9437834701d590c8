"""The house keeps its plan: layers, sizes, examples, no private names of others."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gcpzoo

ROOT = Path(gcpzoo.__file__).parent
ROOMS = (
    "cli",
    "serve",
    "experiments",
    "training",
    "analysis",
    "hub",
    "data",
    "models",
    "blocks",
    "heads",
    "functional",
)
GROUND = ("errors", "limits", "paths")
FILES = sorted(ROOT.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 350, 60


def layer(name: str) -> int:
    """Number of the floor of a module, 0 the ground; the package itself and its version belong to nobody."""
    room = name.split(".")[1] if "." in name else ""
    return len(ROOMS) - ROOMS.index(room) if room in ROOMS else 0


def imports(path: Path) -> list[str]:
    """The modules of the package that a file imports anywhere, also inside functions and for types only."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "gcpzoo":
            whole = node.module == "gcpzoo"
            found += [f"gcpzoo.{a.name}" for a in node.names] if whole else [str(node.module)]
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] == "gcpzoo"]
    return found


def module(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_an_import_only_points_down() -> None:
    up = [
        f"{module(path)} imports {name}"
        for path in FILES
        for name in imports(path)
        if layer(name) > layer(module(path)) and module(path) not in ("gcpzoo", "gcpzoo.__main__")
    ]
    assert not up


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    names = {module(path) for path in FILES}
    arrows = {module(path): {n for n in imports(path) if n in names and n != module(path)} for path in FILES}
    arrows = {a: {b for b in bs if not a.startswith(f"{b}.")} for a, bs in arrows.items()}  # a package names its parts
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in arrows[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in arrows:
        visit(name, ())


def test_every_room_is_a_package_with_a_docstring() -> None:
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))), room


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def public(path: Path) -> list[tuple[str, ast.AST]]:
    """Public functions, classes and their documented methods."""
    found: list[tuple[str, ast.AST]] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list):
                continue  # a signature for type checkers
            found.append((node.name, node))
    return found


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.relative_to(ROOT).parts[0] != "cli"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_public_docstring_has_an_example(path: Path) -> None:
    without = [
        name
        for name, node in public(path)
        if ">>>" not in (ast.get_docstring(node) or "")  # type: ignore[arg-type]
        and not (isinstance(node, ast.ClassDef) and any("Error" in ast.unparse(b) for b in node.bases))
    ]
    assert not without


WORDS = ("picture", "normalis", "optimis", "centre", "vectoris", "factoris")


FORMER = {  # names of version 0.1 that are still read, or refused with the new name
    "training/former_names.py": ("picturedatamodule", "finetune/pictures.yaml"),
    "training/configs.py": ("finetune/pictures.yaml",),
    "hub/run_results.py": ('"pictures"',),
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_words_are_spelt_one_way(path: Path) -> None:
    text = path.read_text(encoding="utf-8").lower()
    for word in FORMER.get(str(path.relative_to(ROOT)), ()):
        text = text.replace(word, "")
    assert not [word for word in WORDS if word in text]
