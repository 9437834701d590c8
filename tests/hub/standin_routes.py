"""The Hub's addresses, as huggingface_hub asks for them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import uuid
from typing import Any
from urllib.parse import unquote

import yaml
from standin import Entry, HubError, Repo
from standin_http import Handler

LARGE = (".safetensors", ".bin", ".ckpt")
LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "other", "unknown"}
DATE = "2026-01-01T00:00:00.000Z"


class Routes(Handler):
    """The Hub itself."""

    def route(self, path: str) -> None:
        repo = r"([^/]+/[^/]+)"
        table = {
            r"GET /api/whoami-v2": self.whoami,
            r"POST /api/repos/create": self.create,
            r"POST /api/validate-yaml": self.validate,
            r"POST /api/collections": self.new_collection,
            r"POST /api/collections/(.+)/items?": self.add_to_collection,
            r"GET /api/models": self.search,
            rf"GET /api/models/{repo}(?:/revision/(.+))?": self.info,
            rf"GET /api/models/{repo}/refs": self.refs,
            rf"POST /api/models/{repo}/tag/(.+)": self.tag,
            rf"POST /api/models/{repo}/branch/(.+)": self.branch,
            rf"POST /api/models/{repo}/preupload/([^/]+)": self.preupload,
            rf"POST /api/models/{repo}/commit/([^/]+)": self.commit,
            rf"GET /api/models/{repo}/xet-(read|write)-token/.+": self.xet_token,
            rf"POST /{repo}\.git/info/lfs/objects/batch": self.lfs_batch,
            r"PUT /_lfs/([0-9a-f]{64})": self.lfs_put,
            r"POST /_lfs/verify": lambda: self.answer(200, {}),
            rf"(?:GET|HEAD) /{repo}/resolve/([^/]+)/(.+)": self.resolve,
        }
        for pattern, action in table.items():
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                with self.hub.lock:
                    return action(*(unquote(g) if g else g for g in found.groups()))
        raise HubError(404, f"no such page: {self.command} {path}")

    # who may what

    def user(self, needed: bool = False, write: bool = False) -> str | None:
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if not token:
            if needed or write:
                raise HubError(401, "Invalid username or password.")
            return None
        if token not in self.hub.users:
            raise HubError(401, "Invalid credentials in Authorization header")
        name, role = self.hub.users[token]
        if write and role != "write":
            raise HubError(403, "Your token does not have write access")
        return name

    def repo(self, repo_id: str, write: bool = False, content: bool = False) -> Repo:
        """The repository, if this user may have it; a private one looks like none."""
        user, repo = self.user(write=write), self.hub.repos.get(repo_id)
        owner = user is not None and repo_id.split("/")[0] == user
        if repo is None or (repo.private and not owner):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not owner:
            raise HubError(403, f"Forbidden: you don't have write access to {repo_id}")
        if content and repo.gated and not owner:
            raise HubError(403 if user else 401, f"Access to model {repo_id} is restricted", "GatedRepo")
        return repo

    def whoami(self) -> None:
        self.answer(200, {"type": "user", "name": self.user(needed=True), "orgs": []})

    # repositories

    def create(self) -> None:
        user, asked = self.user(write=True), json.loads(self.body)
        repo_id = f"{asked.get('organization') or user}/{asked['name']}"
        if repo_id.split("/")[0] != user or not self.hub.may_create:
            raise HubError(403, f"You don't have the rights to create a model under {repo_id.split('/')[0]}")
        url = f"{self.hub.url}/{repo_id}"
        if repo_id in self.hub.repos:
            error = HubError(409, "You already created this model repo")
            error.body = {"error": error.text, "url": url}
            raise error
        new = self.hub.repos[repo_id] = Repo(
            repo_id, asked.get("visibility") == "private" or bool(asked.get("private"))
        )
        new.commit({".gitattributes": self.hub.add_regular(b"*.safetensors filter=lfs\n")}, "initial commit")
        self.answer(200, {"url": url, "name": repo_id})

    def card(self, repo: Repo, revision: str) -> dict[str, Any]:
        readme = repo.files(revision).get("README.md")
        text = self.hub.content(readme).decode() if readme else ""
        found = re.match(r"---\n(.*?)\n---", text, re.S)
        try:
            return yaml.safe_load(found[1]) if found else {}
        except yaml.YAMLError:
            return {}

    def describe(self, repo: Repo, revision: str = "main") -> dict[str, Any]:
        commit, card = repo.resolve(revision), self.card(repo, revision)

        def sibling(path: str, e: Entry) -> dict[str, Any]:
            large = {"lfs": {"sha256": e.lfs, "size": e.size, "pointerSize": 134}} if e.lfs else {}
            blob = {"blobId": e.oid} if self.hub.blob_ids else {}
            return {"rfilename": path, "size": e.size, **blob, **({} if not self.hub.blob_ids else large)}

        return {
            "id": repo.id,
            "sha": commit,
            "private": repo.private,
            "gated": repo.gated,
            "tags": [*card.get("tags", []), card.get("library_name", "")],
            "siblings": [sibling(p, e) for p, e in repo.files(revision).items()],
            "cardData": card,
            "downloads": 0,
            "likes": 0,
            "lastModified": DATE,
            "createdAt": DATE,
        }

    def info(self, repo_id: str, revision: str | None) -> None:
        self.answer(200, self.describe(self.repo(repo_id), revision or "main"))

    def search(self) -> None:
        user, found = self.user(), []
        for repo in self.hub.repos.values():
            owner, about = repo.id.split("/")[0], self.describe(repo)
            if (
                (not repo.private or owner == user)
                and self.query.get("author", [owner])[0] == owner
                and self.query.get("search", [""])[0] in repo.id
                and all(tag in about["tags"] for tag in self.query.get("filter", []))
            ):
                found.append(about)
        self.answer(200, found[: int(self.query.get("limit", ["1000"])[0])])

    def refs(self, repo_id: str) -> None:
        repo = self.repo(repo_id)

        def listed(names: dict[str, str], kind: str) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in names.items()]

        self.answer(
            200, {"branches": listed(repo.branches, "heads"), "converts": [], "tags": listed(repo.tags, "tags")}
        )

    def tag(self, repo_id: str, revision: str) -> None:
        repo, name = self.repo(repo_id, write=True), json.loads(self.body)["tag"]
        if name in repo.tags:
            raise HubError(409, f"tag {name} already exists")
        repo.tags[name] = repo.resolve(revision)
        self.answer(200, {})

    def branch(self, repo_id: str, name: str) -> None:
        repo, asked = self.repo(repo_id, write=True), json.loads(self.body or b"{}")
        if name in repo.branches:
            raise HubError(409, f"Reference already exists: refs/heads/{name}")
        repo.branches[name] = repo.resolve(asked.get("startingPoint") or "main")
        self.answer(201, {})

    def validate(self) -> None:
        found = re.match(r"---\n(.*?)\n---", json.loads(self.body)["content"], re.S)
        data, errors = yaml.safe_load(found[1]) if found else {}, []
        if data.get("license", "other") not in LICENCES:
            errors.append({"message": f'"license" must be one of {sorted(LICENCES)}'})
        for entry in data.get("model-index") or []:
            if not entry.get("name") or not isinstance(entry.get("results"), list):
                errors.append({"message": '"model-index[0].results" is required'})
        self.answer(400 if errors else 200, {"errors": errors, "warnings": []})

    # collections

    def new_collection(self) -> None:
        if not self.hub.has_collections:
            raise HubError(404, "no such page")
        user, asked = self.user(write=True), json.loads(self.body)
        slug = f"{user}/{re.sub('[^a-z0-9]+', '-', asked['title'].lower())}-{uuid.uuid4().hex[:24]}"
        shared = {"private": False, "position": 0, "theme": "blue", "upvotes": 0, "lastUpdated": DATE}
        self.hub.collections[slug] = {
            "slug": slug,
            "title": asked["title"],
            "owner": {"name": user},
            "items": [],
            **shared,
        }
        self.answer(200, self.hub.collections[slug])

    def add_to_collection(self, slug: str) -> None:
        self.user(write=True)
        if slug not in self.hub.collections:
            raise HubError(404, "Collection not found")
        item = {**json.loads(self.body)["item"], "position": 0, "_id": uuid.uuid4().hex[:24]}
        self.hub.collections[slug]["items"].append(item)
        self.answer(200, self.hub.collections[slug])

    # up

    def preupload(self, repo_id: str, revision: str) -> None:
        files = self.repo(repo_id, write="create_pr" not in self.query).files(revision)
        out = []
        for file in json.loads(self.body)["files"]:
            known = files.get(file["path"])
            mode = "lfs" if file["path"].endswith(LARGE) else "regular"
            oid = {"oid": known.lfs or known.oid} if known and self.hub.blob_ids else {}
            out.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
        self.answer(200, {"files": out})

    def commit(self, repo_id: str, branch: str) -> None:
        pull_request = "create_pr" in self.query
        repo = self.repo(repo_id, write=not pull_request)
        self.user(write=True)
        if branch not in repo.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        files, header = dict(repo.files(branch)), {}
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                header = value
            elif operation["key"] == "file":
                files[value["path"]] = self.hub.add_regular(base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.add_large(value["oid"], value["size"])
        if header.get("parentCommit", repo.branches[branch]) != repo.branches[branch]:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        done = {"pullRequestUrl": f"{self.hub.url}/{repo.id}/discussions/1"} if pull_request else {}
        commit = repo.commit(files, header["summary"], "refs/pr/1" if pull_request else branch)
        self.answer(200, {"commitOid": commit, "commitUrl": f"{self.hub.url}/{repo.id}/commit/{commit}", **done})

    def lfs_batch(self, repo_id: str) -> None:
        self.repo(repo_id)
        self.user(write=True)
        out = []
        for asked in json.loads(self.body)["objects"]:
            known = self.hub.lfs(asked["oid"]).exists()
            upload = {"href": f"{self.hub.url}/_lfs/{asked['oid']}"}
            actions = {"upload": upload, "verify": {"href": f"{self.hub.url}/_lfs/verify"}}
            out.append({"oid": asked["oid"], "size": asked["size"], **({} if known else {"actions": actions})})
        self.answer(200, {"transfer": "basic", "objects": out})

    def lfs_put(self, sha256: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != sha256:
            raise HubError(400, "Content does not match the oid")
        self.hub.lfs(sha256).write_bytes(self.body)
        self.answer(200)

    def xet_token(self, repo_id: str, kind: str) -> None:
        if repo_id != "-/-":
            self.repo(repo_id, write=kind == "write", content=True)
        if not self.hub.xet:
            raise HubError(404, "Xet is not enabled on this server")
        expiry = int(time.time()) + 3600
        headers = {"Cas-Url": self.hub.cas, "Access-Token": "t", "Token-Expiration": str(expiry)}
        body = {"casUrl": self.hub.cas, "accessToken": "t", "exp": expiry}
        self.answer(200, body, **{f"X-Xet-{k}": v for k, v in headers.items()})

    # down

    def resolve(self, repo_id: str, revision: str, path: str) -> None:
        repo = self.repo(repo_id, content=True)
        commit = repo.resolve(revision)
        headers = {"X-Repo-Commit": commit if self.hub.names_commits else revision}
        entry = repo.files(commit).get(path)
        if entry is None:
            raise HubError(404, "Entry not found", "EntryNotFound", **headers)
        headers["ETag"] = f'"{entry.oid}"'
        if entry.lfs is None:
            return self.send_file(self.hub.content(entry), **headers)
        headers |= {"X-Linked-Etag": f'"{entry.lfs}"', "X-Linked-Size": str(entry.size)}
        if entry.xet:
            route = f"{self.hub.url}/api/models/{repo_id}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": entry.xet, "X-Xet-Refresh-Route": route, "Link": f'<{route}>; rel="xet-auth"'}
            if self.command == "GET":
                self.hub.content(entry)
        self.answer(302, Location=f"{self.hub.cdn_url}/{entry.lfs}", **headers)
