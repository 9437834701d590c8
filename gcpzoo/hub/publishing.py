"""Publishing on the Hugging Face Hub: one repository a model, one commit a change."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import ModelInfo

from gcpzoo.errors import ZooError
from gcpzoo.hub.arguments import check_licence, check_ref, check_repo_id
from gcpzoo.hub.card import hub_card, licence_id
from gcpzoo.hub.client import clear_errors, hub_api, split_revision
from gcpzoo.hub.files import CONFIG, WEIGHTS, save_local, sha256, write_config
from gcpzoo.hub.loading import load_stored
from gcpzoo.hub.records import Record, describe, with_about
from gcpzoo.hub.run_results import run_results
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.paths import run_file

MAIN = "main"


@dataclass(frozen=True)
class Published:
    """What :func:`publish` did.

    Attributes:
        repo: ``owner/name``.
        commit: the commit (40 hex digits) that holds the model; ``None`` after a dry run.
        url: its address, or the pull request's.
        files: the files that the commit changed; empty if all were there already, and no commit was made.
        card: text of the model card.

    >>> Published("owner/animals", "3f1c" * 10, None, (), "").line
    'gcpzoo.load("hf-hub:owner/animals@3f1c3f1c3f1c3f1c3f1c3f1c3f1c3f1c3f1c3f1c")'
    """

    repo: str
    commit: str | None
    url: str | None
    files: tuple[str, ...]
    card: str

    @property
    def line(self) -> str:
        """The line that loads exactly this model.

        >>> Published("owner/animals", None, None, (), "").line
        'gcpzoo.load("hf-hub:owner/animals")'
        """
        return f'gcpzoo.load("hf-hub:{self.repo}{"@" + self.commit if self.commit else ""}")'


@dataclass(frozen=True)
class Target:
    """Where a model is published, and how the commit is made.

    Attributes:
        repo: ``owner/name``; created if missing.
        private: create it as a private repository.
        branch: branch of the commit; created from ``main`` if missing.
        create_pr: open a pull request instead of committing to the branch.
        message: title of the commit; by default the model's name.
        tag: name of the commit, e.g. ``v1.0``.
        collection: title (created if missing) or slug of a collection that gets the repository.

    >>> Target("owner/animals", tag="v1.0").branch
    'main'
    """

    repo: str
    private: bool = False
    branch: str = MAIN
    create_pr: bool = False
    message: str | None = None
    tag: str | None = None
    collection: str | None = None

    def __post_init__(self) -> None:
        if split_revision(self.repo)[1]:
            raise ZooError(
                f"repo must be owner/name, got {self.repo!r}: write {self.repo.split('@')[0]!r}, and branch or tag for "
                "a revision"
            )
        check_repo_id("repo", self.repo)
        for field, name in (("branch", self.branch), ("tag", self.tag)):
            if name is not None:
                check_ref(field, name)
        if self.create_pr and self.tag:
            raise ZooError("tag must be left out with create_pr: tag the commit once the pull request is merged")


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
    branch: str = MAIN,
    create_pr: bool = False,
    message: str | None = None,
) -> Published:
    """Publish a model: ``config.json``, ``model.safetensors``, the run's ``training.yaml`` and a model card.

    One commit, refused by the Hub if somebody else commits in the meantime. Files that are there already are not sent
    again; if all are, no commit is made. Weights are published as they are stored: 16-bit ones stay 16-bit. In an
    existing card the text and the metadata that people added are kept, and what was generated is written anew.

    Args:
        source: a zoo name, a folder, a run's folder or ``.ckpt`` (its averaged weights if it has them), or a model.
        repo: ``owner/name``; created if missing.
        private: create it as a private repository.
        tag: also tag the commit, e.g. ``v1.0``; a tag of another commit is refused before anything is sent.
        collection: also put it into this collection of the owner's: a title (created if missing) or a slug.
        licence: SPDX identifier of the weights' licence.
        datasets: ids of the training data on the Hub.
        base_model: id of the model that this was fine-tuned from.
        about: more for the card: ``data``, ``metrics``, ``recipe``, ``control``, ``caveats`` … as in a record.
        dry_run: write and check everything here, send nothing.
        branch: branch to commit to; created from ``main`` if missing.
        create_pr: open a pull request instead.
        message: title of the commit.

    Raises:
        ZooError: for a licence that does not allow it, no permission, no network, a concurrent commit; in one line.
            If a step after the commit fails, the message names the commit that exists.

    >>> done = publish("resnet18_isqrt.digits", "owner/digits", dry_run=True)
    >>> done.files
    ('config.json', 'model.safetensors', 'README.md')
    """
    target = Target(repo, private, branch, create_pr, message, tag, collection)
    _check_metadata(licence, datasets, base_model)
    model, record, weights, training = _prepare(source, licence, about or {})
    if base_model is None and (base := re.match(r"trained from hf-hub:([\w.-]+/[\w.-]+)", record.provenance)):
        base_model = base[1]
    with tempfile.TemporaryDirectory() as folder:
        files, digest = _write(Path(folder), model, record, weights, training)
        if record.kind != "authors":  # its hash is the one of the authors' file
            record = dataclasses.replace(record, sha256=digest)
        if dry_run:
            card = hub_card(repo, record, datasets, base_model)
            return Published(repo, None, None, (*sorted(files), "README.md"), card)
        return _send(hub_api(), target, files, record, datasets, base_model)


def _check_metadata(licence: str | None, datasets: Sequence[str], base_model: str | None) -> None:
    if licence is not None:
        check_licence(licence)
    if isinstance(datasets, str):
        raise ZooError(f"datasets must be a list of ids on the Hub, got {datasets!r}")
    for name in datasets:
        check_repo_id("datasets", name)
    if base_model is not None:
        check_repo_id("base_model", base_model)


def _prepare(
    source: Any, licence: str | None, about: Mapping[str, Any]
) -> tuple[GCPNet, Record, Path | None, Path | None]:
    """Give the model, what is known of it, the file of its weights, and its run's resolved configuration."""
    weights = training = None
    if isinstance(source, GCPNet):
        model = source
    else:
        model, weights = load_stored(source)
        if (path := run_file(source) or Path(source)).suffix == ".ckpt":
            training = next((p for f in (path.parent, path.parent.parent) if (p := f / "config.yaml").is_file()), None)
            about = {**run_results(path, model.config), **about}
    known: Record | None = model.record if isinstance(model.record, Record) else None
    if known and known.kind == "authors" and licence_id(known.licence) == "unknown":
        raise ZooError(f"{known.name} may not be published: its authors state no licence, so nobody else may share it")
    if known is None:
        known = describe({"model": model.config, "class_names": model.class_names}, "model", {})
    if licence is not None:
        _warn_of_licence(known, licence)
    if {"metrics", "measured_by"} & set(about):  # figures that the zoo does not vouch for
        known = dataclasses.replace(known, name="model", source={})
    record = with_about(known, {**about, **({"licence": licence} if licence else {})}, "publish")
    return model, record, weights, training


