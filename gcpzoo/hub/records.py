"""The index of the zoo: one YAML file a checkpoint in ``checkpoints/records``, read without torch."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.paths import resource

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NAME = re.compile(r"[A-Za-z0-9][\w:]*_[a-z0-9_]+\.[a-z0-9_]+")
SOURCES = {"embedded": {"file"}, "hub": {"repo", "revision"}, "authors": {"url", "converter", "arch"}}
WHERE = {"embedded": "in the package", "hub": "Hugging Face Hub", "authors": "from the authors", "local": "local"}
ABOUT = ("licence", "provenance", "data", "metrics", "measured_by", "recipe", "control", "seeds", "hardware", "caveats")


@dataclass(frozen=True)
class Record:
    """What is known of one checkpoint.

    Attributes:
        name: ``{backbone}_{head}.{tag}``; the file's name without ``.yaml``.
        config: the model's configuration, as in ``model.config``.
        source: where the weights are: ``{file}`` in ``checkpoints/``; ``{repo, revision}`` on the Hub, the revision a
            full 40-hex commit; or ``{url, converter, arch}``, the authors' own file and how to convert it.
        sha256: of that file; for the authors' files its first digits where they published them, else ``None``.
        size: of that file in bytes, where known (the authors' own figures are rounded).
        licence: SPDX identifier, or ``none stated``.
        provenance: who trained it, from what, and where that is written.
        recipe: how it was trained, one line (or the name of a config in ``configs/``).
        data: the data it was trained and measured on.
        metrics: accuracies in per cent, e.g. ``{top1: 75.48, top5: 92.23}``.
        measured_by: ``authors`` (their report) or ``gcpzoo`` (measured with these weights).
        control: the GAP control of the same backbone, data and recipe: ``{record: NAME, top1: …}``, where there is one.
        preprocessing: as in :class:`gcpzoo.models.preprocessing.Preprocessing`, the one of ``metrics``.
        class_names: list of names in the classifier's order, or ``imagenet1k``.
        seeds, hardware: of the training, where known.
        caveats: what a user should know before relying on it.
        golden: a few logits of these weights, ``{seed, shape, logits}``.
        unsupported: why the weights cannot be loaded here, where that is so.
    """

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
    caveats: list[str] = field(default_factory=list)
    golden: dict[str, Any] | None = None
    unsupported: str | None = None

    @property
    def kind(self) -> str:
        """``embedded``, ``hub`` or ``authors``; ``local`` for a folder outside the zoo."""
        return next((kind for kind, keys in SOURCES.items() if keys == set(self.source)), "local")

    @property
    def availability(self) -> str:
        """Where a user gets the weights from, in words."""
        return "not loadable" if self.unsupported else WHERE[self.kind]

    def about(self) -> dict[str, Any]:
        """What is known beside the network itself, as ``config.json`` keeps it."""
        return {key: value for key in ABOUT if (value := getattr(self, key)) not in (None, [], {}, "")}


TYPES = {"config": dict, "source": dict, "metrics": dict, "preprocessing": dict, "caveats": list, "size": int}


def parse_record(text: str, name: str) -> Record:
    """The record ``name`` from its YAML ``text``.

    Raises:
        ZooError: not YAML, a field missing, unknown or of another kind, naming the field.
    """

    def bad(why: str) -> ZooError:
        return ZooError(f"record {name}: {why}")

    try:
        values = yaml.load(text, LOADER)
    except yaml.YAMLError as e:
        raise bad(f"not valid YAML: {' '.join(str(e).split())}") from None
    if not isinstance(values, dict):
        raise bad("expected one YAML mapping")
    fields = {f.name: f for f in dataclasses.fields(Record)}
    for key in values:
        if key not in fields:
            raise unknown_name(f"field of record {name}", str(key), fields)
    for key, f in fields.items():
        needed = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if key not in values and needed:
            raise bad(f"field {key!r} is missing")
        kind = TYPES.get(key, str if needed else None)
        if kind and values.get(key) is not None and not isinstance(values[key], kind):
            raise bad(f"field {key!r} must be a {kind.__name__}, got {values[key]!r}")
    if values["name"] != name or not NAME.fullmatch(name):
        raise bad(f"its name must be its file's name and of the form backbone_head.tag, got {values['name']!r}")
    if set(values["source"]) not in SOURCES.values():
        raise bad("source must be {file}, {repo, revision} or {url, converter, arch}, got " + str(values["source"]))
    record = Record(**values)
    if record.kind == "hub" and not re.fullmatch(r"[0-9a-f]{40}", str(record.source["revision"])):
        raise bad(f"source.revision must be a full commit of 40 hex digits, got {record.source['revision']!r}")
    if not re.fullmatch(r"[0-9a-f]{8,64}", record.sha256 or "0" * 64) or (
        record.kind != "authors" and len(record.sha256 or "") != 64
    ):
        raise bad(f"sha256 must be 64 hex digits, got {record.sha256!r}")
    if record.kind == "embedded" and Path(record.source["file"]).name != record.source["file"]:
        raise bad(f"source.file must be a file name in checkpoints/, got {record.source['file']!r}")
    if record.measured_by not in ("authors", "gcpzoo"):
        raise bad(f"measured_by must be authors or gcpzoo, got {record.measured_by!r}")
    return record


def describe(config: Mapping[str, Any], name: str, source: dict[str, str]) -> Record:
    """The record of a checkpoint outside the zoo, from its ``config.json``; what is not known stays empty."""
    about = config.get("about")
    known = {k: v for k, v in about.items() if k in ABOUT} if isinstance(about, Mapping) else {}
    empty = {"licence": "unknown", "provenance": "", "data": "", "metrics": {}, "measured_by": ""}
    return Record(
        name=name,
        config=config["model"],
        source=source,
        preprocessing=config.get("preprocessing") or {},
        class_names=config.get("class_names"),
        sha256=config.get("weights_sha256"),
        **{**empty, **known},
    )


def _folder() -> Path:
    return resource("checkpoints") / "records"


@cache
def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


@cache
def _record(path: Path) -> Record:
    return parse_record(path.read_text(encoding="utf-8"), path.stem)


def weights_file(record: Record) -> Path:
    """Where an embedded checkpoint's weights lie."""
    return _folder().parent / record.source["file"]


def get_record(name: str) -> Record:
    """The record of a checkpoint by its zoo name; an unknown name is a ``ZooError`` with the nearest ones."""
    names = _names(_folder())
    if name not in names:
        raise unknown_name("model", name, names)
    return _record(_folder() / f"{name}.yaml")


def list_models(pattern: str = "*", pretrained: bool = True) -> list[str]:
    """Names of the zoo that match a shell pattern such as ``resnet*_isqrt*``, sorted.

    Args:
        pattern: as in :mod:`fnmatch`, on the whole name.
        pretrained: ``True``: checkpoints with a record, which :func:`gcpzoo.load` takes. ``False``: what can be built
            with new weights, as ``backbone_head`` for torchvision's backbones (timm's are ``timm:NAME``).
    """
    if pretrained:
        names: list[str] = list(_names(_folder()))
    else:
        from gcpzoo.heads import list_heads
        from gcpzoo.models.backbones import list_backbones

        names = [f"{b}_{h}" for b in list_backbones() for h in list_heads()]
    return sorted(fnmatch.filter(names, pattern))
