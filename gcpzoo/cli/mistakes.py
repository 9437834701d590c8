"""``mistakes.html``: the worst confusions and the most confident mistakes of a test, with the images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gcpzoo.analysis.confusions import worst_confusions
from gcpzoo.data.images import ImageError
from gcpzoo.experiments.report.document import Document, Figure, Gallery, Heading, Table, Text
from gcpzoo.models.class_labels import class_labels

FILE = "mistakes.html"
SIDE, CONFUSIONS, EXAMPLES, CONFIDENT = 128, 8, 6, 24
"""Pixels of a thumbnail; confusions with images, images of each, and confident mistakes: a page of some 300 kB."""
Row = tuple[float, int, int]
"""Probability of the likeliest class, that class, and the true one."""


def write_mistakes(table: Sequence[Row], model: Any, data: Any, folder: Path) -> Path | None:
    """Write the page of a test, one file that needs no other.

    Args:
        table: of each test image, in the order of the data's samples.
        model: whose class descriptions are shown.
        data: one of the zoo's data modules, whose images can be read again; others get no page.
        folder: of the run.

    Returns:
        The page; nothing where there is none to write.
    """
    samples = data.samples("test") if hasattr(data, "samples") and hasattr(data, "reader") else []
    if not table or len(samples) != len(table):
        return None
    _, names = class_labels(model)
    counts = torch.zeros(len(names), len(names), dtype=torch.int64)
    for _, predicted, true in table:
        counts[true, predicted] += 1
    wrong = sorted((i for i, (_, k, y) in enumerate(table) if k != y), key=lambda i: (-table[i][0], i))
    share = 100 * (1 - len(wrong) / len(table))
    parts: list[Heading | Text | Table | Figure | Gallery] = [
        Heading("Mistakes on the test images", 1),
        Text(f"{len(table) - len(wrong):,} of {len(table):,} images are right ({share:.2f} %), {len(wrong):,} wrong."),
    ]
    read = data.reader(train=False)

    def gallery(indices: Sequence[int]) -> Gallery:
        return Gallery([(thumbnail(read, samples[i][0]), _line(table[i], names, samples[i][0], i)) for i in indices])

    found = worst_confusions(counts, 20)
    if found:
        rows = [
            [names[c.true], names[c.predicted], f"{c.count:,} of {c.images:,}", f"{100 * c.share:.1f}"] for c in found
        ]
        parts += [
            Heading("Worst confusions"),
            Text("Pairs of classes by number of images; the most confident mistakes of the first stand below."),
            Table(["true class", "predicted", "images", "% of the true class"], rows, names=2),
        ]
        for c in found[:CONFUSIONS]:
            parts.append(Heading(f"{names[c.true]}, taken for {names[c.predicted]}", 3))
            parts.append(gallery([i for i in wrong if table[i][1:] == (c.predicted, c.true)][:EXAMPLES]))
        parts += [
            Heading("Most confident mistakes"),
            Text("The network is surest of these wrong answers: hard images, or wrong labels."),
            gallery(wrong[:CONFIDENT]),
        ]
    path = folder / FILE
    Document(parts).write(path)
    return path


def thumbnail(read: Any, sample: Any) -> bytes:
    """Make a small JPEG of an image; of one that cannot be read any more, a grey one."""
    try:
        image = read(sample)
    except ImageError:
        image = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    image = image.convert("RGB")
    scale = SIDE / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    small = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _line(row: Row, names: Sequence[str], sample: Any, number: int) -> str:
    probability, predicted, true = row
    name = "/".join(Path(sample).parts[-2:]) if isinstance(sample, str) else f"test image {number}"
    return f"{names[true]}, taken for {names[predicted]} with {100 * probability:.1f} %: {name}"
