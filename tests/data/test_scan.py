"""What a folder holds: links, hidden names, pipes, names in odd encodings."""

import os
from pathlib import Path

import pytest
from image_files import write

from gcpzoo.data.scan import refuse_inside, scan_images
from gcpzoo.errors import ZooError
from gcpzoo.serve import find_images


def names(paths, root) -> list[str]:
    return [os.path.relpath(path, root) for path in paths]


def reasons(found, root) -> dict[str, str]:
    return {os.path.relpath(path, root): why for path, why in found.items()}


def test_images_are_found_by_suffix_and_the_rest_is_named(tmp_path):
    write(tmp_path, ["b.PNG", "deep/a.jpeg", "__c.png", "_d/1.jpg", ".hidden/c.jpg", ".e.jpg"])
    for name in ("notes.txt", "phone.heic", ".DS_Store"):
        (tmp_path / name).touch()
    found = scan_images(str(tmp_path))
    assert names(found.images, tmp_path) == ["__c.png", "_d/1.jpg", "b.PNG", "deep/a.jpeg"]
    assert reasons(found.ignored, tmp_path) == {
        ".e.jpg": "its name begins with a dot",
        ".hidden": "its name begins with a dot",
        "notes.txt": "no image suffix",
        "phone.heic": "no image suffix",
    }


def test_links_are_followed_and_each_real_folder_is_read_once(tmp_path):
    root = tmp_path / "cats"
    write(tmp_path, ["cats/1.png", "cats/deep/2.png", "elsewhere/3.png", "elsewhere/more/4.png"])
    (root / "a").symlink_to(root / "deep")  # sorts before the real folder, which is read all the same
    (root / "b").symlink_to("../elsewhere")
    (root / "c").symlink_to("../elsewhere/more")
    (root / "deep" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "out").symlink_to(tmp_path)
    (root / "5.png").symlink_to("../elsewhere/3.png")
    found = scan_images(str(root))
    assert names(found.images, root) == ["1.png", "5.png", "b/3.png", "b/more/4.png", "deep/2.png"]
    assert reasons(found.ignored, root) == {
        "a": "the same folder as deep",
        "b/back": "the same folder as .",
        "c": "the same folder as b/more",
        "deep/up": "a link to a folder that holds it",
        "out": "a link to a folder that holds it",
    }


def test_pipes_broken_links_and_folders_named_like_images_are_left_to_the_reader_or_named(tmp_path):
    write(tmp_path, ["good.png", "full.jpg/1.png"])
    (tmp_path / "empty.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    found = scan_images(str(tmp_path))
    assert names(found.images, tmp_path) == ["full.jpg/1.png", "gone.png", "good.png", "pipe.jpg"]
    assert reasons(found.ignored, tmp_path) == {
        "empty.jpg": "a folder, not an image",
        "pipe": "no image suffix",
        "self": "no image suffix",
    }


def test_a_name_that_is_not_utf_8_is_found(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    write(tmp_path, ["a.png"])
    os.rename(tmp_path / "a.png", path)
    assert scan_images(str(tmp_path)).images == [os.fsdecode(path)]


def closed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make a folder unreadable, for the superuser too."""
    scandir = os.scandir

    def refuse(path):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_a_folder_that_cannot_be_read_is_named_and_stops_a_prediction(tmp_path, monkeypatch):
    write(tmp_path, ["1.png", "deep/2.png"])
    closed(monkeypatch, tmp_path / "deep")
    assert scan_images(str(tmp_path)).unreadable == {str(tmp_path / "deep"): "Permission denied"}
    with pytest.raises(ZooError, match=r"1 folder cannot be read: .*/deep \(Permission denied\); allow it, or move"):
        find_images([tmp_path])


def test_a_prediction_finds_the_images_of_the_same_scan_and_warns_of_the_rest(tmp_path):
    write(tmp_path, ["1.png", "__2.png"])
    (tmp_path / "loop").symlink_to(".")
    with pytest.warns(UserWarning, match=r"1 ignored: loop \(a link to a folder that holds it\)"):
        assert names(find_images([tmp_path]), tmp_path) == ["1.png", "__2.png"]


def test_results_lie_outside_of_class_folders_but_may_lie_beside_folders_of_splits(tmp_path):
    write(tmp_path, ["flat/cat/1.png", "split/train/cat/1.png"])
    (tmp_path / "link").symlink_to("flat")
    for output, root in (("flat", "flat"), ("flat/runs/1", "link"), ("link/cat", "flat"), ("split/train/r", "split")):
        with pytest.raises(ZooError, match="output must lie outside of the images"):
            refuse_inside(tmp_path / output, tmp_path / root)
    for output, root in (("flat2/run", "flat"), ("runs", "flat"), ("split/runs", "split")):
        refuse_inside(tmp_path / output, tmp_path / root)
