"""What ``/openapi.json`` says of requests and answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Refusal(BaseModel):
    """Why there is no answer.

    >>> Refusal(error="no image").error
    'no image'
    """

    error: str


class NamedClass(BaseModel):
    """A class with its probability.

    >>> NamedClass(**{"class": "cat", "description": "cat", "probability": 0.9}).id
    'cat'
    """

    id: str = Field(alias="class")
    description: str
    probability: float


class Prediction(BaseModel):
    """The likeliest classes of an image, or why it has none.

    >>> Prediction(path="cat.png").classes
    """

    path: str
    classes: list[NamedClass] | None = None
    error: str | None = None


class Embedding(BaseModel):
    """The vector of an image, or why it has none.

    >>> Embedding(path="cat.png", vector=[0.5]).vector
    [0.5]
    """

    path: str
    vector: list[float] | None = None
    error: str | None = None


class Predictions(BaseModel):
    """The answer of ``/predict``, images in the order of the request; ``error`` where one of them has no answer.

    >>> Predictions(model="digits", images=[]).error
    """

    model: str
    images: list[Prediction]
    error: str | None = None


class Embeddings(BaseModel):
    """The answer of ``/embed``.

    >>> Embeddings(model="digits", images=[]).images
    []
    """

    model: str
    images: list[Embedding]
    error: str | None = None


class Health(BaseModel):
    """How the server is: ``taken`` of its ``places`` for images, and what it has answered since its start.

    >>> Health(status="ok", model="digits", places=64, taken=0, answered=0, batches=0).status
    'ok'
    """

    status: str
    model: str
    places: int
    taken: int
    answered: int
    batches: int


_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": ["image"], "properties": {"image": {"type": "array", "items": _FILE}}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": _FORM}, "application/octet-stream": {"schema": _FILE}},
    }
}
_WHY = {
    400: "no image, or the form is none",
    408: "the body did not come in time",
    429: "too busy: Retry-After says for how many seconds",
    500: "the model cannot answer",
}


def _answers(model: type[BaseModel]) -> dict[str, Any]:
    found = {200: {"model": model}, 413: {"model": model, "description": "too many bytes or pixels"}}
    found[422] = {"model": model, "description": "an image cannot be read, or a parameter is wrong"}
    found |= {status: {"model": Refusal, "description": why} for status, why in _WHY.items()}
    return {"responses": found, "openapi_extra": _BODY}


PREDICT, EMBED = _answers(Predictions), _answers(Embeddings)
HEALTH: dict[str, Any] = {"responses": {200: {"model": Health}, 503: {"model": Health, "description": "stopped"}}}
MODEL: dict[str, Any] = {"responses": {200: {"content": {"application/json": {"schema": {"type": "object"}}}}}}