def _warn_of_licence(known: Record, licence: str) -> None:
    """Warn where a model is published under another licence than that of the model it was trained from."""
    before = known.licence
    if before not in ("", "unknown") and licence_id(before) != licence_id(licence):
        whose = f"the model was {known.provenance}, whose licence is" if known.provenance else "its own licence is"
        warnings.warn(
            f"{whose} {before!r}, and --licence says {licence!r}: make sure that the first allows it", stacklevel=2
        )


def _write(
    folder: Path, model: GCPNet, record: Record, weights: Path | None, training: Path | None
) -> tuple[dict[str, Path], str]:
    """Write what is published into ``folder``; stored weights are copied as they are. Give the files and the hash."""
    if weights:
        shutil.copyfile(weights, folder / WEIGHTS)
        digest = sha256(weights)
        write_config(model, folder, digest, record.about())
    else:
        digest = save_local(model, folder, record.about())
    files = {name: folder / name for name in (CONFIG, WEIGHTS)}
    if training:
        files["training.yaml"] = training
    return files, digest


def _send(
    api: HfApi,
    target: Target,
    files: dict[str, Path],
    record: Record,
    datasets: Sequence[str],
    base_model: str | None,
) -> Published:
    with clear_errors(target.repo, target.branch):
        before = _open_repository(api, target)
        names = {s.rfilename for s in before.siblings or []}
        existing = None
        if "README.md" in names:
            path = api.hf_hub_download(target.repo, "README.md", revision=before.sha)
            existing = Path(path).read_text(encoding="utf-8")
        card = hub_card(target.repo, record, datasets, base_model, existing)
        contents: dict[str, Path | bytes] = {**files, "README.md": card.encode()}
        if target.tag and _is_tagged(api, target, str(before.sha), contents, names):
            return Published(target.repo, before.sha, _url(api, target, before.sha), (), card)
        done = api.create_commit(
            target.repo,
            [CommitOperationAdd(name, c if isinstance(c, bytes) else str(c)) for name, c in contents.items()],
            commit_message=target.message or f"Publish {record.config['backbone']}_{record.config['head']} with gcpzoo",
            revision=target.branch,
            create_pr=target.create_pr,
            parent_commit=before.sha,
        )
    commit = str(done.oid)
    changed: tuple[str, ...] = ()
    if commit != before.sha:
        with _after(target, commit, "its files could not be listed"):
            after = api.model_info(target.repo, revision=commit, files_metadata=True)
            changed = tuple(sorted(_changed(before, after) & set(contents)))
    if target.tag:
        with _after(target, commit, f"the tag {target.tag!r} was not made"):
            api.create_tag(target.repo, tag=target.tag, revision=commit)
    if target.collection:
        with _after(target, commit, f"it was not put into the collection {target.collection!r}"):
            _collect(api, target)
    url = done.pr_url or _url(api, target, commit)
    return Published(target.repo, commit, url, changed, card)


