"""What a publication is told is checked before anything is sent, in a dry run too."""

from __future__ import annotations

import pytest

from gcpzoo.errors import ZooError
from gcpzoo.hub import publish

REFS = ["", " ", "v 1", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "/a", "a/", "a//b", ".a", "a/.b", "a.",
        "a.lock", "a.lock/b", "a@{b", "@", "-a", "a\n", "a\x7f"]  # fmt: skip


@pytest.mark.parametrize("field", ["tag", "branch"])
@pytest.mark.parametrize("name", REFS)
def test_a_tag_and_a_branch_are_names_that_git_takes(small, field, name):
    with pytest.raises(ZooError, match=f"{field} must be a name that git takes"):
        publish(small, "owner/animals", dry_run=True, **{field: name})


@pytest.mark.parametrize("name", ["v1.0", "feature/birds", "2024-05", "a@b"])
def test_ordinary_tags_and_branches_are_taken(small, name):
    assert publish(small, "owner/animals", dry_run=True, tag=name, branch=name).commit is None


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [
        ("repo", "owner/my animals", "owner/my animals"),
        ("repo", "owner/a--b", "owner/a--b"),
        ("base_model", "", ""),
        ("base_model", "a/b/c", "a/b/c"),
        ("datasets", ["owner/photos", "my photos"], "my photos"),
    ],
)
def test_repositories_have_ids_of_the_hub(small, field, value, wrong):
    arguments = {"repo": "owner/animals", field: value}
    with pytest.raises(ZooError, match=f"{field} must be the id of a repository on the Hub, got {wrong!r}"):
        publish(small, dry_run=True, **arguments)


def test_datasets_are_a_list(small):
    with pytest.raises(ZooError, match="datasets must be a list of ids on the Hub, got 'owner/photos'"):
        publish(small, "owner/animals", datasets="owner/photos", dry_run=True)


@pytest.mark.parametrize("licence", ["", " ", "do what you like", "mit\n", "other ()", "-mit"])
def test_a_licence_is_an_identifier_or_other_words(small, licence):
    with pytest.raises(ZooError, match="licence must be an SPDX identifier"):
        publish(small, "owner/animals", licence=licence, dry_run=True)


@pytest.mark.parametrize("licence", ["MIT", "cc-by-4.0", "unknown", "none stated", "other (research only)"])
def test_identifiers_and_known_words_are_licences(small, licence):
    assert f"Licence: {licence}." in publish(small, "owner/animals", licence=licence, dry_run=True).card
