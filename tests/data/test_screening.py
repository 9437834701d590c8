"""Files that cannot be read: found before the start, by one process for all, and left out if that is asked for."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from image_files import truncate, write
from torch import distributed

from gcpzoo.data import ImageError, ImageFolder
from gcpzoo.data.screening import from_first_process
from gcpzoo.errors import ZooError

CUT = ["train/a/1.png", "train/b/4.png", "val/b/0.png", "test/a/2.png"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes in three splits, with four truncated images."""
    write(
        tmp_path, [f"{split}/{name}/{i}.png" for split in ("train", "val", "test") for name in "ab" for i in range(5)]
    )
    for name in CUT:
        truncate(tmp_path / name)
    return tmp_path


def middle(path: Path) -> None:
    """Damage a file where neither its beginning nor its end shows it."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def test_by_default_all_bad_images_of_all_splits_stop_a_fit_before_it_begins(root: Path) -> None:
    middle(root / "train/a/3.png")
    with pytest.raises(ImageError, match=r"5 of 30 images in .* cannot be read: .*--skip-corrupt") as caught:
        ImageFolder(str(root)).setup("fit")
    assert all(name in str(caught.value) for name in [*CUT, "train/a/3.png"])


def test_a_test_looks_at_its_own_images_only(root: Path) -> None:
    with pytest.raises(ImageError, match="1 of 10 images") as caught:
        ImageFolder(str(root)).setup("test")
    assert "test/a/2.png" in str(caught.value)


def test_skipped_images_are_in_no_split_and_on_the_record(root: Path) -> None:
    middle(root / "train/a/3.png")
    data = ImageFolder(str(root), on_error="skip", workers=0)
    with pytest.warns(UserWarning, match=r"5 of 30 images cannot be read, left out: .*test/a/2\.png \(image file is"):
        data.setup("fit")
    listed = [path for split in ("train", "val", "test") for path, _ in data.samples(split)]
    assert len(listed) == 25
    assert not {str(root / name) for name in [*CUT, "train/a/3.png"]} & set(listed)
    assert data.record()["images"] == {"train": 7, "val": 9, "test": 9}
    assert sorted(data.record()["left_out"]) == sorted([*CUT, "train/a/3.png"])
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 9
    assert "left_out" not in ImageFolder(str(root)).record()


def test_images_that_are_left_out_do_not_change_what_is_held_out(tmp_path: Path) -> None:
    write(tmp_path, [f"{name}/{i}.png" for name in "ab" for i in range(20)])
    whole = ImageFolder(str(tmp_path))
    expected = {split: [p for p, _ in whole.samples(split) if not p.endswith("a/7.png")] for split in ("val", "test")}
    truncate(tmp_path / "a/7.png")
    data = ImageFolder(str(tmp_path), on_error="skip")
    with pytest.warns(UserWarning, match="1 of 40 images"):
        data.setup("fit")
    assert {split: [p for p, _ in data.samples(split)] for split in expected} == expected


def test_a_class_or_a_split_without_any_readable_image_is_refused(root: Path) -> None:
    for i in range(5):
        if f"train/b/{i}.png" not in CUT:
            truncate(root / f"train/b/{i}.png")
    with pytest.raises(ZooError, match="no image of 1 of the classes of the train split can be read"):
        ImageFolder(str(root), on_error="skip").setup("fit")
    for path in root.glob("test/*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(ZooError, match="no image of the test split can be read"):
        ImageFolder(str(root), on_error="skip").setup("test")


def test_a_run_that_goes_on_with_other_images_left_out_is_refused(root: Path) -> None:
    first, second = (ImageFolder(str(root), on_error="skip") for _ in range(2))
    with pytest.warns(UserWarning, match="4 of 30"):
        first.setup("fit")
    with pytest.warns(UserWarning, match="4 of 30"):
        second.setup("fit")
    second.load_state_dict(first.state_dict())
    truncate(root / "train/a/2.png")
    third = ImageFolder(str(root), on_error="skip")
    with pytest.warns(UserWarning, match="5 of 30"):
        third.setup("fit")
    with pytest.raises(ZooError, match=r"1 images can no longer be read and 0 can be read again .*train/a/2\.png"):
        third.load_state_dict(first.state_dict())


def test_skipping_without_looking_and_unknown_ways_are_refused(root: Path) -> None:
    with pytest.raises(ZooError, match="on_error 'skip' needs check"):
        ImageFolder(str(root), check=False, on_error="skip")
    with pytest.raises(ZooError, match="unknown on_error 'skp': did you mean skip"):
        ImageFolder(str(root), on_error="skp")


def _process(rank: int, root: str, meeting: str, queue) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    if rank == 1:  # its own disk would say otherwise
        import gcpzoo.data.screening as screening

        screening.find_faults = lambda paths: pytest.fail("the second process decoded too")
    data = ImageFolder(root, on_error="skip")
    data.setup("fit")
    try:
        from_first_process(lambda: 1 // 0 if rank == 0 else 3)
    except ZeroDivisionError:
        queue.put((rank, sorted(data.left_out), len(data.samples("train"))))
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_the_first_process_looks_for_all_and_its_error_is_everyones(root: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    meeting = str(root / ".meeting")
    both = [context.Process(target=_process, args=(rank, str(root), meeting, queue)) for rank in (0, 1)]
    for process in both:
        process.start()
    answers = sorted(queue.get(timeout=60) for _ in both)
    for process in both:
        process.join(60)
    expected = sorted(str(root / name) for name in CUT)
    assert answers == [(0, expected, 8), (1, expected, 8)]


def test_an_image_too_thin_for_the_networks_size_is_named_before_the_start(tmp_path: Path) -> None:
    write(tmp_path, [f"{split}/{name}/0.png" for split in ("train", "test") for name in "ab"])
    write(tmp_path / "test/a", ["line.png"], width=9000, height=1)
    with pytest.raises(ImageError, match=r"test/a/line.png \(resized from 9,000×1 to 2,304,000×256 pixels, more than"):
        ImageFolder(str(tmp_path), val_fraction=0).setup("fit")
    ImageFolder(str(tmp_path), val_fraction=0, image_size=32).setup("fit")  # small enough there
