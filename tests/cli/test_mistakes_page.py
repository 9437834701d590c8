"""``mistakes.html``: what the page of a test shows."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace

from image_files import write
from PIL import Image

from gcpzoo.cli.mistakes import SIDE, thumbnail, write_mistakes
from gcpzoo.data import Digits, ImageFolder

MODEL = SimpleNamespace(class_names=list("0123456789"), class_descriptions=[f"digit {i}" for i in range(10)])


def test_the_page_shows_the_worst_confusions_and_the_surest_mistakes_with_their_images(tmp_path: Path) -> None:
    data = Digits()
    table = [(0.6, label, label) for _, label in data.samples("test")]
    fours = [i for i, row in enumerate(table) if row[2] == 4]
    table[fours[0]], table[fours[1]] = (0.7, 9, 4), (0.9, 9, 4)
    other = next(i for i, row in enumerate(table) if row[2] == 3)
    table[other] = (0.99, 5, 3)
    path = write_mistakes(table, MODEL, data, tmp_path)
    assert path == tmp_path / "mistakes.html"
    page = path.read_text(encoding="utf-8")
    assert "357 of 360 images are right (99.17 %), 3 wrong" in page
    assert page.index("digit 4, taken for digit 9<") < page.index("digit 3, taken for digit 5<")  # by number of images
    surest = page[page.index("Most confident mistakes") :]
    lines = re.findall(r"with ([\d.]+) %: test image (\d+)", surest)
    assert lines == [("99.0", str(other)), ("90.0", str(fours[1])), ("70.0", str(fours[0]))]
    images = re.findall(r"data:image/jpeg;base64,([\w+/=]+)", page)
    assert len(images) == 6
    with Image.open(io.BytesIO(b64decode(images[0]))) as image:
        assert max(image.size) == SIDE
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)


def test_a_test_without_mistakes_says_so_and_foreign_data_get_no_page(tmp_path: Path) -> None:
    data = Digits()
    right = [(0.9, label, label) for _, label in data.samples("test")]
    page = write_mistakes(right, MODEL, data, tmp_path)
    assert page is not None
    assert "Worst confusions" not in page.read_text()
    assert write_mistakes(right, MODEL, SimpleNamespace(), tmp_path) is None
    assert write_mistakes(right[1:], MODEL, data, tmp_path) is None


def test_an_image_that_vanished_is_grey(tmp_path: Path) -> None:
    write(tmp_path, ["train/cat/a.png", "test/cat/a.png", "train/dog/b.png", "test/dog/b.png"])
    data = ImageFolder(root=str(tmp_path), check=False)
    sample = data.samples("test")[0][0]
    Path(sample).unlink()
    with Image.open(io.BytesIO(thumbnail(data.reader(train=False), sample))) as image:
        assert image.getpixel((0, 0)) == (128, 128, 128)
