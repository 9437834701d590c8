import random

import numpy as np
import pytest
import torch
from image_files import photo
from PIL import Image
from timm.data import auto_augment, create_transform
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from gcpzoo.data.images import read_image, read_pixels
from gcpzoo.data.transforms import STRONGEST, Augment, RandAugment
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing


def boxes(transform, image, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Area and aspect ratio of ``n`` sampled boxes, read off an image whose colors are its coordinates."""
    area, ratio = [], []
    for _ in range(n):
        crop = transform(image).float()
        width = (crop[0, :, -1] - crop[0, :, 0]).mean().abs()
        height = (crop[1, -1] - crop[1, 0]).mean().abs()
        area.append(width * height / (200 * 150))
        ratio.append(width / height)
    return np.array(area), np.array(ratio)


def test_the_crops_have_the_statistics_of_torchvisions_pillow_pipeline():
    y, x = np.mgrid[:150, :200].astype(np.uint8)
    coordinates = Image.fromarray(np.stack([x, y, x], -1))
    theirs = transforms.Compose([transforms.RandomResizedCrop(24), transforms.PILToTensor()])
    ours = Augment(flip=0).transform(Preprocessing(resize=27, crop=24))
    torch.manual_seed(0)
    n = 3000
    ours_boxes = boxes(ours, F.pil_to_tensor(coordinates), n)
    theirs_boxes = boxes(theirs, coordinates, n)
    for name, a, b in zip(("area", "ratio"), ours_boxes, theirs_boxes):
        error = np.hypot(a.std(), b.std()) / n**0.5
        assert abs(a.mean() - b.mean()) < 4 * error, name
        for q in (0.1, 0.25, 0.5, 0.75, 0.9):  # the share of ours below their quantile; standard error sqrt(2q(1-q)/n)
            assert abs((a < np.quantile(b, q)).mean() - q) < 4 * (2 * q * (1 - q) / n) ** 0.5, (name, q)


def test_the_same_box_has_the_pixels_of_the_pillow_pipeline(tmp_path):
    photo(500, 375).save(tmp_path / "a.jpg", quality=90)
    path = str(tmp_path / "a.jpg")
    transform = Augment().transform(Preprocessing())
    for seed in range(20):
        torch.manual_seed(seed)
        fast = transform(read_pixels(path))
        torch.manual_seed(seed)
        exact = transform(read_image(path))
        difference = (fast.int() - exact.int()).abs()
        assert difference.max() <= 2  # torch sums in 16-bit fixed point, Pillow in 22: a level of 256, rounded twice
        assert difference.float().mean() < 0.5


@pytest.mark.parametrize("crop", ["random_resized", "random", "center"])
@pytest.mark.parametrize(
    "preprocessing", [Preprocessing(36, 32), Preprocessing((36, 40), 32), Preprocessing((32, 32), None)]
)
def test_every_crop_gives_images_of_the_size_of_the_evaluation(crop, preprocessing):
    transform = Augment(crop=crop, jitter=0.4, randaugment=9, erasing=0.5).transform(preprocessing)
    for size in ((50, 40), (40, 70), (10, 10)):
        pixels = transform(F.pil_to_tensor(photo(*size)))
        assert pixels.shape == (3, 32, 32)
        assert pixels.dtype == torch.uint8


def test_the_centre_crop_without_a_flip_is_the_evaluation():
    preprocessing = Preprocessing(resize=36, crop=32)
    image = photo(80, 50)
    assert torch.equal(Augment("center", flip=0).transform(preprocessing)(image), preprocessing.pixels()(image))


def test_half_of_the_images_are_mirrored():
    transform = Augment("center").transform(Preprocessing(None, 8))
    image = F.pil_to_tensor(photo(8, 8))
    torch.manual_seed(0)
    mirrored = sum(torch.equal(transform(image), image.flip(-1)) for _ in range(400))
    assert abs(mirrored - 200) < 4 * 10  # standard deviation of a fair coin: 10


def test_erased_boxes_have_the_mean_colour_and_are_zero_after_normalization():
    preprocessing = Preprocessing(None, 32)
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    pixels = Augment("center", flip=0, erasing=1).transform(preprocessing)(white)
    erased = (pixels != 255).all(0)
    assert 0.01 < erased.float().mean() < 0.4
    assert preprocessing.normalize(pixels)[:, erased].abs().max() < 0.5 / 255 / 0.224 + 1e-6  # half a level


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": "centre"}, "did you mean center"),
        ({"scale": (0.5, 0.1)}, "augment.scale"),
        ({"ratio": (0, 1)}, "augment.ratio"),
        ({"flip": 2}, "augment.flip"),
        ({"erasing": -0.1}, "augment.erasing"),
        ({"randaugment": 31}, "augment.randaugment"),
        ({"randaugment": 11}, "augment.randaugment must be a magnitude from 0 to 10, got 11"),
        ({"erasing_mode": "pixels"}, "did you mean pixel"),
    ],
)
def test_a_value_that_cannot_work_is_named(values, message):
    with pytest.raises(ZooError, match=message):
        Augment(**values)


def test_images_that_cannot_form_a_batch_are_refused():
    with pytest.raises(ZooError, match="cannot form a batch"):
        Augment().transform(Preprocessing(resize=32, crop=None))


def flips(probability: float, n: int = 400) -> int:
    transform = Augment("center", flip=probability).transform(Preprocessing(None, 8))
    image = F.pil_to_tensor(photo(8, 8))
    return sum(torch.equal(transform(image), image.flip(-1)) for _ in range(n))


def test_images_are_mirrored_with_the_probability_asked_for():
    assert (flips(0, 50), flips(1, 50)) == (0, 50)
    assert abs(flips(0.2) - 80) < 4 * 8  # standard deviation: sqrt(400 · 0.2 · 0.8) = 8


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_training_resizes_with_the_interpolation_of_the_preprocessing(interpolation):
    image = F.pil_to_tensor(photo(64, 64))
    mode = v2.InterpolationMode(interpolation)
    whole = Augment("random_resized", scale=(1, 1), ratio=(1, 1), flip=0)
    pixels = whole.transform(Preprocessing(40, 32, interpolation))(image)
    assert torch.equal(pixels, F.resize(image, [32, 32], mode, antialias=True))
    for crop in ("center", "random"):  # a crop of the whole resized image
        pixels = Augment(crop, flip=0).transform(Preprocessing(40, 40, interpolation))(image)
        assert torch.equal(pixels, F.resize(image, [40, 40], mode, antialias=True))


def test_the_boxes_have_the_area_and_the_ratio_asked_for():
    y, x = np.mgrid[:150, :200].astype(np.uint8)
    coordinates = F.pil_to_tensor(Image.fromarray(np.stack([x, y, x], -1)))
    preprocessing = Preprocessing(resize=27, crop=24)
    area, ratio = boxes(Augment(flip=0, scale=(0.25, 0.25)).transform(preprocessing), coordinates, 200)
    # an edge pixel of 24 is the mean of its cell: boxes read 23/24 of each side, and colors are whole numbers
    assert np.abs(area / 0.25 / (23 / 24) ** 2 - 1).max() < 0.06
    assert ratio.min() < 0.85
    assert ratio.max() > 1.2
    area, ratio = boxes(Augment(flip=0, ratio=(2, 2), scale=(0.1, 0.5)).transform(preprocessing), coordinates, 200)
    assert np.abs(ratio - 2).max() < 0.15
    assert area.min() < 0.15
    assert area.max() > 0.4


def test_jitter_changes_brightness_contrast_and_saturation_up_to_its_share():
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)  # contrast and saturation leave one grey as it is
    transform = Augment("center", flip=0, jitter=0.4).transform(Preprocessing(None, 4))
    values = torch.stack([transform(grey)[0, 0, 0] for _ in range(400)])
    assert 57 <= values.min() < 63  # 60 and 140, rounded down three times
    assert 137 < values.max() <= 141
    jitter = transform.transforms[-1]
    assert (jitter.contrast, jitter.saturation, jitter.hue) == ((0.6, 1.4), (0.6, 1.4), None)


def test_boxes_are_erased_with_the_probability_asked_for():
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    for mode in ("mean", "pixel"):
        transform = Augment("center", flip=0, erasing=0.25, erasing_mode=mode).transform(Preprocessing(None, 32))
        erased = sum(not torch.equal(transform(white), white) for _ in range(400))
        assert abs(erased - 100) < 4 * 9  # standard deviation: sqrt(400 · 0.25 · 0.75) = 9


def test_noise_in_erased_boxes_is_normal_for_each_pixel_after_normalization():
    preprocessing = Preprocessing(None, 224, mean=(0.5, 0.45, 0.4), std=(0.2, 0.2, 0.2))
    transform = Augment("center", flip=0, erasing=1, erasing_mode="pixel").transform(preprocessing)
    black = torch.zeros(3, 224, 224, dtype=torch.uint8)
    pixels = transform(black)
    erased = (pixels != 0).any(0)
    noise = preprocessing.normalize(pixels)[:, erased]
    n = noise.shape[1]
    assert n > 1000
    # clipping to 0…255 cuts at -2 standard deviations and less, which moves the mean by up to 0.01
    assert noise.mean(1).abs().max() < 4 / n**0.5 + 0.01
    assert ((noise.std(1) > 0.93) & (noise.std(1) < 1.02)).all()
    channels, neighbours = torch.corrcoef(noise), torch.corrcoef(torch.stack([noise[0, 1:], noise[0, :-1]]))
    assert (channels - torch.eye(3)).abs().max() < 4 / n**0.5
    assert neighbours[0, 1].abs() < 4 / n**0.5


class TestRandAugment:
    def test_is_timms_own_transform_of_the_deit_recipe(self):
        preprocessing = Preprocessing(256, 224, "bicubic", mean=(0.5, 0.4, 0.3))
        recipe = create_transform(
            224, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic", mean=preprocessing.mean
        )
        theirs = next(t for t in recipe.transforms if type(t).__name__ == "RandAugment")
        for operation in theirs.ops:
            operation.magnitude_max = STRONGEST
        ours, image = RandAugment(9, preprocessing), photo(64, 48)
        changed = 0
        for seed in range(40):
            results = []
            for transform in (lambda: ours(F.pil_to_tensor(image)), lambda: F.pil_to_tensor(theirs(image))):
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002 (timm draws from it)
                results.append(transform())
            assert torch.equal(*results)
            changed += not torch.equal(results[0], F.pil_to_tensor(image))
        assert changed > 20  # an operation is skipped with probability 0.5: both in a quarter of all cases

    @pytest.mark.parametrize(("magnitude", "degrees"), [(9, 27), (3, 9)])
    def test_a_magnitude_of_9_rotates_by_27_degrees(self, magnitude, degrees, monkeypatch):
        angles = []
        monkeypatch.setitem(auto_augment.NAME_TO_OP, "Rotate", lambda image, angle, **_: angles.append(angle) or image)
        transform, image = RandAugment(magnitude, Preprocessing()), torch.zeros(3, 8, 8, dtype=torch.uint8)
        for _ in range(1500):
            transform(image)
        assert {angle > 0 for angle in angles} == {True, False}
        sizes = np.abs(angles)
        # strengths are normal with standard deviation 0.5 (1.5°), cut at 30°, which moves the mean by less than 0.05°
        assert abs(sizes.mean() - degrees) < 4 * 1.5 / len(sizes) ** 0.5 + 0.05

    def test_the_strongest_posterization_keeps_a_bit(self):
        noise = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
        transform = RandAugment(10, Preprocessing())
        for _ in range(1000):  # each operation in about 67 images; Pillow 13 refuses 0 bits
            transform(noise)

    def test_the_augmentation_uses_it_with_the_magnitude_asked_for(self):
        transform = Augment(randaugment=4).transform(Preprocessing())
        assert [t.magnitude for t in transform.transforms if isinstance(t, RandAugment)] == [4]
