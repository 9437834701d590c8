"""What MkDocs does beside its own work for ``make site``: pages from elsewhere, links to files, formulas, no network.

- README's sisters in the repository's root, and the command-line reference, become pages.
- A link to a file of the repository leads to a page that shows it.
- Formulas become MathML, which browsers draw without a script.
- A page that would load anything from the network stops the build.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import make_cli
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import gcpzoo

ROOT = Path(__file__).parents[1]
PAGES = {
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "models.md": "MODEL_CARD.md",
    "security.md": "SECURITY.md",
}
"""Page of the site → file of the repository that it shows."""
IMAGES = (".png", ".svg", ".jpg")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".json": "json"}
FENCE_OR_LINK = re.compile(r"^( *)(```+|~~~+).*?^\1\2|(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))", re.DOTALL | re.MULTILINE)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\([(\[])(.*?)\\[)\]]\s*</\1>', re.DOTALL)
MATRIX = re.compile(r"\\begin\{(\w*matrix)\}.*?\\end\{\1\}", re.DOTALL)
PARTS = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
"""How many parts an element of MathML has, where the number is fixed."""
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|icon))[^>]*\bhref=[\"']?(?:https?:)?//"
)
"""What makes a browser ask the network."""


def on_config(config: Any) -> Any:
    """Show the version."""
    config.site_name = f"{config.site_name} {gcpzoo.__version__}"
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages from elsewhere, and one for each file that a page links to."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "cli.md", content=make_cli.page()))
    for file in list(files.documentation_pages()):
        for path in linked_files(file.content_string, source_of(file.src_uri)):
            uri = shown_at(path)
            if uri.startswith("files/") and files.get_file_from_path(uri) is None:
                files.append(_page_of(config, uri, ROOT / path))
    return files


def _page_of(config: Any, uri: str, path: Path) -> File:
    """Show a file, or what a folder holds; an image stays an image."""
    if path.suffix in IMAGES:
        return File.generated(config, uri, abs_src_path=str(path))
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        body = "\n".join(f"- `{child.name}`" for child in sorted(path.iterdir()) if not child.name.startswith("."))
    else:
        body = f"~~~~{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text(encoding='utf-8').rstrip()}\n~~~~"
    return File.generated(config, uri, content=f"---\nsearch: {{exclude: true}}\n---\n# {name}\n\n{body}\n")


def source_of(page: str) -> str:
    """Give the file of the repository that a page of the site is written from."""
    return PAGES.get(page, f"docs/{page}")


def shown_at(path: str) -> str:
    """Give the place in the site of a file of the repository."""
    for page, source in PAGES.items():
        if path == source:
            return page
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/") and not path.endswith(".py"):
        return path.removeprefix("docs/")
    return f"files/{path}" if path.endswith(IMAGES) else f"files/{path}.md"


def linked_files(text: str, source: str) -> Iterator[str]:
    """Yield the files of the repository that a page links to."""
    for match in FENCE_OR_LINK.finditer(text):
        if match[3] and "://" not in match[3] and not match[3].startswith("mailto:"):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[3]))
            if (ROOT / path).exists():
                yield path


def relink(text: str, page: str) -> str:
    """Lead the links of a page to where the site shows their files; MkDocs complains about those that lead nowhere."""
    source = source_of(page)

    def replace(match: re.Match[str]) -> str:
        if not match[3]:
            return match[0]
        found = next(linked_files(f"]({match[3]})", source), None)
        if found is None:
            return match[0]
        return posixpath.relpath(shown_at(found), posixpath.dirname(page) or ".") + (match[4] or "")

    return FENCE_OR_LINK.sub(replace, text)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead links to pages of the site, and write formulas one way."""
    return re.sub(r"\$`([^`\n]+)`\$", r"$\1$", relink(markdown, page.file.src_uri))


def on_page_content(text: str, *, page: Any, **_: Any) -> str:
    """Turn the page's formulas into MathML."""
    return FORMULA.sub(lambda m: mathml(html.unescape(m[3]), m[2] == "[", page.file.src_uri), text)


def mathml(formula: str, block: bool, page: str = "") -> str:
    """Turn a formula in LaTeX into MathML.

    Raises:
        PluginError: if the formula cannot be turned, or has a command that is not known.
    """
    grouped = MATRIX.sub(r"{\g<0>}", formula.replace("\\\n", " ").strip())  # or its power would be that of a bracket
    try:
        text: str = convert(grouped, display="block" if block else "inline")
    except Exception as error:
        raise PluginError(f"{page}: the formula {formula!r} cannot be read: {error!r}") from error
    if unknown := re.search(r">(\\[A-Za-z]+)<", text):
        raise PluginError(f"{page}: the formula {formula!r} has the command {unknown[1]}, which is not known")
    for part in ElementTree.fromstring(text).iter():
        kind = part.tag.rpartition("}")[2]
        if len(part) != PARTS.get(kind, len(part)):
            raise PluginError(f"{page}: the formula {formula!r} has an {kind} with {len(part)} of {PARTS[kind]} parts")
    return text


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Refuse a page that needs the network."""
    if loaded := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} would load something from the network: {loaded[0]}")
    return output
