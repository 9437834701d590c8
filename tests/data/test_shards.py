"""Images in shards: the same batches as from folders, and nothing but what was written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from image_files import truncate, write
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from gcpzoo.data import Augment, ImageError, ImageFolder, ImageNet
from gcpzoo.data.images import examine, read_image, read_pixels
from gcpzoo.data.sharding import pack
from gcpzoo.data.shards import INDEX, ShardedFile, read_shards
from gcpzoo.data.survey import survey
from gcpzoo.errors import ZooError

WNIDS = ("n01440764", "n01443537", "n02119789")
FORMATS = ("jpg", "png", "tif", "webp", "bmp", "gif", "ppm")


def lay_out(root: Path, images: int = 5, classes: tuple[str, ...] = WNIDS) -> str:
    suffix = [FORMATS[i % len(FORMATS)] for i in range(images)]
    names = [f"train/{c}/{i}.{suffix[i]}" for c in classes for i in range(images)]
    write(root, [*names, *(f"val/{c}/sub/{i}.{suffix[i]}" for c in classes for i in range(3))], 40, 36)
    return str(root)


def noise(path: Path, seed: int, side: int = 400) -> None:
    """An image of about 480 kB, so that a few fill a shard of the least size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> str:
    return lay_out(tmp_path / "folders")


@pytest.fixture
def shards(folders: str, tmp_path: Path) -> str:
    pack(folders, str(tmp_path / "shards"))
    return str(tmp_path / "shards")


@pytest.fixture
def many(tmp_path: Path) -> str:
    """Three shards of training images."""
    for i in range(5):
        noise(tmp_path / f"noise/train/{'ab'[i % 2]}/{i}.png", i)
    assert pack(str(tmp_path / "noise"), str(tmp_path / "many"), 2**20).shards == {"train": 3}
    return str(tmp_path / "many")


def image_net(root: str, rank: int = 0, processes: int = 1, workers: int = 0) -> ImageNet:
    data = ImageNet(
        root, batch_size=2, workers=workers, image_size=32, augment=Augment(crop="random", jitter=0.4), seed=3
    )
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank, world_size=processes, state=SimpleNamespace(fn="fit")
    )
    return data


def same(one, other) -> bool:
    one, other = list(one), list(other)
    return len(one) == len(other) > 0 and all(
        torch.equal(x, y) and torch.equal(k, m) for (x, k), (y, m) in zip(one, other)
    )


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 0), (1, 2)])
def test_the_batches_are_those_of_the_folders(folders: str, shards: str, processes: int, workers: int) -> None:
    for rank in range(processes):
        ours, theirs = (image_net(root, rank, processes, workers) for root in (shards, folders))
        for epoch in (0, 1):
            loaders = [data.train_dataloader() for data in (ours, theirs)]
            for loader in loaders:
                loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            assert same(*loaders)
        assert same(ours.test_dataloader(), theirs.test_dataloader())
        assert [Path(f).name for f in ours.training_files(1, 1)] == [Path(f).name for f in theirs.training_files(1, 1)]


def test_a_training_goes_on_in_the_middle_of_an_epoch_as_with_folders(folders: str, shards: str) -> None:
    place = {"epoch": 0, "batches": 3, "global_batch_size": 2}
    loaders = []
    for root in (shards, folders):
        data = image_net(root)
        data.load_state_dict(place)
        loaders.append(data.train_dataloader())
    assert len(list(loaders[0])) == 4  # of 7
    assert same(*loaders)


def test_labels_and_classes_are_those_of_imagenet(folders: str, shards: str) -> None:
    ours, theirs = ImageNet(shards), ImageNet(folders)
    assert ours.class_names == theirs.class_names
    assert ours.num_classes == 1000
    for split in ("train", "val", "test"):
        assert [label for _, label in ours.samples(split)] == [label for _, label in theirs.samples(split)]
    assert ours.record() == theirs.record()
    assert [label for _, label in ours.samples("train")][::5] == [0, 1, 278]


