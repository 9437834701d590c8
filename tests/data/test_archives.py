"""Small archives laid out exactly as the official ones, and lists of the official size."""

import numpy as np
import pytest
import torch
from image_files import truncate, write
from scipy.io import savemat

from gcpzoo.data import CUB200, FGVCAircraft, ImageError, ImageFolder, ImageNet, StanfordCars
from gcpzoo.data.classes import imagenet_classes
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing


def split_counts(total: int, classes: int) -> list[int]:
    """``total`` images over ``classes`` as evenly as can be."""
    return [total // classes + (i < total % classes) for i in range(classes)]


def cub(root, train=(2, 1), test=(1, 2), images=True):
    """CUB_200_2011: numbered lines, classes one after the other, a split flag for each image."""
    folder = root / "CUB_200_2011"
    (folder / "images").mkdir(parents=True)
    classes = [f"{i:03}.Bird_{i}" for i in range(1, len(train) + 1)]
    images, labels, split = [], [], []
    for i, name in enumerate(classes):
        for j in range(train[i] + test[i]):
            images.append(f"{name}/Bird_{i + 1}_{j:04}_{len(images)}.jpg")
            labels.append(i + 1)
            split.append(int(j < train[i]))
    for name, lines in (
        ("classes.txt", classes),
        ("images.txt", images),
        ("image_class_labels.txt", labels),
        ("train_test_split.txt", split),
    ):
        (folder / name).write_text("".join(f"{i} {line}\n" for i, line in enumerate(lines, 1)))
    if images:
        write(folder / "images", images)
    return folder


def aircraft(root, train=2, val=1, test=1, classes=3, images=True):
    """fgvc-aircraft-2013b/data: one list of seven-digit names and variants for each split; variants contain spaces."""
    folder = root / "fgvc-aircraft-2013b" / "data"
    (folder / "images").mkdir(parents=True)
    variants = [f"Model-{i:02} Mk{i}/A" for i in range(classes)]
    (folder / "variants.txt").write_text("\n".join(variants) + "\n")
    number, lines = 34309, {}
    for split, total in (("train", train), ("val", val), ("test", test)):
        lines[split] = []
        for variant, count in zip(variants, split_counts(total, classes)):
            lines[split] += [f"{number + i:07} {variant}" for i in range(count)]
            number += count
    lines["trainval"] = lines["train"] + lines["val"]
    for split, entries in lines.items():
        (folder / f"images_variant_{split}.txt").write_text("\n".join(entries) + "\n")
    if images:
        write(folder / "images", [f"{e[:7]}.jpg" for split in ("trainval", "test") for e in lines[split]])
    return folder.parent


def cars(root, train=4, test=3, classes=2, images=True):
    """stanford_cars: annotations are MATLAB struct arrays, classes count from 1."""
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array([f"Maker Model {i} Sedan 2012" for i in range(classes)], dtype=object)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names[None]})
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    for split, total, path in (
        ("train", train, "devkit/cars_train_annos.mat"),
        ("test", test, "cars_test_annos_withlabels.mat"),
    ):
        annotations = np.zeros((1, total), dtype=[(field, object) for field in fields])
        for i in range(total):
            annotations[0, i] = (1, 1, 9, 9, np.uint8(i % classes + 1), f"{i + 1:05}.jpg")
        savemat(folder / path, {"annotations": annotations})
        (folder / f"cars_{split}").mkdir()
        if images:
            write(folder / f"cars_{split}", [f"{i + 1:05}.jpg" for i in range(total)])
    return folder


def counts(data) -> dict[str, int]:
    return data.record()["images"]


