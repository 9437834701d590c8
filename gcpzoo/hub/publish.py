"""Publishing on the Hugging Face Hub: one repository a model, one commit a change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcpzoo.errors import ZooError
from gcpzoo.hub.records import Record, describe

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from gcpzoo.models.gcpnet import GCPNet

CLOSED = ("none stated", "unknown", "")


@dataclass(frozen=True)
class Published:
    """What :func:`publish` did.

    Attributes:
        repo: ``owner/name``.
        commit: the commit (40 hex digits) that holds the model; ``None`` after a dry run.
        url: its address.
        files: the files that the commit changed; empty when all were there already, and no commit was made.
        card: the model card's text.
    """

    repo: str
    commit: str | None
    url: str | None
    files: tuple[str, ...]
    card: str

    @property
    def line(self) -> str:
        """The line that loads exactly this model."""
        return f'gcpzoo.load("hf-hub:{self.repo}{"@" + self.commit if self.commit else ""}")'


def publish(
    source: str | os.PathLike[str] | GCPNet,
    repo: str,
    *,
    private: bool = False,
    tag: str | None = None,
    collection: str | None = None,
    licence: str | None = None,
    datasets: Sequence[str] = (),
    base_model: str | None = None,
    about: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Published:
    """Publish a model: ``config.json``, ``model.safetensors``, the run's ``training.yaml`` and a model card.

    One commit on ``main``, refused by the Hub if somebody else commits in the meantime. Files that are there already
    are not sent again; if all are, no commit is made. The text that people wrote into the card is kept.

    Args:
        source: a zoo name, a folder, a run's ``.ckpt`` (its EMA weights where it has them), or a model.
        repo: ``owner/name``; created where it is missing.
        private: create it as a private repository.
        tag: also tag the commit, e.g. ``v1.0``.
        collection: also put it into this collection of the owner's: a title (created where missing) or a slug.
        licence: SPDX identifier of the weights' licence.
        datasets: ids of the training data on the Hub.
        base_model: id of the model that this was fine-tuned from.
        about: more for the card: ``data``, ``metrics``, ``recipe``, ``control``, ``caveats`` … as in a record.
        dry_run: write and check everything here, send nothing.

    Raises:
        ZooError: a licence that does not allow it, no permission, no network, a concurrent commit; each in one line.
    """
    from gcpzoo.hub.client import hub_api, split_revision

    if split_revision(repo)[1]:
        raise ZooError(
            f"publish goes to the branch main; write {repo.split('@')[0]!r}, and tag for a name of the commit"
        )
    model, record, training = _prepare(source, licence, about or {})
    with tempfile.TemporaryDirectory() as folder:
        files = _write(Path(folder), model, record, training)
        if dry_run:
            from gcpzoo.hub.card import hub_card

            card = hub_card(repo, record, datasets, base_model)
            return Published(repo, None, None, (*sorted(files), "README.md"), card)
        return _send(hub_api(), repo, files, record, private, tag, collection, datasets, base_model)


def _prepare(source: Any, licence: str | None, about: Mapping[str, Any]) -> tuple[GCPNet, Record, Path | None]:
    """The model, what is known of it, and its run's resolved configuration."""
    from gcpzoo.hub.load import load

    training = None
    if isinstance(source, str | os.PathLike):
        model = load(source)
        if (path := Path(source)).suffix == ".ckpt":
            training = next((p for f in (path.parent, path.parent.parent) if (p := f / "config.yaml").is_file()), None)
            about = {**_run_results(path), **about}
    else:
        model = source
    known: Record | None = model.record if isinstance(model.record, Record) else None
    if known and known.kind == "authors" and known.licence in CLOSED:
        raise ZooError(f"{known.name} may not be published: its authors state no licence, so nobody else may share it")
    if known is None:
        known = describe({"model": model.config, "class_names": model.class_names}, "model", {})
    if wrong := set(about) - {f.name for f in dataclasses.fields(Record)}:
        raise ZooError(f"about has no field {sorted(wrong)[0]!r}; it takes the fields of a record")
    record = dataclasses.replace(known, **{**about, **({"licence": licence} if licence else {})})
    return model, record, training


