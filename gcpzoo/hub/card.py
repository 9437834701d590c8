"""Model cards, written from records: of one repository on the Hub, and of the whole zoo."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from gcpzoo.errors import ZooError, short
from gcpzoo.heads import list_heads
from gcpzoo.hub.records import PINNED, UNVERIFIED, VERIFIED, Record, get_record, list_models
from gcpzoo.hub.trainings import over_seeds
from gcpzoo.limits import load_yaml
from gcpzoo.paths import write_text

BEGIN, END = "<!-- gcpzoo: generated from here -->", "<!-- gcpzoo: to here; text outside is kept -->"
DATASETS = {"imagenet-1k": "ILSVRC/imagenet-1k"}
METRICS = {"top1": "Top-1 accuracy (%)", "top5": "Top-5 accuracy (%)", "per_class": "Mean per-class accuracy (%)"}
TAGS = ("gcpzoo", "image-classification", "covariance-pooling", "second-order-pooling")
GENERATED = (
    "library_name", "pipeline_tag", "license", "license_name", "datasets", "base_model", "model-index", "tags",
)  # fmt: skip
"""Metadata that :func:`card_data` writes; a card with our marks has them from an earlier publication."""


def hub_card(
    repo: str,
    record: Record,
    datasets: Sequence[str] = (),
    base_model: str | None = None,
    existing: str | None = None,
) -> str:
    """Write ``README.md`` of a repository on the Hub.

    Args:
        repo: ``owner/name``, for the lines that load it.
        record: what is known of the model.
        datasets: ids of the data sets on the Hub.
        base_model: id of the model on the Hub that it was fine-tuned from.
        existing: the card that is there. Its text is kept but for what stands between our two marks; a card without
            them keeps its whole text, and its metadata win over ours.

    Raises:
        ZooError: if the metadata of the existing card is not valid YAML.

    >>> from gcpzoo.hub.records import get_record
    >>> card = hub_card("owner/digits", get_record("resnet18_isqrt.digits"))
    >>> 'gcpzoo.load("hf-hub:owner/digits")' in card
    True
    """
    data = card_data(repo, record, datasets, base_model)
    body = f"{BEGIN}\n{_body(repo, record)}\n{END}\n"
    if existing is None:
        return f"---\n{data.to_yaml()}\n---\n\n{body}"
    try:
        if header := re.match(r"\s*---\r?\n(.*?)\r?\n---", existing, re.DOTALL):
            load_yaml(header[1], "it")  # refuses what would fill the memory
        card = ModelCard(existing)
    except Exception as error:  # yaml's errors, and the client's own ValueError
        raise ZooError(
            f"{repo}: the metadata at the top of its card cannot be read, mend it first: {short(error)}"
        ) from error
    text = card.text
    marked = BEGIN in text and END in text
    if marked:
        before, rest = text.split(BEGIN, 1)
        text = before + body.rstrip("\n") + rest.split(END, 1)[1]
    merged = _merge(data.to_dict(), card.data.to_dict(), marked)
    return f"---\n{yaml.safe_dump(merged, sort_keys=False, allow_unicode=True).strip()}\n---\n{text}"


def _merge(ours: Mapping[str, Any], theirs: Mapping[str, Any], marked: bool) -> dict[str, Any]:
    """Join our metadata with those of the existing card.

    What an earlier publication generated is dropped, as it describes other weights; what people added is kept.
    """
    tags = theirs.get("tags") or []
    if marked:
        theirs = {key: value for key, value in theirs.items() if key not in GENERATED}
        tags = [tag for tag in tags if tag not in {*TAGS, *map(_head_tag, list_heads())}]
    tags = [*tags, *(tag for tag in ours["tags"] if tag not in tags)]
    forced = {key: ours[key] for key in ("library_name", "pipeline_tag", "model-index") if key in ours}
    return {**ours, **theirs, **forced, "tags": tags}


def _head_tag(head: str) -> str:
    return head.replace("_", "-")


def card_data(repo: str, record: Record, datasets: Sequence[str] = (), base_model: str | None = None) -> ModelCardData:
    """Build the metadata of a card: library, task, licence, data, tags, and the results as a ``model-index``.

    >>> from gcpzoo.hub.records import get_record
    >>> card_data("owner/digits", get_record("resnet18_isqrt.digits")).license
    'apache-2.0'
    """
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
        tags=[*TAGS, _head_tag(str(record.config["head"]))],
        base_model=base_model,
        model_name=repo.split("/")[-1] if results else None,
        eval_results=results or None,
    )


def licence_id(licence: str) -> str:
    """Give the Hub's identifier: SPDX in lower case, ``unknown`` if none is stated, ``other`` for any other words.

    >>> licence_id("Apache-2.0"), licence_id("none stated"), licence_id("other (non-commercial research)")
    ('apache-2.0', 'unknown', 'other')
    """
    if licence in ("none stated", "unknown", ""):
        return "unknown"
    return licence.lower() if re.fullmatch(r"[\w.-]+", licence) else "other"


def data_name(record: Record) -> str:
    """Give the name of the data set: the text before the first comma, colon or bracket.

    >>> from gcpzoo.hub.records import get_record
    >>> data_name(get_record("resnet18_isqrt.cub50"))
    '50 species of CUB-200-2011'
    """
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
        ours = "measured with these weights" if record.status == VERIFIED else "measured by its publisher"
        by = {"authors": "as reported by its authors", "gcpzoo": ours}.get(record.measured_by, "")
        table = [(METRICS.get(k, k), _number(v), _control(record, k)) for k, v in record.metrics.items()]
        parts += ["## Results", f"{record.data}{'; ' + by if by else ''}.".lstrip("; ").replace("..", ".")]
        parts += [markdown(("", head, "the same with gap"), table)]
        if record.control and "note" in record.control:
            parts.append(f"The control: {record.control['note']}.")
        if told := over_seeds(record.trainings):
            parts.append(f"Over seeds: {told}.")
    if record.recipe:
        parts += ["## Training", record.recipe]
        if record.seeds:
            parts.append(f"Seeds: {', '.join(map(str, record.seeds))}.")
        if record.hardware:
            parts.append(f"Hardware: {record.hardware}.")
    parts += ["## Licence and provenance", f"Licence: {record.licence}.", f"Weights: {record.status}."]
    if record.provenance:
        parts.append(f"{record.provenance}.".replace("..", "."))
    if record.caveats:
        parts += ["## Caveats", "\n".join(f"- {c}" for c in record.caveats)]
    return "\n\n".join(parts)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table in Markdown.

    >>> print(markdown(("model", "top-1"), [("a", "91.5")]))
    | model | top-1 |
    | --- | --- |
    | a | 91.5 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _control(record: Record, metric: str = "top1") -> str:
    value = (record.control or {}).get(metric)
    return "–" if value is None else _number(value)


def records_table(names: Sequence[str] | None = None) -> str:
    """Lay out records as one table: accuracy beside the GAP control's, size, licence, availability, verification.

    >>> print(records_table(["resnet18_isqrt.digits"]).splitlines()[2])
    | `resnet18_isqrt.digits` | 99.72 | 99.44 | 100.00 | scikit-learn's digits | ... | accuracy verified |
    """
    rows = []
    for r in sorted(map(get_record, names or list_models()), key=lambda r: (r.measured_by != "gcpzoo", r.name)):
        size = f"{r.size / 1e6:.1f} MB" if r.size else "–"
        by = "" if r.measured_by == "gcpzoo" else "*"
        top1, top5 = (f"{_number(r.metrics[k])}{by}" if k in r.metrics else "–" for k in ("top1", "top5"))
        control = _control(r)
        control += (by if control != "–" else "") + ("†" if r.control and "note" in r.control else "")
        rows.append((f"`{r.name}`", top1, control, top5, data_name(r), size, r.licence, r.availability, r.status))
    header = ("model", "top-1", "GAP control", "top-5", "data", "size", "licence", "weights", "verification")
    return markdown(header, rows)


def zoo_card() -> str:
    """Write the text of ``MODEL_CARD.md``: the whole zoo, from its records.

    >>> zoo_card().splitlines()[0]
    "# The zoo's model card"
    """
    records = [get_record(name) for name in list_models()]
    ours = [r for r in records if r.measured_by == "gcpzoo"]
    parts = [
        "# The zoo's model card",
        "Written by `gcpzoo card` from `checkpoints/records`; change those, not this page.",
        f"{len(records)} checkpoints, {len(ours)} of them trained and measured here. The GAP control of a second-order "
        "head, where there is one, has the same backbone, data and recipe with global average pooling. "
        "\\* as reported by the authors, not measured again. † a control of another recipe.",
        "## All checkpoints",
        records_table(),
        "## Intended use",
        "Classification of single images, fine-tuning on one's own classes, and comparison of pooling methods. The "
        "ImageNet models know ImageNet's thousand classes and its biases; none is meant for decisions about people.",
        "## Where the weights come from",
        "*in the package*: carried by the installed package, 16-bit, checked by SHA-256. *in the repository*: the "
        "same, but only in the folder `checkpoints` of a clone, which `GCPZOO_CHECKPOINTS` names. *from the authors*: "
        "fetched from the authors' own storage when you load the name, then converted; not redistributed here, because "
        "most of them state no licence. *not loadable*: listed for completeness, with the reason below.",
        "## How far they are verified",
        f"*{VERIFIED}*: the accuracy was measured with exactly these weights, whose SHA-256 is checked. *{PINNED}*: "
        f"the SHA-256 is checked, or its first digits if the authors published no more. *{UNVERIFIED}*: nothing "
        "proves that the link still gives the file that its authors measured; the SHA-256 of your first download is "
        "kept, and a later change is an error.",
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
        "top-1 over seeds": over_seeds(record.trainings),
        "training": record.recipe or "",
        "seeds": ", ".join(map(str, record.seeds or [])),
        "hardware": record.hardware or "",
        "licence": record.licence,
        "provenance": record.provenance,
    }


def update_page(path: Path, write: bool = True) -> bool:
    """Replace the table of records between our two marks in a page such as ``README.md``.

    Args:
        path: the page.
        write: ``False``: leave the page as it is, only tell.

    Returns:
        Whether the page changed, or would change.

    Raises:
        ZooError: if the page lacks the marks.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = Path(folder, "README.md")
    ...     _ = page.write_text(f"# Zoo\\n{BEGIN}\\n{END}\\n")
    ...     update_page(page), update_page(page)
    (True, False)
    """
    return fill_page(path, BEGIN, END, records_table(), write)


def fill_page(path: Path, begin: str, end: str, content: str, write: bool = True) -> bool:
    """Put what is generated between two lines of a page; the rest of it is kept.

    Returns:
        Whether the page changed, or would change.

    Raises:
        ZooError: if the page lacks one of the lines.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = Path(folder, "page.md")
    ...     _ = page.write_text("above\\n<!-- from -->\\nold\\n<!-- to -->\\nbelow\\n")
    ...     fill_page(page, "<!-- from -->", "<!-- to -->", "new"), "\\nnew\\n" in page.read_text()
    (True, True)
    """
    text = path.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ZooError(f"{path} needs the lines {begin!r} and {end!r} around what is generated")
    new = f"{text.partition(begin)[0]}{begin}\n{content}\n{end}{text.partition(end)[2]}"
    if write and new != text:
        write_text(path, new)
    return new != text
