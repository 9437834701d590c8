"""The steps around a commit: tags, branches, pull requests, collections; and servers that offer less."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download
from publications import published
from standin import Hub

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import get_record, publish
from gcpzoo.hub.files import sha256


def commits(hub: Hub) -> int:
    return len(hub.repos["owner/animals"].commits)


class TestTags:
    def test_a_tag_of_another_commit_is_refused_before_anything_is_sent(self, hub: Hub, small):
        first = published(small, tag="v1")
        published(small, private=False)
        before = commits(hub)
        with pytest.raises(ZooError, match=r"has a tag 'v1' already, of commit [0-9a-f]{12}; nothing was sent"):
            publish(small, "owner/animals", licence="mit", tag="v1")
        assert commits(hub) == before
        assert hub.repos["owner/animals"].tags == {"v1": first.commit}

    def test_a_tag_of_an_older_commit_is_refused_even_for_its_own_content(self, hub: Hub, small):
        published(small, tag="v1")
        publish(small, "owner/animals", licence="mit")
        with pytest.raises(ZooError, match="has a tag 'v1' already"):
            publish(small, "owner/animals", licence="mit", tag="v1")

    def test_other_weights_under_the_same_tag_are_refused(self, hub: Hub, small):
        import copy

        published(small, tag="v1")
        other = copy.deepcopy(small)
        other.classifier.bias.data += 1
        with pytest.raises(ZooError, match="has a tag 'v1' already"):
            published(other, tag="v1")
        assert commits(hub) == 2

    def test_a_tag_that_fails_leaves_a_commit_that_the_error_names(self, hub: Hub, small):
        hub.faults.append(lambda method, path: (409, {}, b"{}") if "/tag/" in path else None)
        with pytest.raises(ZooError) as caught:
            published(small, tag="v1")
        commit = hub.repos["owner/animals"].branches["main"]
        assert f"has the model at commit {commit}, but the tag 'v1' was not made: " in str(caught.value)

    def test_a_revision_that_the_server_lost_is_named(self, hub: Hub, small):
        lost = {"X-Error-Code": "RevisionNotFound"}
        hub.faults.append(lambda method, path: (404, lost, b"{}") if "/tag/" in path else None)
        with pytest.raises(ZooError) as caught:
            published(small, tag="v1")
        commit = hub.repos["owner/animals"].branches["main"]
        assert f"has no revision '{commit}'" in str(caught.value)
        assert "None" not in str(caught.value)


class TestBranches:
    def test_a_branch_gets_the_commit_and_main_stays(self, hub: Hub, small):
        done = published(small, branch="next")
        repo = hub.repos["owner/animals"]
        assert repo.branches["next"] == done.commit
        assert set(repo.files("main")) == {".gitattributes"}
        assert gcpzoo.load("hf-hub:owner/animals@next").record.source["revision"] == done.commit

    def test_a_pull_request_leaves_the_branch_as_it_is(self, hub: Hub, small):
        first = published(small)
        done = publish(small, "owner/animals", licence="mit", create_pr=True)
        assert hub.repos["owner/animals"].branches["main"] == first.commit
        assert done.commit != first.commit
        assert done.url.endswith("/owner/animals/discussions/1")
        assert done.files == ("README.md", "config.json")

    def test_a_visitor_may_propose_a_change(self, hub: Hub, small, monkeypatch):
        first = published(small)
        monkeypatch.setenv("HF_TOKEN", "hf_visitor")
        publish(small, "owner/animals", licence="mit", create_pr=True)
        assert hub.repos["owner/animals"].branches["main"] == first.commit

    def test_a_pull_request_takes_no_tag(self, hub: Hub, small):
        with pytest.raises(ZooError, match="tag must be left out with create_pr"):
            published(small, create_pr=True, tag="v1")
        assert hub.log == []

    def test_the_message_is_the_title_of_the_commit(self, hub: Hub, small):
        done = published(small, message="First animals")
        assert hub.repos["owner/animals"].commits[done.commit]["title"] == "First animals"
        assert published(small, "owner/others").commit
        (title,) = [c["title"] for c in hub.repos["owner/others"].commits.values() if "gcpzoo" in c["title"]]
        assert title == "Publish resnet18_isqrt with gcpzoo"

    def test_a_revision_in_the_name_of_the_repository_is_refused(self, hub: Hub, small):
        with pytest.raises(ZooError, match="repo must be owner/name, got 'owner/animals@v1'"):
            published(small, "owner/animals@v1")


class TestServers:
    """Servers that speak the Hub's language without all of its words."""

    def test_without_hashes_of_files_publishing_works_and_counts_all_files_as_changed(self, hub: Hub, small):
        hub.blob_ids = False
        assert published(small).files == ("README.md", "config.json", "model.safetensors")
        published(small)
        assert gcpzoo.load("hf-hub:owner/animals").num_classes == 3

    def test_without_commits_in_its_answers_a_model_loads_by_its_revision(self, hub: Hub, small):
        published(small, tag="v1")
        hub.names_commits = False
        assert gcpzoo.load("hf-hub:owner/animals").record.source == {"repo": "owner/animals", "revision": "main"}
        assert gcpzoo.load("hf-hub:owner/animals@v1").record.source["revision"] == "v1"
        assert (Path(constants.HF_HUB_CACHE) / "models--owner--animals/snapshots/v1").is_dir()

    def test_without_collections_the_commit_stands_and_is_named(self, hub: Hub, small):
        hub.has_collections = False
        with pytest.raises(ZooError) as caught:
            published(small, collection="Animals")
        commit = hub.repos["owner/animals"].branches["main"]
        assert f"has the model at commit {commit}, but it was not put into the collection 'Animals'" in str(
            caught.value
        )
        assert "has no collections at all" in str(caught.value)

    def test_an_unknown_collection_is_an_error_after_the_commit(self, hub: Hub, small):
        with pytest.raises(ZooError, match="has the model at commit .*no such collection"):
            published(small, collection="owner/animals-0123456789abcdef01234567")

    def test_a_token_that_may_not_create_can_publish_to_what_exists(self, hub: Hub, small):
        first = published(small)
        hub.may_create = False
        assert publish(small, "owner/animals", licence="mit").commit != first.commit
        with pytest.raises(ZooError, match="use one with write access"):
            published(small, "owner/new")