def test_a_folder_of_the_users_classes_is_read_from_shards_too(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "in", 10, ("b", "a"))
    pack(root, str(tmp_path / "out"), splits=["train"])
    ours, theirs = ImageFolder(str(tmp_path / "out")), ImageFolder(root)
    assert ours.class_names == ["a", "b"]
    assert "val" not in ours._index.splits  # it was not packed: a part of train is held out
    assert len(ours.samples("val")) == 2
    assert [str(f) for f, _ in theirs.samples("train")] == [
        str(f).replace("out/train-00000.tar", "in/train") for f, _ in ours._index.splits["train"]
    ]
    with pytest.raises(ZooError, match=r"2 of 2 folders are none of the 1 classes: a, b"):
        ImageFolder(str(tmp_path / "out"), classes=["c"]).setup()


@pytest.mark.parametrize("suffix", FORMATS)
def test_pixels_and_contents_are_the_same_in_every_format(suffix: str, tmp_path: Path) -> None:
    write(tmp_path / "in", [f"train/a/x.{suffix}"], 61, 47)
    pack(str(tmp_path / "in"), str(tmp_path / "out"))
    [file] = read_shards(str(tmp_path / "out"))["train"].images["a"]  # type: ignore[index]
    path = str(tmp_path / f"in/train/a/x.{suffix}")
    assert isinstance(file, ShardedFile)
    assert file.open().read() == Path(path).read_bytes()
    assert read_image(file).tobytes() == read_image(path).tobytes()
    assert torch.equal(read_pixels(file), read_pixels(path))
    assert examine(file) == examine(path)


def test_any_tar_tool_reads_a_shard_and_the_index_leads_to_the_same_bytes(tmp_path: Path) -> None:
    odd = ["train/ä b/" + "long " * 60 + ".png", "train/ä b/sub/1.png", "train/z/2.png"]
    write(tmp_path / "in", odd[1:])
    raw = os.fsencode(tmp_path / "in/train/z") + b"/caf\xe9.png"
    shutil.copy(tmp_path / "in/train/z/2.png", raw)
    with pytest.raises(OSError, match="too long"):  # longer than a file system allows, so made of folders below
        write(tmp_path / "in", odd[:1])
    write(tmp_path / "in", ["train/ä b/" + "/".join(["long folder name"] * 20) + "/3.png"])
    pack(str(tmp_path / "in"), str(tmp_path / "out"))
    files = [f for images in read_shards(str(tmp_path / "out"))["train"].images.values() for f in images]  # type: ignore[index]
    with tarfile.open(tmp_path / "out/train-00000.tar", encoding="utf-8") as tar:
        assert [m.name for m in tar] == [f.member for f in files]
        for file in files:
            assert tar.extractfile(file.member).read() == file.open().read()  # type: ignore[union-attr]
            assert file.open().read() == (tmp_path / "in/train" / file.member).read_bytes()
    assert len(files) == 4


