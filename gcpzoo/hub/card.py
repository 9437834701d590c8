"""Model cards, written from records: of one repository on the Hub, and of the whole zoo."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcpzoo.errors import ZooError
from gcpzoo.hub.records import Record, get_record, list_models

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

BEGIN, END = "<!-- gcpzoo: generated from here -->", "<!-- gcpzoo: to here; text outside is kept -->"
DATASETS = {"imagenet-1k": "ILSVRC/imagenet-1k"}
METRICS = {"top1": "Top-1 accuracy (%)", "top5": "Top-5 accuracy (%)", "per_class": "Mean per-class accuracy (%)"}
TAGS = ("gcpzoo", "image-classification", "covariance-pooling", "second-order-pooling")


def hub_card(
    repo: str,
    record: Record,
    datasets: Sequence[str] = (),
    base_model: str | None = None,
    existing: str | None = None,
) -> str:
    """``README.md`` of a repository on the Hub.

    Args:
        repo: ``owner/name``, for the lines that load it.
        record: what is known of the model.
        datasets: ids of the data sets on the Hub.
        base_model: id of the model on the Hub that it was fine-tuned from.
        existing: the card that is there. Its text is kept: only what stands between our two marks is replaced, and a
            card without them keeps its whole text. Of its metadata what it says itself is kept, and ours added.

    Raises:
        ZooError: the metadata of the existing card is not valid YAML.
    """
    from huggingface_hub import ModelCard

    data = card_data(repo, record, datasets, base_model)
    body = f"{BEGIN}\n{_body(repo, record)}\n{END}\n"
    if existing is None:
        return f"---\n{data.to_yaml()}\n---\n\n{body}"
    try:
        card = ModelCard(existing)
    except Exception as error:  # yaml's errors, and the client's own ValueError
        raise ZooError(
            f"{repo}: the metadata at the top of its card cannot be read, mend it first: {' '.join(str(error).split())}"
        ) from error
    ours = data.to_dict()
    theirs = card.data.to_dict()
    tags = [*(theirs.get("tags") or []), *(t for t in ours["tags"] if t not in (theirs.get("tags") or []))]
    forced = {key: ours[key] for key in ("library_name", "pipeline_tag", "model-index") if key in ours}
    merged = {**ours, **theirs, **forced, "tags": tags}
    text = card.text
    if BEGIN in text and END in text:
        before, rest = text.split(BEGIN, 1)
        text = before + body.rstrip("\n") + rest.split(END, 1)[1]
    import yaml

    return f"---\n{yaml.safe_dump(merged, sort_keys=False, allow_unicode=True).strip()}\n---\n{text}"


def card_data(repo: str, record: Record, datasets: Sequence[str] = (), base_model: str | None = None) -> ModelCardData:
    """The metadata of a card: library, task, licence, data, tags, and the results as a ``model-index``."""
    from huggingface_hub import EvalResult, ModelCardData

    name = data_name(record)
    ids = list(datasets) or [i for known, i in DATASETS.items() if record.data.lower().startswith(known)]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=ids[0] if ids else "imagefolder",
            dataset_name=name or "not stated",
            metric_type="accuracy",
            metric_name=METRICS.get(key, key),
            metric_value=value,
        )
        for key, value in record.metrics.items()
    ]
    return ModelCardData(
        library_name="gcpzoo",
        pipeline_tag="image-classification",
        license=licence_id(record.licence),
        license_name=record.licence if licence_id(record.licence) == "other" else None,
        datasets=ids or None,
        tags=[*TAGS, str(record.config["head"]).replace("_", "-")],
        base_model=base_model,
        model_name=repo.split("/")[-1] if results else None,
        eval_results=results or None,
    )


def licence_id(licence: str) -> str:
    """The Hub's identifier: SPDX in small letters, ``unknown`` where none is stated, ``other`` for further words."""
    if licence in ("none stated", "unknown", ""):
        return "unknown"
    return licence.lower() if re.fullmatch(r"[\w.-]+", licence) else "other"


def data_name(record: Record) -> str:
    """The data set's name: what stands before the first comma, colon or bracket."""
    return re.split(r"[:,;(]", record.data)[0].strip()