def _open_repository(api: HfApi, target: Target) -> ModelInfo:
    """Make the repository and the branch where they are missing, and describe the branch's last commit."""
    if not target.create_pr:  # a pull request goes to somebody's repository, which exists
        api.create_repo(target.repo, private=target.private or None, exist_ok=True)
    if target.branch != MAIN:
        api.create_branch(target.repo, branch=target.branch, exist_ok=True)
    info = api.model_info(target.repo, revision=target.branch, files_metadata=True)
    if target.private and not info.private:
        raise ZooError(f"{target.repo} exists and is public; make it private on its page, or choose another name")
    return info


def _is_tagged(api: HfApi, target: Target, head: str, contents: Mapping[str, Path | bytes], names: set[str]) -> bool:
    """Tell whether the tag names the last commit and this holds the same content already.

    ``config.json`` holds the hash of the weights, so that equal small files mean equal weights.

    Raises:
        ZooError: if the tag exists and names anything else.
    """
    tags = {t.name: t.target_commit for t in api.list_repo_refs(target.repo).tags}
    if target.tag not in tags:
        return False
    small = {name: content for name, content in contents.items() if name != WEIGHTS}

    def same(name: str, content: Path | bytes) -> bool:
        there = Path(api.hf_hub_download(target.repo, name, revision=head)).read_bytes()
        return there == (content if isinstance(content, bytes) else content.read_bytes())

    if tags[target.tag] == head and set(contents) <= names and all(same(n, c) for n, c in small.items()):
        return True
    raise ZooError(
        f"{target.repo} has a tag {target.tag!r} already, of commit {tags[target.tag][:12]}; nothing was sent: choose "
        "another name"
    )


def _changed(before: ModelInfo, after: ModelInfo) -> set[str]:
    """Compare two commits by the hashes that the Hub keeps; without them every file counts as changed."""

    def hashes(info: ModelInfo) -> dict[str, Any]:
        return {s.rfilename: s.lfs.sha256 if s.lfs else s.blob_id for s in info.siblings or []}

    old = hashes(before)
    return {name for name, value in hashes(after).items() if value is None or value != old.get(name)}


def _url(api: HfApi, target: Target, commit: str | None) -> str:
    return f"{api.endpoint}/{target.repo}/commit/{commit}"


def _collect(api: HfApi, target: Target) -> None:
    """Put the repository into the collection, by its slug or its title."""
    slug = str(target.collection)
    try:
        if "/" not in slug:
            owner = target.repo.split("/")[0]
            slug = api.create_collection(slug, namespace=owner, private=target.private, exists_ok=True).slug
        api.add_collection_item(slug, target.repo, "model", exists_ok=True)
    except HfHubHTTPError as error:
        if error.response.status_code in (404, 405, 501):
            raise ZooError("this Hub has no such collection, or has no collections at all") from error
        raise


@contextmanager
def _after(target: Target, commit: str, what: str) -> Iterator[None]:
    """Around what follows the commit: an error says that the commit exists."""
    try:
        with clear_errors(target.repo, commit):
            yield
    except ZooError as error:
        raise ZooError(f"{target.repo} has the model at commit {commit}, but {what}: {error}") from error
