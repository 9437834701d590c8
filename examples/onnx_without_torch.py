"""Classify images with a file of `gcpzoo export`, without torch: python onnx_without_torch.py FILE.onnx IMAGE…"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def prepare(path: str, resize: int | list[int] | None, crop: int | None, interpolation: str) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image, way = image.convert("RGB"), Image.Resampling[interpolation.upper()]
    if resize:
        short = min(image.size)
        size = resize[::-1] if isinstance(resize, list) else [int(resize * side / short) for side in image.size]
        image = image.resize(size, way)
    if crop:  # what lies outside is black
        x, y = (round(d / 2) if d > 0 else -(-d // 2) for d in (side - crop for side in image.size))
        image = image.crop((x, y, x + crop, y + crop))
    return np.asarray(image).transpose(2, 0, 1)


session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["gcpzoo"])
rule = {key: about["preprocessing"][key] for key in ("resize", "crop", "interpolation")}
(logits,) = session.run(None, {"images": np.stack([prepare(path, **rule) for path in sys.argv[2:]])})
for path, row in zip(sys.argv[2:], np.exp(logits - logits.max(1, keepdims=True))):
    print(f"{path}: {about['descriptions'][row.argmax()]} {100 * row.max() / row.sum():.2f} %")
