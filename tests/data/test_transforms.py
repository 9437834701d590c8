import numpy as np
import pytest
import torch
from image_files import photo
from PIL import Image
from torchvision import transforms
from torchvision.transforms.v2 import functional as F

from gcpzoo.data.images import read_image, read_pixels
from gcpzoo.data.transforms import Augment
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing


def boxes(transform, image, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Area and aspect ratio of ``n`` sampled boxes, read off a image whose colors are its coordinates."""
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
    ],
)
def test_a_value_that_cannot_work_is_named(values, message):
    with pytest.raises(ZooError, match=message):
        Augment(**values)


def test_images_that_cannot_form_a_batch_are_refused():
    with pytest.raises(ZooError, match="cannot form a batch"):
        Augment().transform(Preprocessing(resize=32, crop=None))
