"""The house keeps its plan: layers, sizes, examples, words, no private names of others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gcpzoo

ROOT = Path(gcpzoo.__file__).parent
ROOMS = (
    "functional", "heads", "blocks", "models", "data", "hub", "analysis", "training", "experiments", "serve", "cli",
)  # fmt: skip
"""Packages from the ground floor up: a module imports only from its own floor and those below."""
FILES = sorted(ROOT.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 350, 60
WORDS = ("picture", "normalis", "optimis", "centre", "vectoris", "factoris", "colour")
LIBRARIES = {"torch", "torchvision", "timm", "lightning", "huggingface_hub", "jsonargparse", "safetensors", "nn", "F"}
Function = ast.FunctionDef | ast.AsyncFunctionDef

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module(path: Path) -> str:
    """Import path of a file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(name: str) -> int:
    """Floor of a module's room, from 1 on; 0 is the ground: errors, paths, the package itself."""
    room = [*name.split("."), ""][1]
    return 1 + ROOMS.index(room) if room in ROOMS else 0


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere, also within functions and for types only."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module in PACKAGES else set()
            found.add(str(node.module))
    return {name for name in found if name in MODULES}


MODULES = {module(path) for path in FILES}
PACKAGES = {module(path) for path in FILES if path.name == "__init__.py"}


def test_an_import_only_points_down() -> None:
    up = [f"{module(p)} imports {name}" for p in FILES for name in imports(p) if floor(name) > floor(module(p))]
    # Running the package as a program is the command line's entry.
    assert not [line for line in up if not line.startswith("gcpzoo.__main__ ")]


def test_no_modules_import_each_other_in_a_circle() -> None:
    """A package may import its own modules, and they their package's others: that is no circle."""
    arrows = {
        name: {other for other in imports(path) if other != name and not name.startswith(f"{other}.")}
        for path in FILES
        for name in [module(path)]
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in sorted(arrows[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in arrows:
        visit(name, ())


def test_every_folder_of_the_package_is_a_room_with_a_docstring() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(ROOMS)
    for room in ROOMS:
        assert ast.get_docstring(parse(ROOT / room / "__init__.py")), room


@each_file
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    for node in ast.walk(parse(path)):
        if isinstance(node, Function):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def documented(path: Path) -> Iterator[tuple[str, str, ast.ClassDef | Function]]:
    """Public functions and classes, and the methods of public classes that have a docstring."""
    for node in parse(path).body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        yield node.name, ast.get_docstring(node) or "", node
        for part in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(part, Function) and not part.name.startswith("_") and (text := ast.get_docstring(part)):
                yield f"{node.name}.{part.name}", text, part


def is_exception(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("Error" in ast.unparse(base) for base in node.bases)


@each_file
def test_public_functions_and_classes_have_a_docstring_with_an_example(path: Path) -> None:
    found = [(name, text, node) for name, text, node in documented(path) if "." not in name and not is_exception(node)]
    assert not [name for name, text, _ in found if not text], "without a docstring"
    shown_by_tests = ("add_parser", "run", "train") if floor(module(path)) == floor("gcpzoo.cli") else ()
    assert not [name for name, text, _ in found if ">>>" not in text and name not in shown_by_tests], "no example"


@each_file
def test_a_docstring_begins_with_one_sentence(path: Path) -> None:
    for name, text, _ in documented(path):
        assert not text or text.split("\n\n")[0].rstrip().endswith((".", ":", "``", ")")), f"{name}: {text[:80]!r}"


@each_file
def test_words_are_spelt_one_way(path: Path) -> None:
    if path.name in ("former_names.py", "upgrade.py"):  # they hold the former names
        return
    text = path.read_text(encoding="utf-8").lower()
    assert not [word for word in WORDS if word in text]


@each_file
def test_private_names_of_a_library_stay_in_it(path: Path) -> None:
    """``torch._C`` or ``from timm.models._hub import x``; an adapter says so in a comment on the line: ``private:``."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(parse(path)):
        private = ""
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            private = next((name for name in names if name.startswith("_")), "")
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root: ast.AST = node
            while isinstance(root, ast.Attribute):
                root = root.value
            private = node.attr if isinstance(root, ast.Name) and root.id in LIBRARIES else ""
        if private:
            assert "private:" in lines[node.lineno - 1], f"{path}:{node.lineno} uses {private}"
