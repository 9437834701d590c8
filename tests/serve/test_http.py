"""The HTTP interface: what it answers, what it refuses, and many requests at the same time."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from image_files import photo
from PIL import Image

import gcpzoo
from gcpzoo.data.images import ImageError
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.serve import Batcher, Engine, Predictor, create_app
from gcpzoo.serve.http import RequestLimits

pytest.importorskip("fastapi")
Answer = tuple[int, dict[str, Any], dict[str, str]]


def png(seed: int = 0, width: int = 50, height: int = 40) -> bytes:
    file = io.BytesIO()
    photo(width, height, seed).save(file, "png")
    return file.getvalue()


def form(*files: bytes, field: str = "image") -> tuple[bytes, dict[str, str]]:
    """The body of a form with these files, 0.png, 1.png …"""
    head = 'Content-Disposition: form-data; name="{}"; filename="{}.png"\r\n\r\n'
    parts = [f"--X\r\n{head.format(field, i)}".encode() + data + b"\r\n" for i, data in enumerate(files)]
    return b"".join(parts) + b"--X--\r\n", {"content-type": "multipart/form-data; boundary=X"}


async def ask(app: Any, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None) -> Answer:
    """Send one request as an ASGI server does; a body that is a list comes in pieces, of which ``None`` never comes."""
    pieces = list(body) if isinstance(body, list) else [body]
    path, _, query = path.partition("?")
    fields = {"content-length": str(len(body))} if isinstance(body, bytes) else {}
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in (fields | (headers or {})).items()],
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        piece = pieces.pop(0)
        if piece is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    head = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], json.loads(b"".join(m.get("body", b"") for m in sent[1:])), head


def one(app: Any, *args: Any, **kwargs: Any) -> Answer:
    return asyncio.run(ask(app, *args, **kwargs))


@pytest.fixture(scope="module")
def engine(small: gcpzoo.GCPNet) -> Engine:
    return Engine(Predictor(small), "small")


@pytest.fixture
def batcher(engine: Engine) -> Iterator[Batcher]:
    found: Batcher = Batcher(engine.compute, size=8, wait=0.02, limit=16)
    yield found
    found.close()


@pytest.fixture
def app(engine: Engine, batcher: Batcher) -> Any:
    return create_app(engine, batcher, RequestLimits(megabytes=0.02))


def test_a_body_and_a_form_get_the_answer_of_the_bare_model(app: Any, small: gcpzoo.GCPNet) -> None:
    x = torch.stack([small.transform(photo(seed=seed)) for seed in range(3)])
    with torch.no_grad():
        expected = small(x).softmax(1)
    _, raw, _ = one(app, "POST", "/predict?top=2", png(1))
    status, several, _ = one(app, "POST", "/predict?top=2", *form(*map(png, range(3))))
    assert status == 200
    assert several["model"] == "small"
    assert [image["path"] for image in several["images"]] == ["0.png", "1.png", "2.png"]
    assert raw["images"][0]["classes"] == several["images"][1]["classes"]
    for row, image in zip(expected, several["images"]):
        order = row.argsort(descending=True)[:2].tolist()
        assert [c["class"] for c in image["classes"]] == [small.class_names[k] for k in order]
        assert [c["probability"] for c in image["classes"]] == pytest.approx(row[order].tolist(), abs=1e-4)


def test_a_vector_is_the_models_to_the_last_digit(app: Any, small: gcpzoo.GCPNet) -> None:
    with torch.no_grad():
        x = small.transform(photo(seed=4))[None]
        expected = small.forward_head(small.forward_features(x), pre_logits=True)[0]
    status, answer, _ = one(app, "POST", "/embed", png(4))
    assert status == 200
    torch.testing.assert_close(torch.tensor(answer["images"][0]["vector"]), expected, atol=0, rtol=0)


def test_many_at_the_same_time_share_batches_and_each_gets_its_own(app: Any, batcher: Batcher) -> None:
    async def all_of_them() -> list[Answer]:
        asked = [ask(app, "POST", "/embed" if i % 3 == 0 else "/predict?top=1", png(i)) for i in range(12)]
        return list(await asyncio.gather(*asked, ask(app, "POST", "/predict", b"no image")))

    *together, bad = asyncio.run(all_of_them())
    assert bad[0] == 422
    assert batcher.answered == 12
    assert batcher.batches < 12
    for i, (status, answer, _) in enumerate(together):
        alone = one(app, "POST", "/embed" if i % 3 == 0 else "/predict?top=1", png(i))[1]["images"][0]
        assert status == 200
        if i % 3 == 0:
            assert answer["images"][0]["vector"] == pytest.approx(alone["vector"], abs=1e-5)
        else:
            assert answer["images"][0]["classes"][0]["class"] == alone["classes"][0]["class"]
    assert batcher.held == 0


def test_a_bad_image_of_a_form_leaves_the_others_their_answers(app: Any) -> None:
    status, answer, _ = one(app, "POST", "/predict", *form(png(0), png(1)[:100], png(2)))
    assert status == 422
    assert [("classes" in image, "error" in image) for image in answer["images"]] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    assert answer["error"].startswith("1 of 3 images have no answer: cannot read image 1.png: ")


def eps() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "eps")
    return file.getvalue()


FORM = {"content-type": "multipart/form-data; boundary=X"}


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (("POST", "/predict", b"hello"), 422, "cannot read image body: not an image in "),
        (("POST", "/predict", eps()), 422, "not an image in "),
        (("POST", "/predict", b""), 400, "no image: send its bytes as the body"),
        (("POST", "/predict", *form()), 400, "no image: the form must hold files"),
        (("POST", "/predict", *form(b"", field="file")), 400, "must be named 'image', got 'file'"),
        (("POST", "/predict", *form(*[b"x"] * 17)), 400, "Too many files"),
        (("POST", "/predict", b"hello", FORM), 400, "multipart"),
        (("POST", "/predict", b'--X\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--X--\r\n', FORM), 400,
         "must be a file, got text"),
        (("POST", "/predict", bytes(20_001)), 413, "at most 20,000 bytes"),
        (("POST", "/predict", [bytes(15_000), bytes(15_000)]), 413, "at most 20,000 bytes"),
        (("POST", "/predict", form(bytes(30_000))[0], FORM), 413, "at most 20,000 bytes"),
        (("POST", "/predict?top=0", png()), 422, "top must be a whole number of at least 1, got '0'"),
        (("POST", "/predict?top=five", png()), 422, "got 'five'"),
        (("POST", "/predict?topk=2", png()), 422, "unknown parameter 'topk': did you mean top?"),
        (("POST", "/embed?top=2", png()), 422, "unknown parameter 'top'"),
        (("GET", "/predict"), 405, "POST /predict"),
        (("GET", "/docs"), 404, "GET /openapi.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_gets_a_status_and_a_line(
    app: Any, batcher: Batcher, request_: tuple[Any, ...], status: int, message: str
) -> None:
    found, answer, _ = one(app, *request_)
    assert found == status
    assert message in answer["error"]
    assert "\n" not in answer["error"]
    assert batcher.held == 0


@pytest.mark.filterwarnings("ignore:Image size")
def test_an_image_with_too_many_pixels_is_refused(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1999)
    status, answer, _ = one(app, "POST", "/predict", png())
    assert (status, answer["error"]) == (413, "cannot read image body: more than 1,999 pixels")


def test_an_image_that_would_become_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcpzoo.limits.SERVED_PIXELS", 32 * 100)
    model = gcpzoo.create_model("resnet18", "gap", 2, until="layer1")
    model.preprocessing = Preprocessing(resize=32, crop=None)
    batcher: Batcher = Batcher(Engine(Predictor(model), "free").compute)
    app = create_app(Engine(Predictor(model), "free"), batcher)
    assert one(app, "POST", "/predict", png(0, 20, 40))[0] == 200
    status, answer, _ = one(app, "POST", "/predict", png(0, 10, 40))
    assert (status, answer["error"]) == (413, "cannot read image body: 32×128 is more than 3,200 pixels")
    status, answer, _ = one(app, "POST", "/predict", png(0, 1, 70_000))
    assert status == 413
    assert "resized from 1×70,000 to 32×2,240,000 pixels" in answer["error"]
    batcher.close()


def test_a_body_that_does_not_come_ends_the_request(engine: Engine, batcher: Batcher) -> None:
    app = create_app(engine, batcher, RequestLimits(seconds=0.05))
    status, answer, _ = one(app, "POST", "/predict", [b"GIF", None])
    assert (status, answer["error"]) == (408, "the body must come within 0.05 s")
    assert batcher.held == 0


class Stub:
    """A model that takes any bytes; ``gate`` holds its answers back."""

    name = "stub"

    def __init__(self) -> None:
        self.gate = threading.Event()

    def read(self, data: bytes, name: str, kind: str) -> bytes:
        if data == b"defect":
            raise KeyError("a defect of ours")
        return data

    def compute(self, items: list[bytes]) -> list[bytes]:
        assert self.gate.wait(10)
        return items

    def answer(self, kind: str, name: str, values: bytes, top: int) -> dict[str, Any]:
        return {"path": name, "echo": values.decode()}


def test_more_than_there_are_places_for_is_refused_at_once() -> None:
    stub = Stub()
    batcher: Batcher = Batcher(stub.compute, size=2, limit=4)
    app = create_app(stub, batcher)

    async def crowd() -> list[Any]:
        first = [asyncio.create_task(ask(app, "POST", "/predict", f"{i}".encode())) for i in range(4)]
        while batcher.held < 4:
            await asyncio.sleep(0.001)
        late = await ask(app, "POST", "/predict", b"late")
        health = await ask(app, "GET", "/health")
        stub.gate.set()
        return [late, health, *await asyncio.gather(*first), await ask(app, "POST", "/predict", b"again")]

    (status, answer, headers), health, *rest, again = asyncio.run(crowd())
    assert (status, int(headers["retry-after"]) >= 1) == (429, True)
    assert "4 of 4 places are taken" in answer["error"]
    assert (health[0], health[1]["status"], health[1]["taken"]) == (200, "ok", 4)
    assert [answer["images"][0]["echo"] for _, answer, _ in rest] == ["0", "1", "2", "3"]
    assert again[0] == 200
    five, _, _ = one(app, "POST", "/predict", *form(*[b"x"] * 5))
    assert five == 400
    batcher.close()
    assert one(app, "GET", "/health")[0] == 503
    status, answer, headers = one(app, "POST", "/predict", b"too late")
    assert (status, headers["retry-after"]) == (503, "60")
    assert "stopping" in answer["error"]


def test_bodies_that_would_fill_the_memory_are_refused() -> None:
    stub = Stub()
    batcher: Batcher = Batcher(stub.compute)
    app = create_app(stub, batcher, RequestLimits(megabytes=0.001))

    async def crowd() -> list[Any]:
        first = [asyncio.create_task(ask(app, "POST", "/predict", bytes(1000))) for _ in range(8)]
        while batcher.held < 8:
            await asyncio.sleep(0.001)
        late = await ask(app, "POST", "/predict", b"late")
        stub.gate.set()
        return [late, *await asyncio.gather(*first), await ask(app, "POST", "/predict", bytes(1000))]

    late, *rest = asyncio.run(crowd())
    assert (late[0], late[2]["retry-after"]) == (429, "1")
    assert "too many bytes" in late[1]["error"]
    assert [answer[0] for answer in rest] == [200] * 9
    batcher.close()


def test_a_defect_of_ours_is_told_without_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    stub = Stub()
    stub.gate.set()
    batcher: Batcher = Batcher(stub.compute)
    status, answer, _ = one(create_app(stub, batcher), "POST", "/predict", *form(b"fine", b"defect"))
    assert status == 500
    assert answer["images"][0] == {"path": "0.png", "echo": "fine"}
    assert "KeyError" not in json.dumps(answer)
    assert "a defect of ours" in caplog.text
    batcher.close()


def test_values_that_are_not_finite_fail_their_own_request_alone(engine: Engine) -> None:
    task = engine.read(png(), "a.png", "predict")

    def damaged(model: Any, x: torch.Tensor) -> torch.Tensor:
        values = model(x)
        values[1] = float("nan")
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("gcpzoo.serve.engine").serve.engine.FUNCTIONS, "predict", damaged)
        first, second, third = engine.compute([task] * 3)
    assert isinstance(first, torch.Tensor)
    assert isinstance(third, torch.Tensor)
    assert "not finite" in str(second)


def test_images_of_several_sizes_and_wishes_share_a_batch_in_order(engine: Engine) -> None:
    tasks = [engine.read(png(i), "", ("predict", "embed")[i % 2]) for i in range(4)]
    tasks[2] = tasks[2]._replace(pixels=torch.zeros(3, 64, 48, dtype=torch.uint8))
    found = engine.compute(tasks)
    for task, values in zip(tasks, found):
        torch.testing.assert_close(values, engine.compute([task])[0], atol=1e-5, rtol=1e-5)


def test_the_model_says_what_it_is(app: Any, small: gcpzoo.GCPNet) -> None:
    status, answer, _ = one(app, "GET", "/model")
    assert status == 200
    assert [c["class"] for c in answer["classes"]] == small.class_names
    assert answer["preprocessing"] == small.preprocessing.to_dict()
    assert answer["num_features"] == small.num_features


def test_the_description_names_what_the_paths_answer(app: Any) -> None:
    pytest.importorskip("jsonschema")
    _, described, _ = one(app, "GET", "/openapi.json")
    assert set(described["paths"]) == {"/predict", "/embed", "/health", "/model"}
    predict = described["paths"]["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {"multipart/form-data", "application/octet-stream"}
    assert {"200", "400", "408", "413", "422", "429", "500"} <= set(predict["responses"])
    import jsonschema

    for path in ("/predict", "/embed"):
        content = described["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        schema = {**content, "components": described["components"]}
        jsonschema.validate(one(app, "POST", path, png())[1], schema)
        assert jsonschema.Draft202012Validator(schema).is_valid({"images": []}) is False


def test_an_image_error_is_the_only_one_that_blames_the_image(engine: Engine) -> None:
    with pytest.raises(ImageError, match="cannot read image x: not an image"):
        engine.read(b"", "x", "predict")