class TestCUB200:
    def test_lists_of_the_official_size_give_the_official_split(self, tmp_path):
        cub(tmp_path, split_counts(5994, 200), split_counts(5794, 200), images=False)
        data = CUB200(str(tmp_path), check=False)
        data.setup("fit")
        assert counts(data) == {"train": 5994, "test": 5794}
        assert data.num_classes == 200
        assert data.class_names[199] == "200.Bird_200"
        assert {label for _, label in data.samples("train")} == set(range(200))

    @pytest.mark.parametrize("inside", [False, True])
    def test_labels_and_splits_are_those_of_the_lists(self, inside, tmp_path):
        folder = cub(tmp_path)
        data = CUB200(str(folder if inside else tmp_path), image_size=32, workers=0)
        data.setup()
        assert [(p.split("images/")[1], label) for p, label in data.samples("test")] == [
            ("001.Bird_1/Bird_1_0002_2.jpg", 0),
            ("002.Bird_2/Bird_2_0001_4.jpg", 1),
            ("002.Bird_2/Bird_2_0002_5.jpg", 1),
        ]
        pixels, labels = next(iter(data.train_dataloader()))
        assert pixels.shape == (3, 3, 32, 32)
        assert sorted(labels.tolist()) == [0, 0, 1]

    def test_blank_lines_and_windows_line_ends_do_no_harm(self, tmp_path):
        folder = cub(tmp_path)
        for path in folder.glob("*.txt"):
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
        assert counts(CUB200(str(tmp_path))) == {"train": 3, "test": 3}

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("train_test_split.txt", lambda t: t.replace("6 0\n", ""), "images.txt and train_test_split.txt .*6"),
            ("images.txt", lambda t: t.replace("2 0", "x 0", 1).replace("2 001", "two 001"), "images.txt, line 2"),
            ("image_class_labels.txt", lambda t: t.replace("1 1", "1 7", 1), "image 1 has class '7'"),
            ("train_test_split.txt", lambda t: t.replace("1 1", "1 2", 1), "split '2'"),
            ("classes.txt", lambda t: "", "classes.txt is empty"),
        ],
    )
    def test_a_spoilt_list_is_named(self, name, change, message, tmp_path):
        path = cub(tmp_path) / name
        path.write_text(change(path.read_text()))
        with pytest.raises(ZooError, match=message):
            CUB200(str(tmp_path)).setup("fit")


class TestFGVCAircraft:
    def test_lists_of_the_official_size_give_the_official_splits(self, tmp_path):
        aircraft(tmp_path, 3334, 3333, 3333, 100, images=False)
        papers = FGVCAircraft(str(tmp_path), check=False)
        assert counts(papers) == {"train": 6667, "test": 3333}
        assert papers.num_classes == 100
        official = FGVCAircraft(str(tmp_path), train_on="train", check=False)
        assert counts(official) == {"train": 3334, "test": 3333, "val": 3333}

    def test_labels_are_positions_in_the_list_of_variants(self, tmp_path):
        aircraft(tmp_path, 3, 3, 3)
        data = FGVCAircraft(str(tmp_path), image_size=32, workers=0)
        data.setup()
        assert data.class_names == ["Model-00 Mk0/A", "Model-01 Mk1/A", "Model-02 Mk2/A"]
        assert [label for _, label in data.samples("test")] == [0, 1, 2]
        assert next(iter(data.test_dataloader()))[0].shape == (3, 3, 32, 32)

    def test_a_variant_that_the_list_lacks_is_an_error(self, tmp_path):
        path = aircraft(tmp_path) / "data" / "images_variant_test.txt"
        path.write_text("0034312 Zeppelin\n")
        with pytest.raises(ZooError, match="Zeppelin"):
            FGVCAircraft(str(tmp_path)).setup("fit")


class TestStanfordCars:
    def test_lists_of_the_official_size_give_the_official_splits(self, tmp_path):
        cars(tmp_path, 8144, 8041, 196, images=False)
        data = StanfordCars(str(tmp_path), check=False)
        assert counts(data) == {"train": 8144, "test": 8041}
        assert data.num_classes == 196
        assert {label for _, label in data.samples("test")} == set(range(196))

    def test_images_are_squeezed_to_a_square(self, tmp_path):
        cars(tmp_path)
        data = StanfordCars(str(tmp_path), image_size=32, workers=0)
        data.setup()
        pixels, labels = next(iter(data.test_dataloader()))
        assert pixels.shape == (3, 3, 32, 32)
        assert labels.tolist() == [0, 1, 0]
        assert isinstance(data.samples("test")[0][1], int)

    def test_the_error_says_where_the_files_must_lie(self, tmp_path):
        (cars(tmp_path) / "cars_test_annos_withlabels.mat").unlink()
        with pytest.raises(
            ZooError, match=r"lacks cars_test_annos_withlabels.mat; .*stanford_cars/devkit/cars_meta.mat"
        ):
            StanfordCars(str(tmp_path)).setup("test")

    def test_a_broken_mat_file_is_named(self, tmp_path):
        truncate(cars(tmp_path) / "devkit" / "cars_train_annos.mat")
        with pytest.raises(ZooError, match=r"cannot read the \.mat files"):
            StanfordCars(str(tmp_path)).setup("fit")


