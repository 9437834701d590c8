"""The web page: what its controls answer, what it is made of, where it listens."""

from __future__ import annotations

import socket
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gcpzoo.analysis.explanations.explain import Explanation
from gcpzoo.data import Digits
from gcpzoo.errors import ZooError
from gcpzoo.limits import UPLOAD_BYTES
from gcpzoo.serve import ClassScore, Viewer, build_page, opened
from gcpzoo.serve.markup import show_look
from gcpzoo.serve.page import DIGITS, Answers
from gcpzoo.serve.viewer import Look, Neighbor, Opinion

MODEL, SEVEN = "resnet18_isqrt.digits", str(DIGITS / "7.png")


@pytest.fixture(scope="module")
def viewer() -> Viewer:
    return Viewer(MODEL)


@pytest.fixture(scope="module")
def answers(viewer: Viewer) -> Answers:
    return Answers(viewer)


def test_an_image_gets_bars_maps_and_its_classes_to_explain(answers: Answers) -> None:
    html, explain, beside = answers.anew(SEVEN, MODEL, False)
    assert html.count("<li") == 5 + 2  # classes, and meanings of maps
    assert html.count("<img") == 3 + 3  # the image and two maps, and three pairs of channels
    assert "What speaks for “7”" in html
    assert explain.choices[0] == ("the likeliest class", "")
    assert explain.choices[1] == ("7", "7")
    assert explain.visible
    assert beside.visible


def test_another_class_is_explained_on_request(answers: Answers) -> None:
    assert "What speaks for “3”" in answers.again(SEVEN, MODEL, False, "3")


def test_a_bad_file_is_one_line_and_nothing_to_explain(answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "<b>.png").write_bytes(b"no image")
    html, explain, _ = answers.anew(str(tmp_path / "<b>.png"), MODEL, False)
    assert html.startswith('<p class="zoo-error" role="alert">cannot read image &lt;b&gt;.png: not an image in AVIF, ')
    assert html.endswith("; replace or delete it</p>")
    assert not explain.visible


def test_what_nobody_foresaw_is_a_line_in_place_of_the_last_answer(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gcpzoo.serve.viewer.explain_image", lambda *_: 1 / 0)
    html, explain, _ = answers.anew(SEVEN, MODEL, False)
    assert "an unexpected error, which the server&#x27;s log explains" in html
    assert not explain.visible
    assert "ZeroDivisionError" in caplog.text


def test_without_an_image_the_page_says_what_to_do(answers: Answers) -> None:
    assert "Choose an image" in answers.again(None, MODEL, False, None)


def test_another_model_is_shown_beside_its_control_where_that_is_here(
    answers: Answers, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = "mobilenet_v2_isqrt.in1k_wang2020_lradju"
    box = answers.chosen(None, far)[2]
    assert (box.visible, box.value) == (True, False)
    assert "mobilenet_v2_gap.in1k_wang2020_lradju" in box.label
    monkeypatch.setattr(viewer, "control_of", lambda name: MODEL)
    box = answers.chosen(None, far)[2]
    assert (box.visible, box.value) == (True, True)
    assert not answers.anew(None, far, False)[2].value


def test_a_digit_goes_to_a_model_that_reads_digits(answers: Answers, viewer: Viewer) -> None:
    assert answers.taker(SEVEN)("mobilenet_v2_isqrt.grocery81") == (SEVEN, MODEL)
    viewer._loaded["mine"] = viewer._loaded[MODEL]
    assert answers.taker(SEVEN)("mine") == (SEVEN, "mine")


def test_the_digits_are_test_images_of_their_class() -> None:
    test = [(image.numpy(), label) for image, label in Digits().index().splits["test"]]
    for path in sorted(DIGITS.iterdir()):
        pixels = np.asarray(Image.open(path))
        assert any(label == int(path.stem) and np.array_equal(image[0], pixels) for image, label in test)


def opinion(description: str, probability: float = 0.5) -> Opinion:
    seen = Explanation(torch.zeros(3, 8, 8, dtype=torch.uint8), 0, description, probability, (description, probability))
    return Opinion("<m>", "head <i>", (ClassScore("x", description, probability),), seen)


def test_every_text_of_others_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    near = (Neighbor(f"/a/{evil}", 0.5, None, Image.new("RGB", (4, 4))), Neighbor("/b", 0.4, evil))
    html = show_look(Look(evil, (opinion(evil),), near, (evil,)))
    assert "<script" not in html
    assert "<m>" not in html
    assert html.count("&lt;script&gt;") == 5
    assert "cannot be read any more" in html


def test_the_second_opinion_is_called_the_control() -> None:
    html = show_look(Look("x", (opinion("a"), opinion("b"))))
    assert html.count("the GAP control") == 1
    assert html.index("the GAP control") > html.index("zoo-control")


@pytest.fixture(scope="module")
def address(viewer: Viewer) -> Iterator[str]:
    with opened(viewer, port=0) as url:
        yield url


def test_the_page_is_served_on_this_computer_only_and_keeps_to_itself(address: str) -> None:
    with urllib.request.urlopen(address, timeout=20) as answer:
        text = answer.read().decode()
    assert address.startswith("http://127.0.0.1:")
    assert '"analytics_enabled":false' in text.replace(" ", "")
    assert "fonts.googleapis.com" not in text
    assert not [line for line in text.split("<") if line.startswith(("script", "link")) and '="http' in line]


def test_a_file_beyond_the_limit_is_refused(address: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body += bytes(UPLOAD_BYTES + 1) + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{address}/gradio_api/upload", body, headers)
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(request, timeout=20)


def test_an_address_of_ipv6_is_printed_as_browsers_take_it(viewer: Viewer) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with opened(viewer, "::1", 0) as url, urllib.request.urlopen(url, timeout=20) as answer:
        assert url.startswith("http://[::1]:")
        assert answer.status == 200


def test_a_host_without_a_name_is_refused() -> None:
    with pytest.raises(ZooError, match="host must be an address such as 127"):
        opened(host="", port=0).__enter__()


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ZooError, match=f"cannot listen on 127.0.0.1 port {port}: .*; --port 0 takes a free port"):
            opened(port=port).__enter__()


def test_nothing_of_a_visitor_stays(viewer: Viewer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Page:
        def launch(self, **options: Any) -> None:
            (folder,) = tmp_path.iterdir()
            (folder / "visitor.png").write_bytes(b"")
            assert not options["share"]

        def close(self, verbose: bool) -> None: ...

    monkeypatch.setattr("gcpzoo.serve.page.build_page", lambda viewer: Page())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with opened(viewer, port=0):
        assert len(list(tmp_path.glob("*/visitor.png"))) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_function_of_the_page_is_open_to_programs_and_models_take_turns(viewer: Viewer) -> None:
    functions = build_page(viewer).fns.values()
    assert len(functions) == 5 + 2 * len(list(DIGITS.iterdir()))
    assert {one.api_visibility for one in functions} == {"private"}
    assert {(one.concurrency_limit, one.concurrency_id) for one in functions} == {(1, "models")}


def test_without_gradio_the_command_names_the_extra(
    cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = cli("app", "--port", "0")
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'gcpzoo[app]'" in err