def _run_results(checkpoint: Path) -> dict[str, Any]:
    """What the run wrote into ``metrics.json`` about its last epoch, in the fields of a record."""
    path = checkpoint.parent.parent / "metrics.json"
    if checkpoint.name != "last.ckpt" or not path.is_file():
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        part = next((p for p in ("test", "validate") if p in report), None)
        data, images = report["data"], report["data"]["images"]
        about = {
            "data": f"{data['data']}: {', '.join(f'{n} images ({split})' for split, n in images.items())}",
            "recipe": f"{report['fit']['epochs']} epochs; every setting is in training.yaml",
            "seeds": None if report["seed"] is None else [report["seed"]],
            "hardware": report["hardware"],
        }
        if part:
            found = {k: round(100 * report[part][k], 2) for k in ("top1", "top5", "per_class")}
            about |= {"metrics": found, "measured_by": "gcpzoo"}
            about["data"] += ", measured on the " + ("test" if part == "test" else "validation") + " images"
    except (ValueError, KeyError, TypeError) as error:
        raise ZooError(f"{path} is not a report of 'gcpzoo fit': {error}") from None
    return about


def _write(folder: Path, model: GCPNet, record: Record, training: Path | None) -> dict[str, Path]:
    from gcpzoo.hub.load import save_local

    save_local(model, folder, record.about())
    files = {name: folder / name for name in ("config.json", "model.safetensors")}
    if training:
        files["training.yaml"] = training
    return files


def _send(
    api: HfApi,
    repo: str,
    files: dict[str, Path],
    record: Record,
    private: bool,
    tag: str | None,
    collection: str | None,
    datasets: Sequence[str],
    base_model: str | None,
) -> Published:
    from huggingface_hub import CommitOperationAdd

    from gcpzoo.hub.card import hub_card
    from gcpzoo.hub.client import clear_errors

    with clear_errors(repo):
        api.create_repo(repo, private=private or None, exist_ok=True)
        info = api.model_info(repo, files_metadata=True)
        if private and not info.private:
            raise ZooError(f"{repo} exists and is public; make it private on its page, or choose another name")
        there = {s.rfilename: s for s in info.siblings or []}
        existing = None
        if "README.md" in there:
            path = api.hf_hub_download(repo, "README.md", revision=info.sha)
            existing = Path(path).read_text(encoding="utf-8")
        card = hub_card(repo, record, datasets, base_model, existing)
        contents: dict[str, Path | bytes] = {**files, "README.md": card.encode()}
        changed = {name: c for name, c in contents.items() if name not in there or not _same(c, there[name])}
        commit, url = info.sha, f"{api.endpoint}/{repo}/commit/{info.sha}"
        if changed:
            done = api.create_commit(
                repo,
                [CommitOperationAdd(name, c if isinstance(c, bytes) else str(c)) for name, c in changed.items()],
                commit_message=f"Publish {record.config['backbone']}_{record.config['head']} with gcpzoo",
                parent_commit=info.sha,
            )
            commit, url = done.oid, done.commit_url
    if tag:
        _tag(api, repo, tag, str(commit))
    if collection:
        with clear_errors(f"collection {collection!r}"):
            slug = collection
            if "/" not in collection:
                slug = api.create_collection(
                    collection, namespace=repo.split("/")[0], private=private, exists_ok=True
                ).slug
            api.add_collection_item(slug, repo, "model", exists_ok=True)
    return Published(repo, commit, url, tuple(sorted(changed)), card)


def _same(content: Path | bytes, there: Any) -> bool:
    """Whether the Hub's file has this content, by the hash that the Hub keeps of it."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    if there.lfs:
        return bool(there.lfs.sha256 == hashlib.sha256(data).hexdigest())
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest())


def _tag(api: HfApi, repo: str, tag: str, commit: str) -> None:
    from gcpzoo.hub.client import clear_errors

    with clear_errors(repo):
        refs = {t.name: t.target_commit for t in api.list_repo_refs(repo).tags}
        if tag not in refs:
            api.create_tag(repo, tag=tag, revision=commit)
        elif refs[tag] != commit:
            raise ZooError(f"{repo} has a tag {tag!r} already, of commit {refs[tag][:12]}; choose another name")