class TestStoredWeights:
    def test_16_bit_weights_travel_as_they_are_stored(self, hub: Hub):
        record = get_record("resnet18_isqrt.digits")
        publish("resnet18_isqrt.digits", "owner/digits")
        path = Path(hf_hub_download("owner/digits", "model.safetensors"))
        assert sha256(path) == record.sha256
        assert path.stat().st_size == record.size
        model = gcpzoo.load("hf-hub:owner/digits")
        assert model.record.sha256 == record.sha256
        assert model.record.metrics == record.metrics
        assert model.class_names == [str(i) for i in range(10)]

    def test_a_folder_and_a_repository_pass_their_file_on(self, hub: Hub, checkpoint):
        stored = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
        publish(checkpoint, "owner/animals")
        publish("hf-hub:owner/animals", "owner/copies")
        for repo in ("owner/animals", "owner/copies"):
            assert hub.repos[repo].files("main")["model.safetensors"].lfs == stored


class TestCommand:
    def test_an_unchanged_publication_says_that_nothing_was_tested(self, hub: Hub, cli, checkpoint, monkeypatch):
        arguments = ["publish", checkpoint, "owner/animals", "--licence", "mit"]
        assert cli(*arguments)[0] == 0
        commit = hub.repos["owner/animals"].branches["main"]
        code, out, _ = cli(*arguments)
        assert code == 0
        assert f"unchanged, at commit {commit}: nothing sent; write access not tested" in out

    def test_options_of_the_commit_are_handed_on(self, hub: Hub, cli, checkpoint):
        arguments = ["publish", checkpoint, "owner/animals", "--licence", "mit"]
        assert cli(*arguments, "--branch", "next", "--message", "By hand")[0] == 0
        repo = hub.repos["owner/animals"]
        assert repo.commits[repo.branches["next"]]["title"] == "By hand"
        assert cli(*arguments, "--create-pr")[0] == 0
        assert "refs/pr/1" in repo.branches
        assert set(repo.files("main")) == {".gitattributes"}
