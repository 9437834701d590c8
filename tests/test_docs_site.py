"""The pages: links, commands and code that work, and what the site makes of them."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from gcpzoo.cli.folder_request import read_request
from gcpzoo.cli.help import EXAMPLES, trainer_options
from gcpzoo.cli.main import TRAINER_COMMANDS, parser
from gcpzoo.cli.shortcuts import expand_shortcuts, is_on_data
from gcpzoo.cli.untrusted import OPTION

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "benchmarks" / "README.md", *sorted(DOCS.rglob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
ASKS_FOR_HELP = ("help", "help-all", "data.help", OPTION.lstrip("-"))
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page."""
    return [textwrap.dedent(code) for _, found, code in FENCE.findall(TEXTS[page]) if found == language]


def commands(page: Path, program: str) -> list[str]:
    """The lines of a page's shell that begin with a program; a line with … is a sketch."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(f"{program} ") and "…" not in line]


def anchors(page: Path) -> set[str]:
    """The places in a page that a link can lead to, named as GitHub and the site name them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    named = {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}
    return named | set(re.findall(r'<a id="([^"]+)">', text))


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", TEXTS[page])):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if name == "cli.md":  # written when the site is built
            continue
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pages
def test_every_command_is_one_that_its_parser_takes(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_images").mkdir()
    for line in commands(page, "gcpzoo"):
        arguments = shlex.split(line, comments=True)[1:]
        if arguments[0] in TRAINER_COMMANDS or (arguments[0] == "predict" and is_on_data(arguments)):
            unknown = [name for name in trainer_options_of(arguments) if not exists(name)]
            assert not unknown, line
        else:
            assert parser().parse_args(arguments).handler is not None, line


def trainer_options_of(arguments: list[str]) -> list[str]:
    """The options that a command gives to the trainer, written out."""
    for name in arguments:
        if name.endswith((".ckpt", ".safetensors")) or name == "theirs.yaml":  # a file of one's own must exist
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()
    if arguments[0] == "fit" and (request := read_request(arguments)):
        arguments = ["fit", *request.rest]
    return [a[2:].partition("=")[0].rstrip("+") for a in expand_shortcuts(arguments) if a.startswith("--")]


def exists(option: str) -> bool:
    """Whether the trainer has an option; callbacks and loggers bring theirs along."""
    from gcpzoo.cli.parser import options

    return option.startswith(("trainer.callbacks.", "trainer.logger.")) or option in {*options(), *ASKS_FOR_HELP}


def test_the_pages_show_many_commands() -> None:
    assert sum(len(commands(page, "gcpzoo")) for page in PAGES) > 70
    assert len(commands(DOCS / "use.md", "gcpzoo")) > 10


@pages
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {shlex.split(line, comments=True)[1] for line in commands(page, "make")} <= targets


@pages
def test_every_block_of_python_can_be_parsed(page: Path) -> None:
    for code in blocks(page, "python"):
        if not code.startswith(">>>"):  # an example of a docstring, which runs as one
            ast.parse(code)


def test_the_tutorials_head_works_as_it_stands() -> None:
    from gcpzoo.heads.registry import REGISTRY

    written, used, *_ = blocks(DOCS / "tutorials" / "add_head.md", "python")
    scope: dict[str, object] = {"__name__": "tutorial"}
    try:
        exec(written, scope)
        exec(used, scope)
        import torch

        x = torch.randn(2, 4, 30, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(REGISTRY["correlation"](4).normalize(x)[0], torch.corrcoef(x[0]), atol=1e-6)
    finally:
        REGISTRY.pop("correlation", None)


def test_readme_is_one_screen_and_start_names_every_extra() -> None:
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= 70
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert set(re.findall(r"^\| `(\w+)` \|", TEXTS[DOCS / "index.md"], re.MULTILINE)) == set(extras)


def test_every_page_stands_once_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"- ([\w/-]+\.md)$", config.partition("\nnav:")[2], re.MULTILINE)
    added = re.findall(r'^    "(\w+\.md)": ', (DOCS / "site_hooks.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted([*(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")), *added, "cli.md"])


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a script of docs/."""
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_command_with_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    make_cli = load("make_cli", monkeypatch)
    sections = dict(re.findall(r"^## gcpzoo (\S+)$(.*?)(?=^## |\Z)", make_cli.page(), re.DOTALL | re.MULTILINE))
    assert set(sections) == set(EXAMPLES)
    assert list(make_cli.options(make_cli.subcommands(parser())["shard"][1]))[2][0] == "--max-mb N"
    for name, section in sections.items():
        assert all(example in section for example in EXAMPLES[name])
    for name in TRAINER_COMMANDS:
        assert all(f"| `{option}` |" in sections[name] for option, _ in trainer_options(name))
    for option in ("--model", "--top", "--json", "--skip-corrupt", "IMAGES"):
        assert f"| `{option}" in sections["predict"]


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("latex2mathml")
    pytest.importorskip("mkdocs")
    return load("site_hooks", monkeypatch)


def test_links_of_the_repository_lead_to_pages_of_the_site(hooks: ModuleType) -> None:
    assert hooks.relink("[a](../MODEL_CARD.md#x) [b](data.md)", "use.md") == "[a](models.md#x) [b](data.md)"
    assert hooks.relink("[a](../../configs/pretrain/digits.yaml)", "tutorials/reproduce.md") == (
        "[a](../files/configs/pretrain/digits.yaml.md)"
    )
    assert hooks.relink("[a](docs/data.md) [b](LICENSE)", "contributing.md") == "[a](data.md) [b](files/LICENSE.md)"
    assert hooks.relink("![a](results/heads.png)", "benchmarks.md") == "![a](files/benchmarks/results/heads.png)"
    for text in ("[a](https://arxiv.org)", "[a](#here)", "```\n[a](../LICENSE)\n```", "[a](nowhere.md)"):
        assert hooks.relink(text, "use.md") == text


def test_every_formula_of_the_pages_becomes_mathml(hooks: ModuleType) -> None:
    heads = TEXTS[DOCS / "heads.md"]
    formulas = [*blocks(DOCS / "heads.md", "math"), *re.findall(r"\$`([^`\n]+)`\$", FENCE.sub("", heads))]
    for page in (DOCS / "analysis.md", DOCS / "tutorials" / "add_head.md"):
        text = FENCE.sub("", TEXTS[page])
        formulas += re.findall(r"\$\$(.+?)\$\$", text, re.DOTALL)
        formulas += re.findall(r"\$([^\s$][^$\n]*)\$", re.sub(r"\$\$.+?\$\$", "", text, flags=re.DOTALL))
    assert len(formulas) > 100
    assert all(hooks.mathml(formula, True).startswith("<math") for formula in formulas)


def test_the_power_of_a_matrix_is_that_of_the_whole_matrix(hooks: ModuleType) -> None:
    from xml.etree import ElementTree

    text = hooks.mathml("\\begin{pmatrix}a\\\\1\\end{pmatrix}^\\top", True)
    [power] = [part for part in ElementTree.fromstring(text).iter() if part.tag.endswith("msup")]
    base, exponent = power
    assert len(base.findall(".//{*}mtr")) == 2
    assert exponent.text == "⊤"


def test_a_formula_that_cannot_be_drawn_stops_the_build(hooks: ModuleType) -> None:
    page = type("Page", (), {"file": type("File", (), {"src_uri": "x.md"})})
    text = hooks.on_page_content('<p><span class="arithmatex">\\(a &lt; b\\)</span></p>', page=page)
    assert "<math" in text
    assert "<mo>&#x0003C;</mo>" in text
    for wrong in ("\\unheard{x}", "\\frac{1}"):
        with pytest.raises(hooks.PluginError, match=r"x\.md: the formula"):
            hooks.on_page_content(f'<div class="arithmatex">\\[{wrong}\\]</div>', page=page)


@pytest.mark.parametrize(
    ("tag", "loads"),
    [
        ('<script src="https://cdn.example/x.js"></script>', True),
        ('<img alt="a" src="//cdn.example/x.png">', True),
        ('<link rel="stylesheet" href="https://fonts.example/css">', True),
        ('<link href="https://fonts.example/" crossorigin rel=preconnect>', True),
        ('<link rel="canonical" href="https://example.org/">', False),
        ('<script src="assets/x.js"></script><a href="https://arxiv.org">paper</a>', False),
    ],
)
def test_a_page_that_needs_the_network_stops_the_build(tag: str, loads: bool, hooks: ModuleType) -> None:
    page = type("Page", (), {"file": type("File", (), {"src_uri": "x.md"})})
    if loads:
        with pytest.raises(hooks.PluginError, match="from the network"):
            hooks.on_post_page(tag, page=page)
    else:
        assert hooks.on_post_page(tag, page=page) == tag
