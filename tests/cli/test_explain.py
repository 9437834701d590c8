"""``gcpzoo explain``: figures and JSON of images, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from image_files import photo
from PIL import Image

from gcpzoo.data import Digits

Cli = Callable[..., tuple[int, str, str]]
MODEL = "resnet18_isqrt.digits"


@pytest.fixture
def digits(tmp_path: Path) -> list[Path]:
    """Two digits under the same name, a 1 and a 4."""
    data, paths = Digits(), []
    for number, (image, _) in enumerate(data.samples("test")[:2]):
        paths.append(tmp_path / str(number) / "digit.png")
        paths[-1].parent.mkdir()
        data.reader(train=False)(image).save(paths[-1])
    return paths


def test_images_get_a_figure_each_and_their_pairs_as_json(cli: Cli, digits: list[Path]) -> None:
    code, out, err = cli("explain", "--model", MODEL, *digits, "--output", "explained")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in Path("explained").iterdir()) == [
        "digit-2.png",
        "digit.png",
        "explanations.json",
    ]
    with Image.open("explained/digit-2.png") as figure:
        assert min(figure.size) > 400
    first, second = json.loads(Path("explained/explanations.json").read_text())["images"]
    assert (first["description"], second["description"]) == ("1", "4")
    assert second["figure"] == "digit-2.png"
    pair = second["pairs_for"][0]
    assert f"channels {pair['i']} × {pair['j']} add {pair['contribution']:+.4f} to the logit" in out
    assert sum(sum(row) for row in second["maps"]["second order"]) == pytest.approx(second["second_order"])


def test_another_class_than_the_likeliest_can_be_explained(cli: Cli, digits: list[Path]) -> None:
    options = ("--class", "7", "--method", "second_order", "--pairs", "0")
    code, out, err = cli("explain", "--model", MODEL, digits[0], "--output", "explained", *options)
    assert code == 0, err
    assert ": 7 " in out
    assert "channels" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--class", "seven"), "unknown class 'seven'"),
        (("--method", "gradcam"), "unknown method 'gradcam': did you mean grad_cam?"),
        (("--method", ","), "--method must be grad_cam, second_order or both, got none"),
        (("--pairs", "9"), "pairs must be between 0 and 5, got 9"),
    ],
)
def test_a_wrong_option_is_one_line(cli: Cli, digits: list[Path], options: tuple[str, ...], message: str) -> None:
    code, _, err = cli("explain", "--model", MODEL, digits[0], "--output", "explained", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not Path("explained").exists()


def test_without_grad_cam_the_extra_is_named_and_the_second_order_still_works(
    cli: Cli, digits: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    code, _, err = cli("explain", "--model", MODEL, digits[0], "--output", "explained")
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'gcpzoo[explain]'" in err
    code, _, err = cli("explain", "--model", MODEL, digits[0], "--output", "explained", "--method", "second_order")
    assert code == 0, err


def test_an_image_that_cannot_be_read_is_named_after_the_others(cli: Cli, digits: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    photo().save(tmp_path / "whole.png")
    options = ("--output", "explained", "--method", "second_order")
    code, _, err = cli("explain", "--model", MODEL, "broken.png", "whole.png", *options)
    assert code == 2
    assert "1 of 2 images cannot be read: broken.png" in err
    assert Path("explained/whole.png").is_file()


def test_a_figure_never_replaces_an_image_nor_joins_the_images_of_a_folder(cli: Cli, digits: list[Path]) -> None:
    before = digits[0].read_bytes()
    code, _, err = cli("explain", "--model", MODEL, digits[0], "--output", digits[0].parent)
    assert (code, "digit.png' is one of the files to read" in err) == (2, True)
    code, _, err = cli("explain", "--model", MODEL, digits[0].parent, "--output", digits[0].parent / "explained")
    assert (code, "output must lie outside of the images" in err) == (2, True)
    assert digits[0].read_bytes() == before
    assert [path.name for path in digits[0].parent.iterdir()] == ["digit.png"]
