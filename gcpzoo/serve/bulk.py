"""Predictions of thousands of files into one table, which an interrupted run goes on with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from gcpzoo.analysis.prediction_table import columns_of_files, write_table
from gcpzoo.errors import ZooError
from gcpzoo.models.fingerprint import fingerprint
from gcpzoo.paths import check_outputs, file_state, flush
from gcpzoo.serve.predictor import Answer, ClassScore, Predictor

FORMAT = 1
PART = ".part"
"""Added to the table's name: the file that grows while the table is made, a JSON value in each line."""


def predict_files(
    predictor: Predictor,
    paths: Sequence[str],
    output: str | os.PathLike[str],
    advance: Callable[[int, int], None] = lambda done, kept: None,
) -> list[Answer]:
    """Write the likeliest classes of every file into a CSV table, a row each, in the order of ``paths``.

    The answers are kept in ``OUTPUT.part`` batch by batch. After an interruption the same call goes on from them: files
    of the same size and time of change are not looked at again, those that could not be read are. The table takes its
    place at the end, as a whole.

    Args:
        predictor: the model with its options.
        paths: the files, each once.
        output: the table.
        advance: called with the number of files done, and of those that an earlier run had done.

    Returns:
        The answers of the files that cannot be read.

    Raises:
        ZooError: if ``OUTPUT.part`` is of another model or of other options, or a file cannot be written or is one of
            ``paths``.

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new("L", (8, 8)).save(folder / "a.png")
    >>> predict_files(Predictor("resnet18_isqrt.digits", top=1), [str(folder / "a.png")], folder / "out.csv")
    []
    >>> (folder / "out.csv").read_text().splitlines()[0]
    'path,class,description,probability,error'
    """
    paths, output = list(dict.fromkeys(paths)), Path(output)
    part = output.with_name(output.name + PART)
    check_outputs([output, part], paths)
    head = _head(predictor)
    kept = _read(part, head)
    states = {path: file_state(path) for path in paths}
    answers = {path: kept[path][1] for path in paths if path in kept and kept[path][0] == states[path]}
    left, kept_before = [path for path in paths if path not in answers], len(answers)
    advance(kept_before, kept_before)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with part.open("a" if kept else "w", encoding="utf-8") as file:
            if not kept:
                _append(file, [head])
            for batch in predictor.batches(left):
                answers |= {answer.path: answer for answer in batch}
                _append(file, [_row(answer, states) for answer in batch if answer.error is None])
                advance(len(answers), kept_before)
        flush(part)
    except OSError as error:
        raise ZooError(f"{part} cannot be written: {error.strerror or error}; what it holds is kept") from error
    in_order = [answers[path] for path in paths]
    write_table((_line(answer, predictor.top) for answer in in_order), output, columns_of_files(predictor.top))
    part.unlink()
    return [answer for answer in in_order if answer.error is not None]


def _head(predictor: Predictor) -> dict[str, Any]:
    """Everything but the files that the answers depend on."""
    rule = predictor.model.preprocessing
    return {
        "format": FORMAT,
        "model": fingerprint(predictor.model),
        "top": predictor.top,
        "views": predictor.views,
        "preprocessing": rule.to_dict() if rule else None,
    }


def _row(answer: Answer, states: Mapping[str, Any]) -> list[Any]:
    return [answer.path, states[answer.path], [[c.name, c.description, c.probability] for c in answer.classes]]


def _append(file: IO[str], values: Sequence[Any]) -> None:
    """Hand lines to the system: they outlive this process. A line that a kill cuts is read as if it were not there."""
    file.writelines(json.dumps(value) + "\n" for value in values)
    file.flush()


def _read(part: Path, head: dict[str, Any]) -> dict[str, tuple[Any, Answer]]:
    """Read the answers of an interrupted run, and cut off a last line that is not whole."""
    try:
        content = part.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ZooError(f"{part} cannot be read: {error.strerror or error}") from error
    whole = content[: content.rfind(b"\n") + 1]
    try:
        first, *rows = (json.loads(line) for line in whole.decode("ascii").splitlines() or [""])
        kept = {
            str(path): (state, Answer(path, tuple(ClassScore(*score) for score in scores)))
            for path, state, scores in rows
        }
    except (ValueError, TypeError):
        if not whole:  # killed before the first line was whole
            return {}
        raise ZooError(f"{part} is damaged: delete it to predict all images again") from None
    if rows and first != head:
        known = first if isinstance(first, dict) else {}
        other = next((key for key in head if known.get(key) != head[key]), "format")
        told = f" ({known.get(other)} there, {head[other]} here)" if other in ("top", "views") else ""
        raise ZooError(
            f"{part} holds answers of an interrupted run with another {other}{told}: give the same options to go on "
            "with it, give another output, or delete it"
        )
    if len(whole) < len(content):
        with part.open("r+b") as file:
            file.truncate(len(whole))
    return kept if rows else {}


def _line(answer: Answer, top: int) -> list[str]:
    cells = [cell for c in answer.classes for cell in (c.name, c.description, f"{c.probability:.4f}")]
    return [answer.path, *cells, *[""] * (3 * top - len(cells)), answer.error or ""]
