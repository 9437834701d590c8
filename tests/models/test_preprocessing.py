import json
import pickle

import numpy as np
import pytest
import torch
from image_files import photo
from PIL import Image

from gcpzoo.errors import ZooError
from gcpzoo.models.base import Backbone
from gcpzoo.models.preprocessing import Preprocessing, to_rgb


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(),
        Preprocessing(resize=(48, 64), crop=None, interpolation="bicubic"),
        Preprocessing(resize=None, crop=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    ],
)
def test_a_preprocessing_survives_the_trip_through_json(preprocessing):
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resise": 256}, "did you mean resize"),
        ({"resize": 0}, "resize"),
        ({"resize": [256]}, "resize"),
        ({"crop": True}, "crop"),
        ({"crop": "224"}, "crop"),
        ({"interpolation": "bilinea"}, "did you mean bilinear"),
        ({"mean": [0.5]}, "mean"),
        ({"std": [0.2, 0.2, 0.0]}, r"std must be between 1e-06 and 1000, got \[0.2, 0.2, 0.0\]"),
        ({"std": [0.2, 0.2, -0.1]}, "std must be between"),
        ({"std": [1e-300] * 3}, "std must be between"),
        ({"std": [0.2, 1001, 0.2]}, "std must be between"),
        ({"mean": [1e300] * 3}, "mean must be between -1000 and 1000"),
        ({"mean": [0.5, -1001, 0.5]}, "mean must be between"),
        ({"crop": 0}, "crop must be between 1 and 8192, got 0"),
        ({"crop": 10**9}, "crop must be between 1 and 8192, got 1000000000"),
        ({"resize": 16385}, "resize must be between 1 and 16384, got 16385"),
        ({"resize": [256, 10**9]}, r"resize must be between 1 and 16384, got \[256, 1000000000\]"),
        ({"std": [0.2, float("nan"), 0.2]}, "std must be three finite numbers .*nan"),
        ({"mean": [float("nan"), 0.5, 0.5]}, "mean must be three finite numbers .*nan"),
        ({"mean": [0.5, float("inf"), 0.5]}, "mean must be three finite numbers .*inf"),
        ({"mean": [0.5, "0.5", 0.5]}, "mean must be three finite numbers"),
        ({"mean": None}, "mean must be three finite numbers"),
        ([256, 224], "preprocessing must be a mapping"),
    ],
)
def test_a_value_that_cannot_work_is_named(values, message):
    with pytest.raises(ZooError, match=message):
        Preprocessing.from_dict(values)


def test_values_at_their_limits_are_accepted():
    preprocessing = Preprocessing(resize=(1, 16384), crop=8192, mean=(-1000, 0, 1000), std=(1e-6, 1, 1000))
    assert preprocessing.std == (1e-6, 1, 1000)


def test_the_transform_is_resize_crop_scale_normalize():
    pre = Preprocessing(resize=(32, 40), crop=24, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    image = photo()
    by_hand = np.asarray(image.resize((40, 32), Image.Resampling.BILINEAR), dtype=np.float64)[4:28, 8:32] / 255
    by_hand = (by_hand - pre.mean) / pre.std
    x = pre.transform()(image)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.permute(1, 2, 0).double(), torch.from_numpy(by_hand), rtol=0, atol=1e-6)  # float32


def test_the_shorter_side_is_resized_and_the_other_follows():
    assert Preprocessing(resize=20, crop=None).transform()(photo(80, 40)).shape == (3, 20, 40)


def test_pixels_then_normalize_are_the_transform_to_the_last_bit():
    pre = Preprocessing(resize=30, crop=24)
    image = photo()
    for views in ("single", "mirror", "ten_crop"):
        pixels = pre.pixels(views)(image)
        assert pixels.dtype == torch.uint8
        assert torch.equal(pre.normalize(pixels), pre.transform(views)(image))


def test_views_hold_the_crop_its_mirror_image_and_the_ten_crops():
    pre = Preprocessing(resize=30, crop=24)
    single, mirror, ten = (pre.transform(v)(photo()) for v in ("single", "mirror", "ten_crop"))
    assert torch.equal(mirror, torch.stack([single, single.flip(-1)]))
    assert ten.shape == (10, 3, 24, 24)
    assert torch.equal(ten[4], single)
    corners = Preprocessing(resize=30, crop=None).transform()(photo())
    assert torch.equal(ten[0], corners[:, :24, :24])
    assert torch.equal(ten[3], corners[:, -24:, -24:])


