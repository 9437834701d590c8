"""The index of the zoo: one YAML file a checkpoint in ``checkpoints/records``, read without torch."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.hub.trainings import Trainings
from gcpzoo.limits import load_yaml, read_text
from gcpzoo.paths import resource

NAME = re.compile(r"[A-Za-z0-9][\w:]*_[a-z0-9_]+\.[a-z0-9_]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
SOURCES = {"embedded": {"file"}, "hub": {"repo", "revision"}, "authors": {"url", "converter", "arch"}}
IN_PACKAGE = frozenset({"mobilenet_v2_isqrt.grocery81", "resnet18_isqrt.cub50", "resnet18_isqrt.digits"})
"""Embedded checkpoints in the package: what README, the demo and ``gcpzoo fit FOLDER`` begin with. The others are in
the repository."""
WHERE = {"embedded": "in the repository", "hub": "Hugging Face Hub", "authors": "from the authors", "local": "local"}
ABOUT = (
    "licence", "provenance", "data", "metrics", "measured_by", "recipe", "control", "seeds", "hardware", "trainings",
    "caveats",
)  # fmt: skip
VERIFIED, PINNED = "accuracy verified", "sha256 pinned"
UNVERIFIED = "unverified (authors' link, no published hash)"


@dataclass(frozen=True)
class Record:
    """What is known of one checkpoint.

    Attributes:
        name: ``{backbone}_{head}.{tag}``; the file's name without ``.yaml``.
        config: configuration of the model, as in ``model.config``.
        source: where the weights are: ``{file}`` in ``checkpoints/``; ``{repo, revision}`` on the Hub, the revision a
            full 40-hex commit; or ``{url, converter, arch}``, the authors' own file and how to convert it.
        sha256: hash of that file; for the authors' files its first digits where they published them, else ``None``.
        size: size of that file in bytes, where known (the authors' own figures are rounded).
        licence: SPDX identifier, or ``none stated``.
        provenance: who trained it, from what, and where that is written.
        recipe: how it was trained, one line (or the name of a config in ``configs/``).
        data: the data it was trained and measured on.
        metrics: accuracies in per cent, e.g. ``{top1: 75.48, top5: 92.23}``.
        measured_by: ``authors`` (their report) or ``gcpzoo`` (measured with these weights).
        control: the GAP control of the same backbone, data and recipe: ``{record: NAME, top1: …}``, where there is one.
        preprocessing: the one behind ``metrics``, as in :class:`gcpzoo.models.preprocessing.Preprocessing`.
        class_names: ids of the classes in the classifier's order, or ``imagenet1k`` for its 1000 wnids.
        seeds, hardware: of the training, where known.
        trainings: the sweep that it is one training of, with accuracies over all seeds and those of the control.
        caveats: what a user should know before relying on it.
        golden: a few logits of these weights, ``{seed, shape, logits}``.
        unsupported: why the weights cannot be loaded here, where that is so.

    >>> record = get_record("resnet18_isqrt.digits")
    >>> record.config["backbone"], record.metrics["top1"], record.licence
    ('resnet18', 99.72, 'Apache-2.0')
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str
    config: dict[str, Any]
    source: dict[str, str]
    licence: str
    provenance: str
    data: str
    metrics: dict[str, float]
    measured_by: str
    preprocessing: dict[str, Any]
    sha256: str | None = None
    size: int | None = None
    recipe: str | None = None
    control: dict[str, Any] | None = None
    class_names: list[str] | str | None = None
    seeds: list[int] | None = None
    hardware: str | None = None
    trainings: Trainings | None = None
    caveats: list[str] = field(default_factory=list)
    golden: dict[str, Any] | None = None
    unsupported: str | None = None

    @property
    def kind(self) -> str:
        """Kind of the source: ``embedded``, ``hub`` or ``authors``; ``local`` for a model outside the zoo.

        >>> get_record("resnet18_isqrt.digits").kind
        'embedded'
        """
        return next((kind for kind, keys in SOURCES.items() if keys == set(self.source)), "local")

    @property
    def availability(self) -> str:
        """Where a user gets the weights from, in words.

        >>> get_record("resnet18_isqrt.digits").availability
        'in the package'
        """
        if self.unsupported:
            return "not loadable"
        return "in the package" if self.kind == "embedded" and self.name in IN_PACKAGE else WHERE[self.kind]

    @property
    def status(self) -> str:
        """How far the weights are verified.

        ``accuracy verified``: the zoo measured exactly these weights; ``sha256 pinned``: the hash of the file is known;
        else ``unverified (authors' link, no published hash)``. A model outside the zoo cannot call itself verified.

        >>> get_record("resnet18_isqrt.digits").status
        'accuracy verified'
        >>> get_record("resnet50_isqrt.in1k_li2018").status
        "unverified (authors' link, no published hash)"
        """
        if self.sha256 is None:
            return UNVERIFIED
        ours = self.kind != "local" and NAME.fullmatch(self.name)  # a repository on the Hub is named owner/name
        return VERIFIED if ours and self.measured_by == "gcpzoo" else PINNED

    def about(self) -> dict[str, Any]:
        """Collect what is known beside the network itself, as ``config.json`` keeps it.

        >>> get_record("resnet18_isqrt.digits").about()["seeds"]
        [0]
        """
        return {key: value for key in ABOUT if (value := getattr(self, key)) not in (None, [], {}, "")}


@cache
def _validator() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def parse_record(text: str, name: str) -> Record:
    """Read the record ``name`` from its YAML ``text``.

    Raises:
        ZooError: if it is not YAML, or a field is missing, unknown or of another kind; the message names the field.

    >>> parse_record("name: resnet18_gap.x", "resnet18_gap.x")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: record resnet18_gap.x: field 'config' is missing
    """
    values = load_yaml(text, f"record {name}")
    if not isinstance(values, dict):
        raise ZooError(f"record {name}: expected one YAML mapping, got {type(values).__name__}")
    known = [f.name for f in fields(Record)]
    for key in values:
        if key not in known:
            raise unknown_name(f"field of record {name}", str(key), known)
    try:
        record = _validator().validate_python(values)
    except ValidationError as error:
        raise ZooError(f"record {name}: {_first_error(error)}") from None
    for wrong in _contradictions(record, name):
        raise ZooError(f"record {name}: {wrong}")
    return record


def _first_error(error: ValidationError) -> str:
    """Say in one line which field pydantic refused, and why."""
    first = error.errors(include_url=False)[0]
    where = str(first["loc"][0])
    if first["type"] == "missing":
        return f"field {where!r} is missing"
    inside = "".join(f"[{key!r}]" for key in first["loc"][1:] if not str(key).startswith(("list[", "str", "dict[")))
    return f"field {where!r}{inside} must {first['msg'].removeprefix('Input should ')}, got {first['input']!r}"


def _contradictions(record: Record, name: str) -> Iterator[str]:
    """Find what the types alone cannot tell: names, hashes and sources that do not belong together."""
    if record.name != name or not NAME.fullmatch(name):
        yield f"its name must be its file's name and of the form backbone_head.tag, got {record.name!r}"
    if record.kind == "local":
        yield f"source must be {{file}}, {{repo, revision}} or {{url, converter, arch}}, got {record.source}"
    if record.kind == "hub" and not COMMIT.fullmatch(record.source["revision"]):
        yield f"source.revision must be a full commit of 40 hex digits, got {record.source['revision']!r}"
    if record.kind == "embedded" and Path(record.source["file"]).name != record.source["file"]:
        yield f"source.file must be a file name in checkpoints/, got {record.source['file']!r}"
    digits = "{8,64}" if record.kind == "authors" else "{64}"
    if not (record.sha256 is None and record.kind == "authors") and not re.fullmatch(
        f"[0-9a-f]{digits}", record.sha256 or ""
    ):
        yield f"sha256 must be 64 hex digits, got {record.sha256!r}"
    if record.measured_by not in ("authors", "gcpzoo"):
        yield f"measured_by must be authors or gcpzoo, got {record.measured_by!r}"
    if isinstance(record.class_names, str) and record.class_names != "imagenet1k":
        yield f"class_names must be a list of ids or imagenet1k, got {record.class_names!r}"


def describe(config: Mapping[str, Any], name: str, source: dict[str, str]) -> Record:
    """Make the record of a model outside the zoo from its ``config.json``; what is not known stays empty.

    Raises:
        ZooError: if ``about`` is not a mapping, has a field of a wrong type, or metrics without ``measured_by``.

    >>> describe({"model": {"backbone": "resnet18"}, "about": {"licence": "MIT"}}, "mine", {"folder": "here"}).licence
    'MIT'
    """
    record = Record(
        name=name,
        config=config["model"],
        source=source,
        preprocessing=config.get("preprocessing") or {},
        class_names=config.get("class_names"),
        sha256=config.get("weights_sha256"),
        licence="unknown",
        provenance="",
        data="",
        metrics={},
        measured_by="",
    )
    about = {} if config.get("about") is None else config["about"]
    if not isinstance(about, Mapping):
        raise ZooError(f"{name}: about must be a mapping, got {about!r}")
    return with_about(record, {key: value for key, value in about.items() if key in ABOUT}, name)


def with_about(record: Record, about: Mapping[str, Any], where: str) -> Record:
    """Replace what a record says beside the network itself, checked.

    Args:
        record: the record to change; it stays as it is.
        about: fields that :meth:`Record.about` gives.
        where: origin of ``about``, named in errors.

    Raises:
        ZooError: for an unknown field, a value of a wrong type, or metrics without ``measured_by``.

    >>> with_about(get_record("resnet18_isqrt.digits"), {"metrics": {"top1": "high"}}, "config.json")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: config.json: about: field 'metrics'['top1'] must be a valid number, ... got 'high'
    """
    for key in about:
        if key not in ABOUT:
            raise unknown_name("field of about", str(key), ABOUT)
    valid = {"name": "", "config": {}, "source": {}, "licence": "", "provenance": "", "data": "", "metrics": {}}
    try:
        checked = _validator().validate_python({**valid, "measured_by": "", "preprocessing": {}, **about})
    except ValidationError as error:
        raise ZooError(f"{where}: about: {_first_error(error)}") from None
    new = replace(record, **{key: getattr(checked, key) for key in about})
    if new.metrics and not new.measured_by:
        raise ZooError(f"{where}: about: field 'measured_by' must say who measured the metrics, got none")
    return new


def _folder() -> Path:
    return resource("checkpoints") / "records"


@cache
def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


@cache
def _record(path: Path) -> Record:
    try:
        text = read_text(path, f"record {path.stem}")
    except UnicodeDecodeError as error:
        raise ZooError(
            f"record {path.stem}: {path} must be UTF-8 text, got byte {error.object[error.start]:#x}"
        ) from None
    return parse_record(text, path.stem)


def weights_file(record: Record) -> Path:
    """Locate the weights of an embedded checkpoint: beside the records, or in the folder ``$GCPZOO_CHECKPOINTS``.

    Raises:
        ZooError: if they are in neither; the message says where they lie.

    >>> weights_file(get_record("resnet18_isqrt.digits")).name
    'resnet18_isqrt.digits.safetensors'
    """
    file, own = record.source["file"], os.environ.get("GCPZOO_CHECKPOINTS")
    folders = [_folder().parent, *([Path(own).expanduser()] if own else [])]
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    if record.name in IN_PACKAGE:
        raise ZooError(f"{record.name}: {folders[0] / file} is missing; install gcpzoo again")
    found = f"; {own!r} does not hold them" if own else ""
    raise ZooError(
        f"{record.name}: its weights are too large for the installed package and lie in the folder checkpoints of "
        f"gcpzoo's repository, as {file}: clone it and set GCPZOO_CHECKPOINTS to that folder{found}"
    )


def get_record(name: str) -> Record:
    """Read the record of a checkpoint by its zoo name.

    Raises:
        ZooError: if no checkpoint has this name; the message suggests the nearest ones.

    >>> get_record("resnet18_isqrt.digits").data.split(" (")[0]
    "scikit-learn's digits"
    """
    names = _names(_folder())
    if name not in names:
        raise unknown_name("model", name, names)
    return _record(_folder() / f"{name}.yaml")


def list_models(pattern: str = "*", pretrained: bool = True) -> list[str]:
    """List the names of the zoo that match a shell pattern, sorted.

    Args:
        pattern: as in :mod:`fnmatch`, on the whole name, e.g. ``resnet*_isqrt*``.
        pretrained: ``True``: checkpoints with a record, which :func:`gcpzoo.load` takes. ``False``: what can be built
            with new weights, as ``backbone_head`` for torchvision's backbones (timm's are ``timm:NAME``).

    >>> list_models("resnet18_*.dtd10")
    ['resnet18_dropcov.dtd10', 'resnet18_gap.dtd10']
    """
    if pretrained:
        names: list[str] = list(_names(_folder()))
    else:
        from gcpzoo.heads import list_heads
        from gcpzoo.models.backbones import list_backbones

        names = [f"{b}_{h}" for b in list_backbones() for h in list_heads()]
    return sorted(fnmatch.filter(names, pattern))
