"""The HTTP interface of a model: which paths there are, what they take, and which status an error gets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gcpzoo import __version__
from gcpzoo.data.images import ImageError, ImageTooLargeError
from gcpzoo.data.loading import cores
from gcpzoo.errors import UNEXPECTED, ZooError, printable, unknown_name
from gcpzoo.serve.batching import Batcher, BusyError, Places
from gcpzoo.serve.schema import EMBED, HEALTH, MODEL, PREDICT

FIELD = "image"
"""The field of a form that holds an image; it may come several times."""
PATHS = "POST /predict, POST /embed, GET /health, GET /model, GET /openapi.json"
BODIES = 8
"""Bodies of the greatest length that may be in memory at the same time."""


class Model(Protocol):
    """What is asked of a model; :class:`~gcpzoo.serve.engine.Engine` is one.

    >>> hasattr(Model, "read")
    True
    """

    name: str

    def read(self, data: bytes, name: str, kind: str) -> Any: ...

    def answer(self, kind: str, name: str, values: Any, top: int) -> dict[str, Any]: ...

    def about(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class RequestLimits:
    """What one request may hold.

    Args:
        megabytes: of its body, in MB of 10^6 bytes.
        seconds: until the body has come.

    Raises:
        ZooError: if a number cannot work.

    >>> RequestLimits(megabytes=0)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: max_mb must be between 0.001 and 1000, got 0
    """

    megabytes: float = 32
    seconds: float = 30

    def __post_init__(self) -> None:
        if not 0.001 <= self.megabytes <= 1000:
            raise ZooError(f"max_mb must be between 0.001 and 1000, got {self.megabytes:g}")
        if not 0 < self.seconds <= 3600:
            raise ZooError(f"seconds must be between 0 and 3600, got {self.seconds:g}")

    @property
    def bytes(self) -> int:
        """Length of the body."""
        return round(1e6 * self.megabytes)


class Upload(NamedTuple):
    """An image file in a request.

    >>> Upload("cat.png", b"...").name
    'cat.png'
    """

    name: str
    data: bytes


def create_app(model: Model, batcher: Batcher[Any, Any], limits: RequestLimits | None = None) -> FastAPI:
    """Build the application, which any ASGI server runs.

    Args:
        model: reads images and words answers.
        batcher: computes what ``model.read`` gives; its places are the images that may be in work at a time.
        limits: of a request.

    >>> batcher = Batcher(lambda tasks: tasks)
    >>> [route.path for route in create_app(None, batcher).routes][-4:]
    ['/predict', '/embed', '/health', '/model']
    >>> batcher.close()
    """
    desk = _Desk(model, batcher, limits or RequestLimits())
    app = FastAPI(title="gcpzoo", version=__version__, docs_url=None, redoc_url=None)  # the pages need a network
    app.add_exception_handler(Exception, _unexpected)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)

    @app.post("/predict", summary="The likeliest classes of each image", **PREDICT)
    async def predict(request: Request, top: int = Query(5, ge=1, description="classes of each image")) -> JSONResponse:
        return await desk.serve(request, "predict", top)

    @app.post("/embed", summary="The vector of each image before the classifier", **EMBED)
    async def embed(request: Request) -> JSONResponse:
        return await desk.serve(request, "embed")

    @app.get("/health", summary="Whether the server answers, and how busy it is", **HEALTH)
    async def health() -> JSONResponse:
        state = {"status": "ok" if batcher.alive else "stopped", "model": model.name}
        counts = {"places": batcher.limit, "taken": batcher.held}
        done = {"answered": batcher.answered, "batches": batcher.batches}
        return JSONResponse({**state, **counts, **done}, 200 if batcher.alive else 503)

    @app.get("/model", summary="Record, classes, licence and preprocessing of the model", **MODEL)
    async def about() -> JSONResponse:
        return JSONResponse(model.about())

    return app


class _Desk:
    """Takes images in and hands answers out."""

    def __init__(self, model: Model, batcher: Batcher[Any, Any], limits: RequestLimits) -> None:
        self.model, self.batcher, self.limits = model, batcher, limits
        self.readers = ThreadPoolExecutor(min(8, cores()), "gcpzoo-read")
        self.bytes = 0

    async def serve(self, request: Request, kind: str, top: int = 1) -> JSONResponse:
        known = ("top",) if kind == "predict" else ()
        for key in request.query_params:
            if key not in known:
                raise HTTPException(422, str(unknown_name("parameter", key, known)))
        with self.batcher.places() as places, self._memory(request):
            try:
                async with asyncio.timeout(self.limits.seconds):
                    uploads = await read_uploads(request, self.limits.bytes, self.batcher.limit)
            except TimeoutError:
                raise HTTPException(408, f"the body must come within {self.limits.seconds:g} s") from None
            places.take(len(uploads) - 1)
            answers = await asyncio.gather(*(self._one(places, upload, kind, top) for upload in uploads))
        return self._respond(answers)

    async def _one(self, places: Places[Any, Any], upload: Upload, kind: str, top: int) -> tuple[int, dict[str, Any]]:
        """Answer one image; its error is its own."""
        try:
            loop = asyncio.get_running_loop()
            task = await loop.run_in_executor(self.readers, self.model.read, upload.data, upload.name, kind)
            values = await asyncio.wrap_future(places.submit(task))
            return 200, self.model.answer(kind, upload.name, values, top)
        except ZooError as error:
            status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
            return status, {"path": upload.name, "error": str(error)}
        except Exception:
            logging.getLogger(__name__).exception("no answer for an image")
            return 500, {"path": upload.name, "error": UNEXPECTED}

    def _respond(self, answers: list[tuple[int, dict[str, Any]]]) -> JSONResponse:
        body: dict[str, Any] = {"model": self.model.name, "images": [answer for _, answer in answers]}
        wrong = [(status, answer["error"]) for status, answer in answers if status != 200]
        if not wrong:
            return JSONResponse(body)
        several = f"{len(wrong)} of {len(answers)} images have no answer: " if len(answers) > 1 else ""
        status = max(status for status, _ in wrong)
        headers = {"Retry-After": "60"} if status == 503 else None
        return JSONResponse({"error": several + wrong[0][1], **body}, status, headers)

    @contextmanager
    def _memory(self, request: Request) -> Iterator[None]:
        """Hold the memory for a body: the length that it declares, else the greatest."""
        declared = request.headers.get("content-length", "")
        length = int(declared) if declared.isascii() and declared.isdigit() else self.limits.bytes
        if length > self.limits.bytes:
            raise _too_long(self.limits.bytes)
        if self.bytes + length > BODIES * self.limits.bytes:
            raise BusyError("too many bytes at a time; try again in 1 s", 1)
        self.bytes += length
        try:
            yield
        finally:
            self.bytes -= length


async def read_uploads(request: Request, most: int, files: int) -> list[Upload]:
    """Read the images of a request: the files of a form, or else the body itself.

    Raises:
        HTTPException: if there is none, the body is longer than ``most`` bytes, there are more than so many ``files``,
            or the form is none.

    >>> async def receive():
    ...     return {"type": "http.request", "body": b"GIF89a"}
    >>> request = Request({"type": "http", "headers": []}, receive)
    >>> asyncio.run(read_uploads(request, 10, 1))
    [Upload(name='body', data=b'GIF89a')]
    """
    counted = Request(request.scope, _counted(request.receive, most))
    if not request.headers.get("content-type", "").lower().startswith("multipart/"):
        data = await counted.body()
        if not data:
            raise HTTPException(400, f"no image: send its bytes as the body, or a form with files named {FIELD!r}")
        return [Upload("body", data)]
    uploads = []
    async with counted.form(max_files=files, max_fields=files) as form:
        for field, value in form.multi_items():
            if field != FIELD:
                raise HTTPException(400, f"the files of a form must be named {FIELD!r}, got {printable(field[:100])!r}")
            if isinstance(value, str):
                raise HTTPException(400, f"{FIELD!r} must be a file, got text")
            uploads.append(Upload(printable((value.filename or "image")[:255]), await value.read()))
    if not uploads:
        raise HTTPException(400, f"no image: the form must hold files named {FIELD!r}")
    return uploads


def _counted(receive: Callable[[], Awaitable[Any]], most: int) -> Callable[[], Awaitable[Any]]:
    seen = 0

    async def counting() -> Any:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise _too_long(most)
        return message

    return counting


def _too_long(most: int) -> HTTPException:
    return HTTPException(413, f"the body must be at most {most:,} bytes, got more")


def _refusal(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


async def _refused(_: Request, error: Any) -> JSONResponse:
    told = {404: f"no such path; there are {PATHS}", 405: f"no such method here; there are {PATHS}"}
    return _refusal(error.status_code, told.get(error.status_code, error.detail), error.headers)


async def _invalid(_: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    return _refusal(422, f"{first['loc'][-1]} must be a whole number of at least 1, got {str(first['input'])[:100]!r}")


async def _busy(_: Request, error: Any) -> JSONResponse:
    return _refusal(429, str(error), {"Retry-After": str(error.seconds)})


async def _gone(_: Request, __: Any) -> JSONResponse:
    return _refusal(400, "the client has gone before the body had come")


async def _unexpected(_: Request, __: Any) -> JSONResponse:
    return _refusal(500, UNEXPECTED)


_STATUS = {ImageTooLargeError: 413, ImageError: 422, BusyError: 503}
_HANDLERS: dict[type[Exception], Any] = {
    HTTPException: _refused,
    RequestValidationError: _invalid,
    BusyError: _busy,
    ClientDisconnect: _gone,
}