def test_views_that_do_not_exist_or_cannot_work_are_refused():
    with pytest.raises(ZooError, match="did you mean ten_crop"):
        Preprocessing().transform("tencrop")
    with pytest.raises(ZooError, match="ten_crop needs"):
        Preprocessing(crop=None).transform("ten_crop")


def test_a_uint8_tensor_gives_what_its_image_gives():
    pre = Preprocessing(resize=None, crop=24)
    image = photo()
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(pre.transform()(tensor), pre.transform()(image))
    resized = Preprocessing(resize=20, crop=16, std=(1, 1, 1))
    difference = (resized.transform()(tensor) - resized.transform()(image)).abs().max()
    assert difference <= 1.01 / 255  # torch and Pillow round the same antialiased sum: one level of 256 at most


def test_a_float_tensor_is_refused_because_its_scale_is_a_guess():
    with pytest.raises(ZooError, match="uint8"):
        Preprocessing().transform()(torch.rand(3, 8, 8))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "YCbCr", "RGBA", "I;16", "I", "F"])
def test_every_mode_of_image_becomes_the_same_grey(mode):
    grey = np.full((8, 8), 255 if mode == "1" else 180, dtype=np.uint8)
    source = Image.fromarray(grey)
    if mode == "I;16":
        source = Image.fromarray(grey.astype(np.uint16) * 256 + 77)
    elif mode in ("YCbCr", "CMYK"):
        source = source.convert("RGB").convert(mode)
    elif mode != "L":
        source = source.convert(mode)
    assert source.mode == mode
    rgb = to_rgb(source)
    assert rgb.mode == "RGB"
    assert np.abs(np.asarray(rgb).astype(int) - int(grey[0, 0])).max() <= 1  # CMYK and YCbCr round


def test_transparent_pixels_show_white():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    rgb = to_rgb(image)
    assert rgb.getpixel((0, 0)) == (0, 0, 255)
    assert rgb.getpixel((1, 1)) == (255, 255, 255)


def test_the_exif_orientation_is_applied(tmp_path):
    upright = photo(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown upright when turned a quarter clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        assert turned.size == (20, 40)
        assert np.array_equal(np.asarray(to_rgb(turned)), np.asarray(upright))


def test_a_transform_can_be_sent_to_worker_processes():
    transform = Preprocessing(resize=30, crop=24).transform("ten_crop")
    assert torch.equal(pickle.loads(pickle.dumps(transform))(photo()), transform(photo()))


def test_the_resize_uses_the_interpolation():
    image = photo(64, 48)
    for name in ("nearest", "bilinear", "bicubic"):
        expected = image.resize((32, 24), Image.Resampling[name.upper()])
        pixels = Preprocessing(resize=(24, 32), crop=None, interpolation=name).pixels()(image)
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_the_ten_crops_come_in_the_order_of_torchvision():
    pre = Preprocessing(resize=None, crop=24)
    image = photo(40, 30)
    ten, whole = pre.pixels("ten_crop")(image), Preprocessing(None, None).pixels()(image)
    corners = [whole[:, :24, :24], whole[:, :24, -24:], whole[:, -24:, :24], whole[:, -24:, -24:], whole[:, 3:27, 8:32]]
    assert torch.equal(ten[:5], torch.stack(corners))
    flipped = whole.flip(-1)
    mirrored = [flipped[:, :24, :24], flipped[:, :24, -24:], flipped[:, -24:, :24], flipped[:, -24:, -24:]]
    assert torch.equal(ten[5:9], torch.stack(mirrored))


def test_images_are_normalized_by_imagenets_mean_and_deviation_unless_told_otherwise() -> None:
    assert Preprocessing().mean == Backbone.mean == (0.485, 0.456, 0.406)
    assert Preprocessing().std == Backbone.std == (0.229, 0.224, 0.225)
    assert (Preprocessing().resize, Preprocessing().crop, Preprocessing().interpolation) == (256, 224, "bilinear")