def _body(repo: str, record: Record) -> str:
    config = record.config
    head, backbone, classes = config["head"], config["backbone"], config["num_classes"]
    parts = [
        f"# {repo.split('/')[-1]}",
        f"Image classification into {classes} classes: `{backbone}` with the head `{head}` of "
        "gcpzoo, the zoo of global covariance pooling.",
        "## Use",
        f'```python\nimport gcpzoo\nfrom PIL import Image\n\nmodel = gcpzoo.load("hf-hub:{repo}")\n'
        'logits = model(model.transform(Image.open("image.jpg"))[None])\n```',
        f"Fine-tune it: `gcpzoo fit --config finetune/images.yaml --model hf-hub:{repo} --data.root FOLDER`.",
    ]
    if record.metrics:
        by = {"authors": "as reported by its authors", "gcpzoo": "measured with these weights"}.get(
            record.measured_by, ""
        )
        table = [(METRICS.get(k, k), _number(v), _control(record, k)) for k, v in record.metrics.items()]
        parts += ["## Results", f"{record.data}{'; ' + by if by else ''}.".lstrip("; ").replace("..", ".")]
        parts += [markdown(("", head, "the same with gap"), table)]
        if record.control and "note" in record.control:
            parts.append(f"The control: {record.control['note']}.")
    if record.recipe:
        parts += ["## Training", record.recipe]
        if record.seeds:
            parts.append(f"Seeds: {', '.join(map(str, record.seeds))}.")
        if record.hardware:
            parts.append(f"Hardware: {record.hardware}.")
    parts += ["## Licence and provenance", f"Licence: {record.licence}."]
    if record.provenance:
        parts.append(f"{record.provenance}.".replace("..", "."))
    if record.caveats:
        parts += ["## Caveats", "\n".join(f"- {c}" for c in record.caveats)]
    return "\n\n".join(parts)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _control(record: Record, metric: str = "top1") -> str:
    value = (record.control or {}).get(metric)
    return "–" if value is None else _number(value)


def records_table(names: Sequence[str] | None = None) -> str:
    """All records as one table: accuracy beside the GAP control's, size, licence, availability."""
    rows = []
    for r in sorted(map(get_record, names or list_models()), key=lambda r: (r.measured_by != "gcpzoo", r.name)):
        size = f"{r.size / 1e6:.1f} MB" if r.size else "–"
        by = "" if r.measured_by == "gcpzoo" else "*"
        top1, top5 = (f"{_number(r.metrics[k])}{by}" if k in r.metrics else "–" for k in ("top1", "top5"))
        control = _control(r)
        control += (by if control != "–" else "") + ("†" if r.control and "note" in r.control else "")
        rows.append((f"`{r.name}`", top1, control, top5, data_name(r), size, r.licence, r.availability))
    return markdown(("model", "top-1", "GAP control", "top-5", "data", "size", "licence", "weights"), rows)


def zoo_card() -> str:
    """The text of ``MODEL_CARD.md``: the whole zoo, from its records."""
    records = [get_record(name) for name in list_models()]
    ours = [r for r in records if r.measured_by == "gcpzoo"]
    parts = [
        "# The zoo's model card",
        "Written by `gcpzoo card` from `checkpoints/records`; change those, not this page.",
        f"{len(records)} checkpoints, {len(ours)} of them trained and measured here. Beside a second-order head "
        "stands its GAP control, where there is one: the same backbone, data and recipe with global average pooling. "
        "\\* as reported by the authors, not measured again. † a control of another recipe.",
        "## All checkpoints",
        records_table(),
        "## Intended use",
        "Classification of single images, fine-tuning on one's own classes, and comparison of pooling methods. The "
        "ImageNet models know ImageNet's thousand classes and its biases; none is meant for decisions about people.",
        "## Where the weights come from",
        "*in the package*: carried by the installed package, 16-bit, verified by SHA-256. *from the authors*: fetched "
        "from the authors' own storage when you load the name, then converted; not redistributed here, for most of "
        "them state no licence. *not loadable*: listed for completeness, with the reason below.",
        "## Trained here",
        *(_entry(r) for r in ours),
        "## Caveats of the others",
        *(_entry(r) for r in records if r.measured_by != "gcpzoo" and (r.caveats or r.unsupported)),
    ]
    return "\n\n".join(parts) + "\n"


def _entry(record: Record) -> str:
    lines = [f"### {record.name}"]
    if record.measured_by == "gcpzoo":
        lines += [f"- {label}: {text}" for label, text in _facts(record).items() if text]
    lines += [f"- {c}" for c in record.caveats]
    if record.unsupported:
        lines.append(f"- cannot be loaded: {record.unsupported}")
    return "\n".join(lines)


def _facts(record: Record) -> Mapping[str, str]:
    metrics = ", ".join(f"{METRICS.get(k, k)} {_number(v)}" for k, v in record.metrics.items())
    return {
        "data": record.data,
        "results": metrics,
        "training": record.recipe or "",
        "seeds": ", ".join(map(str, record.seeds or [])),
        "hardware": record.hardware or "",
        "licence": record.licence,
        "provenance": record.provenance,
    }


def update_page(path: Path, write: bool = True) -> bool:
    """Replace the table of records between our two marks in a page such as ``README.md``; whether it changed
    (with ``write=False``: would change).

    Raises:
        ZooError: the page lacks the marks.
    """
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ZooError(f"{path} needs the lines {BEGIN!r} and {END!r} around its table of records")
    before, rest = text.split(BEGIN)
    new = f"{before}{BEGIN}\n{records_table()}\n{END}{rest.split(END)[1]}"
    if write and new != text:
        path.write_text(new, encoding="utf-8")
    return new != text