@pytest.mark.parametrize(
    ("data", "make", "part"),
    [
        (CUB200, cub, "train_test_split.txt"),
        (CUB200, cub, "images"),
        (FGVCAircraft, aircraft, "data/images_variant_test.txt"),
        (FGVCAircraft, aircraft, "data/images"),
        (StanfordCars, cars, "devkit/cars_meta.mat"),
        (StanfordCars, cars, "cars_train"),
    ],
)
def test_a_half_extracted_archive_says_what_is_missing_and_what_was_expected(data, make, part, tmp_path):
    folder = make(tmp_path)
    (folder / part).rename(tmp_path / "elsewhere")
    with pytest.raises(ZooError, match=f"lacks {part}; expected in .*{folder.name}/{part}") as caught:
        data(str(tmp_path)).setup("fit")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("data", "make"), [(CUB200, cub), (FGVCAircraft, aircraft), (StanfordCars, cars)])
def test_missing_and_truncated_images_are_counted_before_the_start(data, make, tmp_path):
    images = sorted(make(tmp_path).rglob("*.jpg"))
    for path in images[1:]:
        path.unlink()
    truncate(images[0])
    with pytest.raises(ImageError, match=r"images in .* cannot be read: .*no such file"):
        data(str(tmp_path)).setup()


@pytest.mark.parametrize("data", [CUB200, FGVCAircraft, StanfordCars, ImageNet])
def test_a_missing_root_is_named(data, tmp_path):
    with pytest.raises(ZooError, match=f"no folder {tmp_path}/nowhere"):
        data(str(tmp_path / "nowhere")).setup("fit")


@pytest.mark.parametrize(
    ("data", "at_448"),
    [
        (CUB200, Preprocessing(448, 448)),
        (FGVCAircraft, Preprocessing((512, 512), 448)),
        (StanfordCars, Preprocessing((448, 448), None)),
    ],
)
def test_fine_grained_images_follow_the_papers_rule(data, at_448):
    module = data("unused")
    assert module.preprocessing == at_448
    assert (module.augment.crop, module.augment.flip) == ("center", 0.5)


class TestImageNet:
    WNIDS = ("n01440764", "n01614925", "n15075141")

    def lay_out(self, root, splits=("train", "val"), names=WNIDS) -> ImageNet:
        write(root, [f"{split}/{name}/{name}_{i}.JPEG" for split in splits for name in names for i in range(2)])
        return ImageNet(str(root), image_size=14, workers=0)

    def test_the_classes_are_the_thousand_sorted_wnids(self):
        wnids, names = list(imagenet_classes()), list(imagenet_classes().values())
        assert len(wnids) == len(names) == 1000
        assert wnids == sorted(wnids)
        assert (wnids[0], names[0], wnids[999], names[999]) == (
            "n01440764",
            "tench, Tinca tinca",
            "n15075141",
            "toilet tissue, toilet paper, bathroom tissue",
        )

    def test_a_subset_of_the_folders_keeps_the_official_labels(self, tmp_path):
        data = self.lay_out(tmp_path)
        data.setup()
        assert data.num_classes == 1000
        assert [label for _, label in data.samples("train")] == [0, 0, 22, 22, 999, 999]
        assert data.class_names[22] == "n01614925"
        assert data.class_descriptions[22] == "bald eagle, American eagle, Haliaeetus leucocephalus"
        assert data.preprocessing == Preprocessing(16, 14)

    def test_the_official_validation_images_are_the_test(self, tmp_path):
        data = self.lay_out(tmp_path, splits=["val"])
        data.setup("test")
        assert data.samples("test") == data.samples("val")
        assert next(iter(data.test_dataloader()))[0].dtype == torch.uint8
        with pytest.raises(ZooError, match="no train split"):
            data.setup("fit")

    def test_other_folder_names_are_classes_of_their_own(self, tmp_path):
        data = self.lay_out(tmp_path, names=["tench", "goldfish"])
        assert data.class_names == ["goldfish", "tench"]

    def test_a_wnid_outside_the_thousand_is_an_error(self, tmp_path):
        with pytest.raises(ZooError, match="n00000001"):
            self.lay_out(tmp_path, names=["n01440764", "n00000001"]).setup("fit")

    def test_flat_validation_images_are_explained(self, tmp_path):
        write(tmp_path, ["val/ILSVRC2012_val_00000001.JPEG"])
        with pytest.raises(ZooError, match="1 images but no class folders"):
            ImageNet(str(tmp_path)).setup("test")

    def test_a_root_without_the_two_folders_says_what_was_expected(self, tmp_path):
        with pytest.raises(ZooError, match="neither train nor val; expected ROOT/train/n01440764"):
            ImageNet(str(tmp_path)).setup("fit")


@pytest.mark.parametrize("dataset", [CUB200, FGVCAircraft, ImageFolder, ImageNet, StanfordCars])
@pytest.mark.parametrize("root", ["", " ", None])
def test_an_empty_root_is_refused(dataset, root):
    with pytest.raises(ZooError, match=f"root must be a folder, got {root!r}"):
        dataset(root)
