"""A report as headings, text, tables and figures, written as one HTML page or as Markdown."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from gcpzoo.analysis.drawing.style import STYLE
from gcpzoo.errors import printable
from gcpzoo.paths import write_text


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title.

    >>> Heading("Results", 2).level
    2
    """

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph.

    >>> Text("One seed proves nothing.").text
    'One seed proves nothing.'
    """

    text: str


@dataclass(frozen=True)
class Table:
    """A table; its first columns are names, the others figures.

    >>> Table(["head", "top-1 %"], [["gap", "91.5"]], names=1).rows
    [['gap', '91.5']]
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


@dataclass(frozen=True)
class Figure:
    """A figure: its SVG, which names it, and what it shows.

    >>> Figure("Curves", "<svg/>", "Mean over seeds.").caption
    'Mean over seeds.'
    """

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Small images with a line below each; in Markdown only the lines.

    Args:
        images: content of a JPEG or PNG file, and its line.

    >>> Gallery([(b"", "a cat, taken for a dog")]).images[0][1]
    'a cat, taken for a dog'
    """

    images: Sequence[tuple[bytes, str]]


@dataclass
class Document:
    """The parts of a report, in order.

    >>> Document([Heading("Report", 1)]).parts
    [Heading(text='Report', level=1)]
    """

    parts: list[Heading | Text | Table | Figure | Gallery] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write it as ``.html``, one page without further files, or as ``.md``, with figures in a folder beside it."""
        text = self.to_markdown(path) if path.suffix == ".md" else self.to_html()
        write_text(path, text)

    def to_html(self) -> str:
        """Return the page."""
        title = next((p.text for p in self.parts if isinstance(p, Heading)), "Report")
        body = "\n".join(map(_html, self.parts))
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(title)}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<link rel="icon" href="data:,">\n'
            f"<style>{CSS}{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
        )

    def to_markdown(self, path: Path) -> str:
        """Return Markdown, and write its figures into ``NAME_figures`` beside ``path``."""
        folder = path.with_name(f"{path.stem}_figures")
        lines: list[str] = []
        for number, part in enumerate(self.parts):
            if isinstance(part, Figure):
                file = folder / f"{number:03d}.svg"
                start = part.svg.index(">") + 1
                write_text(file, f"{part.svg[:start]}<style>{STYLE}</style>{part.svg[start:]}")
                lines.append(f"![{_plain(part.name)}]({folder.name}/{file.name})\n\n*{_plain(part.caption)}*\n")
            elif isinstance(part, Table):
                lines.append(_markdown_table(part))
            elif isinstance(part, Gallery):
                lines.append("\n".join(f"- {_plain(line)}" for _, line in part.images) + "\n")
            elif isinstance(part, Heading):
                lines.append(f"{'#' * part.level} {_plain(part.text)}\n")
            else:
                lines.append(f"{_plain(part.text)}\n")
        return "\n".join(lines)


CSS = """
:root{color-scheme:light dark;--text:#1a1a1a;--back:#fff;--line:#d0d0d0;--soft:#5a5a5a}
@media screen and (prefers-color-scheme:dark){:root{--text:#e8e8e8;--back:#15181c;--line:#3c434b;--soft:#a8b0b8}}
body{margin:0;background:var(--back);color:var(--text);font:16px/1.5 system-ui,sans-serif}
main{max-width:70rem;margin:0 auto;padding:1.5rem}
h1,h2,h3{line-height:1.25;margin:2rem 0 .6rem}h1{margin-top:0}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;margin:.8rem 0}
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
td:not(.name){white-space:nowrap}
th.name,td.name{text-align:left}
figure{margin:1rem 0}svg{max-width:100%;height:auto;display:block}
figcaption{color:var(--soft);font-size:.85rem}
.gallery{display:flex;flex-wrap:wrap;gap:.8rem;margin:.6rem 0}.gallery figure{margin:0;width:9rem}
.gallery img{width:9rem;height:9rem;object-fit:contain;background:#8883}.gallery figcaption{overflow-wrap:anywhere}
@media print{main{max-width:none;padding:0}figure,tr{break-inside:avoid}h2,h3{break-after:avoid}}
"""


def _text(text: str) -> str:
    return escape(printable(text))


def _html(part: Heading | Text | Table | Figure | Gallery) -> str:
    if isinstance(part, Heading):
        return f"<h{part.level}>{_text(part.text)}</h{part.level}>"
    if isinstance(part, Text):
        return f"<p>{_text(part.text)}</p>"
    if isinstance(part, Gallery):
        return '<div class="gallery">' + "\n".join(_thumbnail(*image) for image in part.images) + "</div>"
    if isinstance(part, Figure):
        return f"<figure>\n{part.svg}\n<figcaption>{_text(part.caption)}</figcaption>\n</figure>"

    def row(cells: Sequence[str], tag: str) -> str:
        looks = [' class="name"' if i < part.names else "" for i in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{look}>{_text(c)}</{tag}>" for c, look in zip(cells, looks)) + "</tr>"

    head, rows = row(part.columns, "th"), "\n".join(row(cells, "td") for cells in part.rows)
    return f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _thumbnail(content: bytes, line: str) -> str:
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{kind};base64,{b64encode(content).decode()}"
    return f'<figure><img src="{source}" alt="">\n<figcaption>{_text(line)}</figcaption></figure>'


def _plain(text: str) -> str:
    """Escape what Markdown and HTML would take for their own."""
    for character in "\\`*_|[]#":
        text = text.replace(character, f"\\{character}")
    return escape(printable(text).replace("\\\\", "\\"), quote=False)


def _markdown_table(table: Table) -> str:
    marks = ["---" if i < table.names else "--:" for i in range(len(table.columns))]
    rows = [map(_plain, table.columns), marks, *(map(_plain, row) for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