def test_the_same_images_give_the_same_bytes(folders: str, shards: str, tmp_path: Path) -> None:
    for path in Path(folders).rglob("*.*"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    pack(folders, str(tmp_path / "again"))
    names = sorted(os.listdir(shards))
    assert names == [INDEX, "train-00000.tar", "val-00000.tar"] == sorted(os.listdir(tmp_path / "again"))
    for name in names:
        assert Path(shards, name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_shards_are_no_larger_than_allowed(many: str, tmp_path: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in Path(many).glob("*.tar")}
    assert sorted(sizes) == [f"train-0000{i}.tar" for i in range(3)]
    assert max(sizes.values()) <= 2**20
    with safe_open(Path(many, INDEX), "np") as file:
        about = json.loads(file.metadata()["shards"])
    assert [s["size"] for s in about["splits"]["train"]["shards"]] == [sizes[name] for name in sorted(sizes)]
    noise(tmp_path / "one/train/a/0.png", 0, 700)
    noise(tmp_path / "one/train/a/1.png", 1, 20)
    assert pack(str(tmp_path / "one"), str(tmp_path / "large"), 2**20).shards == {"train": 2}


def change_a_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "train-00001.tar").unlink(), r"train-00001.tar is missing; copy or make"),
        (lambda out: truncate(out / "train-00001.tar"), r"train-00001.tar is cut off: it must have [\d,]+ bytes, got"),
        (lambda out: shutil.copy(out / "train-00000.tar", out / "train-00001.tar"), r"train-00001.tar is not the one"),
        (lambda out: shutil.copy(out / "train-00002.tar", out / "train-00001.tar"), r"train-00001.tar is "),
        (lambda out: (out / INDEX).unlink(), rf"holds shards \(train-00000.tar\) but no {INDEX}"),
        (lambda out: truncate(out / INDEX), rf"{INDEX} is not an index of shards: damaged"),
        (lambda out: (out / INDEX).write_bytes(b""), rf"{INDEX} is not an index of shards: damaged"),
    ],
)
def test_missing_cut_or_exchanged_files_are_refused_in_one_line(damage, message: str, many: str) -> None:
    ImageFolder(many, val_fraction=0).setup("fit")
    damage(Path(many))
    with pytest.raises(ZooError, match=message) as error:
        ImageFolder(many, val_fraction=0).setup("fit")
    assert "\n" not in str(error.value)


def test_two_shards_of_one_size_that_changed_places_are_refused(many: str) -> None:
    one, two = Path(many, "train-00000.tar"), Path(many, "train-00001.tar")
    assert one.stat().st_size == two.stat().st_size
    one.rename(Path(many, "x"))
    two.rename(one)
    Path(many, "x").rename(two)
    with pytest.raises(ZooError, match=r"train-00000.tar is not the one that .* written with: a/0.png has other bytes"):
        ImageFolder(many).samples("train")


