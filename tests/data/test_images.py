import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import photo, truncate, write
from PIL import Image, ImageFile, features
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from gcpzoo.data.images import ImageError, examine, find_faults, read_image, read_pixels, refuse_faults, set_pixel_limit
from gcpzoo.data.loading import Images
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import to_rgb

DECODERS = 2  # levels of 256: both are libjpeg-turbo, perhaps of two versions; CMYK to RGB rounds in either's own way


@pytest.mark.parametrize("name", ["a.jpg", "grey.jpg", "cmyk.jpg", "progressive.jpg", "a.png", "palette.png", "a.webp"])
def test_the_fast_reader_agrees_with_the_exact_one(name, tmp_path):
    image, path = photo(64, 48), str(tmp_path / name)
    mode = {"grey.jpg": "L", "cmyk.jpg": "CMYK", "palette.png": "P"}.get(name, "RGB")
    image.convert(mode).save(path, **({"progressive": True} if "progressive" in name else {}))
    exact, fast = F.pil_to_tensor(read_image(path)), read_pixels(path)
    assert fast.dtype == torch.uint8
    assert fast.shape == exact.shape == (3, 48, 64)
    assert (fast.int() - exact.int()).abs().max() <= DECODERS


def test_without_torchcodec_pillow_gives_the_same_pixels(tmp_path, monkeypatch):
    path = str(tmp_path / "a.jpg")
    photo(64, 48).save(path)
    fast = read_pixels(path)
    monkeypatch.setattr("gcpzoo.data.images.decode", None)
    assert (fast.int() - read_pixels(path).int()).abs().max() <= DECODERS


@pytest.mark.parametrize("orientation", range(1, 9))
def test_both_readers_turn_images_as_exif_says(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / "a.jpg")
    photo(64, 48).save(path, exif=exif, quality=95)
    exact, fast = F.pil_to_tensor(read_image(path)), read_pixels(path)
    assert exact.shape == ((3, 48, 64) if orientation < 5 else (3, 64, 48))
    assert (fast.int() - exact.int()).abs().max() <= DECODERS


def test_a_broken_exif_block_does_not_make_a_broken_image(tmp_path):
    path = str(tmp_path / "a.jpg")
    photo().save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert read_image(path).size == (50, 40)
    assert read_pixels(path).shape == (3, 40, 50)


def spoil(folder) -> dict[str, str]:
    """Bad files of every kind, with a word of the reason that is to be given for each."""
    write(folder, ["cut.jpg", "cut.png", "cut.webp", "good.jpg", "good.png"], 200, 150)
    for name in ("cut.jpg", "cut.png", "cut.webp"):
        truncate(folder / name)
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html>404</html>")
    os.mkfifo(folder / "pipe.jpg")
    return {
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "cut.webp": "",
        "empty.jpg": "",
        "page.jpg": "not an image",
        "missing.jpg": "no such file",
        "pipe.jpg": "not a regular file",
    }


def test_every_kind_of_bad_file_is_found_and_good_ones_are_not(tmp_path):
    for name, reason in spoil(tmp_path).items():
        found = examine(str(tmp_path / name)).fault
        assert found, name
        assert reason in found
    assert examine(str(tmp_path / "good.jpg")).fault is None
    assert examine(str(tmp_path / "good.png")).fault is None


def test_bytes_behind_the_end_marker_are_no_fault(tmp_path):
    write(tmp_path, ["a.jpg", "b.png"])
    for name, tail in (("a.jpg", b"\0" * 40), ("b.png", b"camera's own notes")):
        with open(tmp_path / name, "ab") as file:
            file.write(tail)
        assert examine(str(tmp_path / name)).fault is None


