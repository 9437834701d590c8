"""Checkpoints that only their authors give: fetched, verified, converted, kept; and what to do by hand."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from test_convert import small_resnet

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub.authors import load_authors
from gcpzoo.hub.files import sha256
from gcpzoo.hub.records import Record, get_record


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, list[str]]]:
    """The authors' storage, holding ``w.pth``: its address and the paths asked of it."""
    asked: list[str] = []

    class Files(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            asked.append(self.path)

    (tmp_path / "storage").mkdir()
    torch.save({"state_dict": small_resnet(8, 36)}, tmp_path / "storage" / "w.pth")
    service = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Files, directory=tmp_path / "storage")
    )
    threading.Thread(target=service.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{service.server_port}/w.pth", asked
    service.shutdown()
    service.server_close()


@pytest.fixture
def record(server, tmp_path, monkeypatch) -> Record:
    monkeypatch.setenv("GCPZOO_CACHE", str(tmp_path / "cache"))
    known = get_record("resnet18_isqrt.in1k_wang2020_lrnorm")
    return dataclasses.replace(known, source={**known.source, "url": server[0]}, class_names=list("abcde"))


def kept(tmp_path: Path, record: Record) -> tuple[Path, Path]:
    return tmp_path / "cache" / "authors" / f"{record.name}.pth", tmp_path / "cache" / "converted" / record.name


def test_it_is_fetched_and_converted_once(record, server, tmp_path):
    first, second = load_authors(record), load_authors(record)
    assert server[1] == ["/w.pth"]
    for a, b in zip(first.state_dict().values(), second.state_dict().values()):
        assert torch.equal(a, b)
    assert first.config["head_args"]["iterations"] == 5
    assert first.class_names == list("abcde")
    original, folder = kept(tmp_path, record)
    assert not original.exists()
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_what_the_record_knows_goes_with_the_converted_model(record, tmp_path):
    about = {"preprocessing": {"resize": 64, "crop": 48, "interpolation": "bicubic"}, "metrics": {"top1": 12.5}}
    model = load_authors(dataclasses.replace(record, **about))
    assert (model.preprocessing.resize, model.preprocessing.crop) == (64, 48)
    assert model.preprocessing.interpolation == "bicubic"
    config = json.loads((kept(tmp_path, record)[1] / "config.json").read_text())
    assert config["about"]["metrics"] == {"top1": 12.5}
    assert config["about"]["provenance"].startswith(record.provenance)


def test_a_file_put_there_by_hand_is_used_and_left(record, server, tmp_path):
    original, _ = kept(tmp_path, record)
    original.parent.mkdir(parents=True)
    original.write_bytes((tmp_path / "storage" / "w.pth").read_bytes())
    load_authors(record)
    assert server[1] == []
    assert original.exists()


def test_without_a_network_it_says_which_file_to_put_where(record, server, tmp_path):
    original, _ = kept(tmp_path, record)
    (tmp_path / "storage" / "w.pth").unlink()
    with pytest.raises(ZooError, match=f"could not be fetched .*by hand, put it at {original}"):
        load_authors(record)
    closed = dataclasses.replace(record, source={**record.source, "url": "http://127.0.0.1:9/w.pth"})
    with pytest.raises(
        ZooError, match=f"could not be fetched .no connection to 127.0.0.1.: .*by hand, put it at {original}"
    ):
        load_authors(closed)
    assert not list(original.parent.iterdir())


def test_offline_it_does_not_even_try(record, server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ZooError, match="HF_HUB_OFFLINE is set and the authors' file is not here"):
        load_authors(record)
    assert server[1] == []


def test_a_page_instead_of_the_file_is_no_file(record, tmp_path):
    (tmp_path / "storage" / "w.pth").write_text("<html>quota exceeded</html>")
    with pytest.raises(ZooError, match="gave a page instead of the file"):
        load_authors(record)


def test_the_published_beginning_of_a_hash_is_checked(record, tmp_path):
    digest = sha256(tmp_path / "storage" / "w.pth")
    with pytest.raises(ZooError, match="its record says 00000000"):
        load_authors(dataclasses.replace(record, sha256="00000000"))
    load_authors(dataclasses.replace(record, sha256=digest[:8]))


def test_a_damaged_conversion_is_made_again(record, server, tmp_path):
    load_authors(record)
    weights = kept(tmp_path, record)[1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    load_authors(record)
    assert server[1] == ["/w.pth", "/w.pth"]


def test_what_cannot_be_rebuilt_says_why():
    with pytest.raises(ZooError, match="cannot be loaded: its authors released no code of this network"):
        gcpzoo.load("swin_tiny_dropcov.in1k_wang2022")


class TestTrust:
    """Files without a published hash: said when loaded, and their first hash is kept."""

    def test_loading_says_in_one_line_that_nothing_verifies_the_file(self, record, caplog):
        load_authors(record)
        (line,) = [r.getMessage() for r in caplog.records if r.name == "gcpzoo"]
        assert line == f"{record.name}: unverified (authors' link, no published hash)"

    def test_with_a_published_hash_it_says_nothing(self, record, tmp_path, caplog):
        load_authors(dataclasses.replace(record, sha256=sha256(tmp_path / "storage" / "w.pth")[:8]))
        assert not [r for r in caplog.records if r.name == "gcpzoo"]

    def test_a_file_that_changed_since_the_first_download_is_refused(self, record, tmp_path):
        load_authors(record)
        first = sha256(tmp_path / "storage" / "w.pth")
        original, folder = kept(tmp_path, record)
        assert original.with_suffix(".sha256").read_text() == f"{first}  {original.name}\n"
        shutil.rmtree(folder)
        changed = small_resnet(8, 36)
        changed["fc.bias"] += 1
        torch.save({"state_dict": changed}, tmp_path / "storage" / "w.pth")
        with pytest.raises(ZooError, match=f"the authors' file has changed: .*it was {first[:12]}") as caught:
            load_authors(record)
        assert not original.exists()
        assert not folder.exists()
        assert str(caught.value).endswith(f"to accept the new file, remove {original.with_suffix('.sha256')}")
        original.with_suffix(".sha256").unlink()
        load_authors(record)

    def test_the_same_file_again_is_accepted(self, record, server, tmp_path):
        load_authors(record)
        shutil.rmtree(kept(tmp_path, record)[1])
        load_authors(record)
        assert server[1] == ["/w.pth", "/w.pth"]

    def test_a_refused_download_does_not_stay(self, record, tmp_path):
        for _ in range(2):
            with pytest.raises(ZooError, match="its record says 00000000"):
                load_authors(dataclasses.replace(record, sha256="00000000"))
        assert not kept(tmp_path, record)[0].exists()


class TestBrokenDownloads:
    def test_nothing_is_left_of_one_that_stops_in_the_middle(self, record, tmp_path, monkeypatch):
        def stop(url: str, output: str, **kwargs: object) -> None:
            Path(f"{output}abcdefgh.part").write_bytes(b"half")  # as gdown names its temporary files
            raise KeyboardInterrupt

        monkeypatch.setattr("gdown.download", stop)
        with pytest.raises(KeyboardInterrupt):
            load_authors(record)
        assert not list((tmp_path / "cache" / "authors").iterdir())

    def test_what_a_killed_process_left_is_removed(self, record, tmp_path):
        original, _ = kept(tmp_path, record)
        (original.parent / f"{original.name}.part").mkdir(parents=True)
        (original.parent / f"{original.name}.partabcdefgh.part").write_bytes(b"half")
        load_authors(record)
        assert [p.name for p in original.parent.iterdir()] == [original.with_suffix(".sha256").name]

    def test_a_connection_that_closes_early_leaves_nothing(self, record, server, tmp_path, monkeypatch):
        import gdown

        whole = gdown.download
        monkeypatch.setattr("gdown.download", functools.partial(whole, retries=0))
        (tmp_path / "storage" / "w.pth").write_bytes(b"")
        with pytest.raises(ZooError, match="by hand"):
            load_authors(record)
        assert not list((tmp_path / "cache" / "authors").iterdir())


class TestQuota:
    WORDS = "Too many users have viewed or downloaded this file recently. Please try accessing the file again later."

    def test_the_page_is_told_apart_with_its_remedy(self, record, tmp_path):
        (tmp_path / "storage" / "w.pth").write_text(f"<!DOCTYPE html><html><p>{self.WORDS}</p></html>")
        with pytest.raises(ZooError, match="gave a page instead of the file: .*quota .* is used up; wait a day"):
            load_authors(record)

    def test_the_error_of_the_client_is_told_apart_too(self, record, monkeypatch):
        def refuse(*args: object, **kwargs: object) -> None:
            raise RuntimeError(f"Failed to retrieve file url:\n\n{self.WORDS}")

        monkeypatch.setattr("gdown.download", refuse)
        drive = dataclasses.replace(record, source={**record.source, "url": "https://drive.google.com/uc?id=1"})
        with pytest.raises(ZooError, match="Google Drive's download quota for this file is used up"):
            load_authors(drive)

    def test_another_page_is_no_quota(self, record, tmp_path):
        (tmp_path / "storage" / "w.pth").write_text("<html>Sign in</html>")
        with pytest.raises(ZooError, match="gave a page instead of the file: fetch") as caught:
            load_authors(record)
        assert "download quota" not in str(caught.value)