def test_a_changed_byte_is_found_before_the_start_or_when_the_image_is_read(shards: str) -> None:
    data = ImageNet(shards)
    file = data.samples("train")[7][0]
    change_a_byte(Path(shards, "train-00000.tar"), file.offset + file.size // 2)
    name = f"train-00000.tar/{WNIDS[1]}/2.tif"
    with pytest.raises(ImageError, match=rf"1 of 24 images in .* cannot be read: {name} \(the shard holds other bytes"):
        data.setup("fit")
    for read in (read_image, read_pixels):
        with pytest.raises(ImageError, match=rf"cannot read image .*/{name}: the shard holds other bytes"):
            read(file)
    data = ImageNet(shards, on_error="skip")
    with pytest.warns(UserWarning, match="1 of 24 images cannot be read"):
        data.setup("fit")
    assert len(data.samples("train")) == 14
    assert list(data.record()["left_out"]) == [name]


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("value", [-1, 2**40])
def test_an_index_that_leads_out_of_the_shards_is_refused(shards: str, column: int, value: int) -> None:
    path = Path(shards, INDEX)
    with safe_open(path, "np") as file:
        about = file.metadata()
    arrays = load_file(path)
    arrays["train.places"][4, column] = value
    save_file(arrays, path, about)
    with pytest.raises(ZooError, match=r"shards.safetensors is not an index of shards: the table of train"):
        ImageNet(shards).samples("train")


@pytest.mark.parametrize("size", ["123", 1.5, None, True])
def test_a_size_that_is_no_whole_number_is_refused(shards: str, size: object) -> None:
    path = Path(shards, INDEX)
    with safe_open(path, "np") as file:
        about = json.loads(file.metadata()["shards"])
    about["splits"]["val"]["shards"][0]["size"] = size
    save_file(load_file(path), path, {"shards": json.dumps(about)})
    with pytest.raises(ZooError, match="is not an index of shards: the sizes of the shards of val must be whole"):
        ImageNet(shards).samples("train")


def test_a_survey_of_shards_finds_what_that_of_the_folders_finds(folders: str, tmp_path: Path) -> None:
    one, two = Path(folders, "train", WNIDS[0], "1.png"), Path(folders, "val", WNIDS[1], "again.png")
    shutil.copy(one, two)
    pack(folders, str(tmp_path / "out"))
    ours, theirs = survey(str(tmp_path / "out")).to_dict(), survey(folders).to_dict()
    assert ours.pop("across_splits") == [[f"train-00000.tar/{WNIDS[0]}/1.png", f"val-00000.tar/{WNIDS[1]}/again.png"]]
    assert theirs.pop("across_splits") == [[f"train/{WNIDS[0]}/1.png", f"val/{WNIDS[1]}/again.png"]]
    assert {**ours, "root": folders} == theirs


def test_an_index_of_another_version_is_refused(shards: str) -> None:
    save_file({}, Path(shards, INDEX), {"shards": json.dumps({"version": 2, "splits": {}})})
    with pytest.raises(ZooError, match="version must be 1, got 2"):
        ImageNet(shards).samples("train")


def test_a_broken_image_stops_the_packing_and_is_named(folders: str, tmp_path: Path) -> None:
    truncate(Path(folders, "train", WNIDS[0], "1.png"))
    out = tmp_path / "out"
    with pytest.raises(ImageError, match=rf"1 of 24 images in .* cannot be read: train/{WNIDS[0]}/1.png"):
        pack(folders, str(out))
    assert not out.exists()
    with pytest.warns(UserWarning, match="1 of 24 images cannot be read"):
        packed = pack(folders, str(out), on_error="skip")
    assert (packed.images, list(packed.left_out)) == ({"train": 14, "val": 9}, [f"train/{WNIDS[0]}/1.png"])
    assert len(ImageNet(str(out)).samples("train")) == 14


def test_a_packing_that_fails_leaves_nothing_behind(
    folders: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: real(p if "val" not in str(p) else p / "gone"))
    with pytest.raises(ZooError, match=r"cannot read image .*/val/.*: Not a directory"):
        pack(folders, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZooError, match="cannot read image"):
        pack(folders, str(tmp_path / "empty"))
    assert not os.listdir(tmp_path / "empty")


def test_folders_that_cannot_be_packed_are_refused(folders: str, shards: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"OUT must be a new or empty folder, got .*, which holds shards.safetensors"):
        pack(folders, shards)
    with pytest.raises(ZooError, match="OUT must not lie in the folder of the images"):
        pack(folders, f"{folders}/train/out")
    with pytest.raises(ZooError, match="has no folder train, val or test"):
        pack(f"{folders}/train", str(tmp_path / "out"))
    with pytest.raises(ZooError, match="has no folder test; expected"):
        pack(folders, str(tmp_path / "out"), splits=["train", "test"])
    with pytest.raises(ZooError, match="unknown split 'tset': did you mean test"):
        pack(folders, str(tmp_path / "out"), splits=["tset"])
    with pytest.raises(ZooError, match="a shard must be allowed 1 MB at least, got 0 bytes"):
        pack(folders, str(tmp_path / "out"), 0)
    os.link(f"{folders}/train/{WNIDS[0]}/1.png", f"{folders}/val/{WNIDS[0]}/leak.png")
    with pytest.raises(ZooError, match="1 file is in more than one split"):
        pack(folders, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_class_that_only_the_validation_has_keeps_its_place(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "in")
    shutil.rmtree(Path(root, "train", WNIDS[2]))
    pack(root, str(tmp_path / "out"))
    ours, theirs = ImageNet(str(tmp_path / "out")), ImageNet(root)
    for split in ("train", "val"):
        assert [label for _, label in ours.samples(split)] == [label for _, label in theirs.samples(split)]


def test_a_file_in_a_shard_survives_the_way_to_another_process(shards: str) -> None:
    file = ImageNet(shards).samples("train")[3][0]
    copy = pickle.loads(pickle.dumps(file))
    assert isinstance(copy, ShardedFile)
    assert (copy, copy.member, copy.open().read()) == (file, f"{WNIDS[0]}/3.webp", file.open().read())