@pytest.mark.parametrize("read", [read_image, read_pixels])
def test_both_readers_name_the_bad_file_and_the_reason(read, tmp_path):
    for name, reason in spoil(tmp_path).items():
        with pytest.raises(ImageError, match=f"{name}: .*{reason}.*; replace or delete it") as caught:
            read(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_all_bad_files_are_counted_and_the_first_hundred_named(tmp_path):
    names = [f"{i:03}.jpg" for i in range(105)]
    write(tmp_path, names)
    paths = [str(tmp_path / name) for name in names]
    assert find_faults(paths) == {}
    for name in names[:103]:
        truncate(tmp_path / name)
    faults = find_faults(paths)
    assert list(faults) == paths[:103]
    with pytest.raises(ImageError) as caught:
        refuse_faults(faults, len(paths), str(tmp_path))
    message = str(caught.value)
    assert f"103 of 105 images in {tmp_path} cannot be read" in message
    assert "; and 3 more; replace or delete them" in message
    assert all(name in message for name in names[:100])
    assert names[100] not in message


def test_a_jpeg_or_png_is_found_broken_exactly_where_the_reader_refuses_it(tmp_path):
    rng = np.random.default_rng(0)
    outcomes = set()
    for suffix in ("jpg", "png"):
        whole = tmp_path / f"whole.{suffix}"
        photo(96, 72).save(whole)
        for k in range(100):
            data = bytearray(whole.read_bytes())
            for place in rng.integers(2, len(data) - 2, 3):
                data[place] = rng.integers(256)
            path = tmp_path / f"{k}.{suffix}"
            path.write_bytes(data)
            found = examine(str(path)).fault
            if found:
                with pytest.raises(ImageError, match=re.escape(found)):
                    read_image(str(path))
            else:
                read_image(str(path))
            outcomes.add((suffix, found is None))
    assert {("jpg", True), ("jpg", False), ("png", False)} <= outcomes


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("factor", [1.5, 3])  # Pillow itself only warns up to twice its limit
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(name, factor, tmp_path, monkeypatch):
    path, limit = str(tmp_path / name), int(2000 / factor)
    photo(50, 40).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr("gcpzoo.data.images.decode", lambda data: pytest.fail("decoded"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for read in (read_image, read_pixels):
            with pytest.raises(ImageError, match=rf"more than {limit:,} pixels.*GCPZOO_MAX_PIXELS=N allows"):
                read(path)
        assert "decompression bomb" in str(examine(path).fault)


@pytest.mark.parametrize("limit", [2000, None])
def test_the_limit_of_pixels_is_that_of_pillow(limit, tmp_path, monkeypatch):
    path = str(tmp_path / "a.jpg")
    photo(50, 40).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert read_image(path).size == (50, 40)
    assert read_pixels(path).shape == (3, 40, 50)
    assert examine(path).fault is None


def test_the_environment_sets_the_limit_of_pixels_and_zero_lifts_it(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    set_pixel_limit("1000000")
    assert Image.MAX_IMAGE_PIXELS == 1_000_000
    set_pixel_limit("0")
    assert Image.MAX_IMAGE_PIXELS is None
    for wrong in ("-1", "1e9", "many"):
        with pytest.raises(ZooError, match="GCPZOO_MAX_PIXELS must be a whole number of pixels"):
            set_pixel_limit(wrong)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_fails_in_a_worker_process_gives_the_same_line(workers, tmp_path):
    write(tmp_path, ["a.jpg"], 200, 150)
    truncate(tmp_path / "a.jpg")
    loader = DataLoader(Images([(str(tmp_path / "a.jpg"), 0)], read_image, F.pil_to_tensor), num_workers=workers)
    with pytest.raises(ImageError) as caught:
        next(iter(loader))
    assert str(caught.value).startswith(f"cannot read image {tmp_path}/a.jpg: ")
    assert "Traceback" not in str(caught.value)


def test_an_image_of_16_bits_keeps_its_upper_8(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)).save(path)
    assert np.array_equal(np.asarray(read_image(path))[..., 0].ravel(), np.arange(4096) // 16)


def every_mode() -> dict[str, Image.Image]:
    """An image of every mode that a file can have, by file name."""
    rgb, rng = photo(40, 30), np.random.default_rng(0)
    alpha = Image.fromarray(rng.integers(0, 256, (30, 40), dtype=np.uint8))
    clear = rgb.copy()
    clear.putalpha(alpha)
    palette = rgb.convert("P")
    deep = rng.integers(0, 2**16, (30, 40), dtype=np.uint16)
    return {
        "bits.png": rgb.convert("1"),
        "grey.png": rgb.convert("L"),
        "grey_alpha.png": clear.convert("LA"),
        "palette.png": palette,
        "palette_clear.png": palette,
        "rgb.png": rgb,
        "rgb_clear.png": rgb,
        "rgba.png": clear,
        "rgba.webp": clear,
        "deep.png": Image.fromarray(deep),
        "deep.tif": Image.fromarray(deep),
        "int32.tif": Image.fromarray(deep.astype(np.int32) // 200),
        "float.tif": Image.fromarray(deep.astype(np.float32) / 200),
        "cmyk.tif": rgb.convert("CMYK"),
        "ycbcr.tif": rgb.convert("YCbCr"),
        "palette.gif": palette,
        "turned.png": rgb,
        "grey.jpg": rgb.convert("L"),
        "rgb.jpg": rgb,
        "stored_as_rgb.jpg": rgb,
        "cmyk.jpg": rgb.convert("CMYK"),
        "turned.jpg": rgb,
        "turned_by_xmp.jpg": rgb,
    }


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("name", every_mode())
def test_both_readers_give_the_pixels_of_to_rgb(name, tmp_path):
    image, path = every_mode()[name], str(tmp_path / name)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    options = {
        "palette_clear.png": {"transparency": 3},
        "rgb_clear.png": {"transparency": image.getpixel((0, 0))},
        "ycbcr.tif": {"compression": "tiff_lzw"},  # uncompressed, Pillow before 13 cannot read its own file
        "turned.png": {"exif": exif},
        "turned.jpg": {"exif": exif},
        "turned_by_xmp.jpg": {"xmp": XMP},
        "stored_as_rgb.jpg": {"keep_rgb": True},
        "rgba.webp": {"lossless": True},
    }
    image.save(path, **options.get(name, {}))
    with Image.open(path) as opened:
        expected = F.pil_to_tensor(to_rgb(opened))
    exact, fast = read_image(path), read_pixels(path)
    assert exact.mode == "RGB"
    assert torch.equal(F.pil_to_tensor(exact), expected)
    assert expected.shape == ((3, 40, 30) if name.startswith("turned") else (3, 30, 40))
    # JPEG has two decoders (see DECODERS); everything else has one, and must be equal
    assert (fast.int() - expected.int()).abs().max() <= (DECODERS if name.endswith(".jpg") else 0)


def test_jpegs_of_every_quality_and_subsampling_agree_within_the_tolerance(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    for quality in (10, 75, 100):
        for subsampling in (0, 1, 2):
            path = str(tmp_path / f"{quality}_{subsampling}.jpg")
            noise.save(path, quality=quality, subsampling=subsampling)
            difference = read_pixels(path).int() - F.pil_to_tensor(read_image(path)).int()
            assert difference.abs().max() <= DECODERS


def test_nothing_else_in_the_package_opens_an_image_file():
    import gcpzoo

    package = Path(gcpzoo.__file__).parent
    users = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\bImage\.open\(|datasets import ImageFolder", path.read_text(encoding="utf-8"))
    }
    elsewhere = {"hub/card.py"}  # a line of code that the card shows
    assert users - elsewhere <= {"data/images.py", "cli/commands.py", "experiments/verify.py"}


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_whatever_a_decoder_raises_the_file_is_named(tmp_path):
    path = tmp_path / "cat.avif"
    photo().save(path)
    path.write_bytes(path.read_bytes().replace(b"iloc", b"xxxx"))  # of which Pillow makes a RuntimeError
    for read in (read_image, read_pixels):
        with pytest.raises(ImageError, match="cannot read image .*cat.avif: Failed to decode"):
            read(str(path))
    assert "Failed to decode" in examine(str(path)).fault
