"""Fill the blocks of the pages in docs/ that show a command with what the command prints.

A block stands between ``<!-- run: gcpzoo … -->`` and ``<!-- ran -->``; ``<!-- refused: gcpzoo … -->`` shows one that
must end with an error. The commands of a page run one after another in one new folder, which holds the digits of
scikit-learn, ``digits/train/LABEL/N.png`` and ``digits/test/LABEL/N.png``, and a link to ``examples``.

python docs/make_outputs.py              # all pages
python docs/make_outputs.py export.md    # these
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
BLOCK = re.compile(r"(<!-- (run|refused): (.+?) -->\n)(.*?)(<!-- ran -->)", re.DOTALL)
SECONDS = 300


def commands(text: str) -> list[str]:
    """The commands of a page, in order."""
    return [match[2] for match in BLOCK.findall(text)]


def fill(text: str, folder: Path) -> str:
    """The page with the output of each command, all of them run in one folder."""

    def replace(match: re.Match[str]) -> str:
        start, kind, command, _, end = match.groups()
        return f"{start}```console\n$ {command}\n{output(command, kind == 'refused', folder)}\n```\n{end}"

    return BLOCK.sub(replace, text)


def output(command: str, refused: bool, folder: Path) -> str:
    """What a command prints; its exit code must be 0, or 2 where it must be refused."""
    program, *arguments = shlex.split(command)
    known = {"gcpzoo": [sys.executable, "-m", "gcpzoo"], "python": [sys.executable]}
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(
        [*known[program], *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=SECONDS,
    )
    if done.returncode != (2 if refused else 0):
        raise SystemExit(f"{command} ended with exit code {done.returncode}:\n{done.stdout}")
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def write_digits(folder: Path) -> None:
    """Write scikit-learn's digits as image files, split as ``gcpzoo.data.Digits`` splits them."""
    from gcpzoo.data import Digits

    data = Digits()
    read = data.reader(train=False)
    for split, samples in data.index().splits.items():
        for number, (image, label) in enumerate(samples):
            path = folder / "digits" / split / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            read(image).save(path)


def main() -> None:
    """Write the pages."""
    pages = [HERE / name for name in sys.argv[1:]] or sorted(HERE.glob("*.md"))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if commands(text):
            with tempfile.TemporaryDirectory() as name:
                write_digits(Path(name))
                (Path(name) / "examples").symlink_to(HERE.parent / "examples")
                page.write_text(fill(text, Path(name)), encoding="utf-8")


if __name__ == "__main__":
    main()
