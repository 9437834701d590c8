"""Error of the roots made of matrix products, against the number of products, in float32, bfloat16 and float16.

    python benchmarks/roots.py [--images FOLDER --weights FILE] [--count 48]

The error is the median over samples of ‖R - √Σ‖/‖√Σ‖, √Σ in float64 by the SVD of the features in float32. All
methods take the way that they take on a GPU, products; in half precision the features are rounded to it first.

``features``: of a ResNet-18 to layer3 (``--weights``: the backbone's) on ``--count`` images, evenly spaced in the
sorted folder ``--images`` and prepared as in evaluation: 256 channels, 14×14 positions. Without the two options these
rows stay as they are; those stored are of test images of 50 species of CUB-200-2011, weights from ImageNet. The others
are made: 256 channels, 320 positions, and a covariance whose eigenvalues are given, i from 1; ``rank 49``: 1/i to the
49th, then 0.

``products``: matrix products of the forward pass for as many positions as channels, the covariance among them, by
PyTorch's FlopCounterMode; a linear system comes on top. ``work``: the operations at this shape, those of isqrt 5 being
1 (without the linear system). ``less``: how many times less error in float32 than isqrt 5. A method without a value in
a precision has an operation that PyTorch lacks there. Writes results/roots.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import gcpzoo
from gcpzoo.analysis.measurements.root_errors import METHODS, Root, apply_root, exact_root, relative_errors
from gcpzoo.data.images import read_image

RESULTS = Path(__file__).parent / "results" / "roots.csv"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CHANNELS, POSITIONS = 256, 320
ROOTS: dict[str, Root] = {
    **{name: root for name, root in METHODS.items() if name.startswith(("isqrt ", "minimax "))},
    "mpa": METHODS["mpa_lya"],
    "mtp": METHODS["mtp_lya"],
}
I = torch.arange(1, CHANNELS + 1, dtype=torch.float64)  # noqa: E741  # as in the names of the spectra
SPECTRA: dict[str, Tensor] = {
    "1/i": 1 / I,
    "i^-1.5": I**-1.5,
    "rank 49": (I <= 49) / I,
    "exp(-i/25)": (-I / 25).exp(),
    "i^-2": I**-2,
}


def made(eigenvalues: Tensor, samples: int = 4) -> Tensor:
    """Features ``(B, d, M)`` whose covariance has these eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(samples, CHANNELS, CHANNELS, generator=generator, dtype=torch.float64))[0]
    columns = torch.randn(samples, POSITIONS, CHANNELS + 1, generator=generator, dtype=torch.float64)
    columns[:, :, 0] = 1  # the mean, which centering takes away
    v = torch.linalg.qr(columns)[0][:, :, 1:]
    return ((u * eigenvalues.sqrt()) @ v.mT * POSITIONS**0.5).float()


@torch.no_grad()
def of_images(folder: Path, weights: Path, count: int) -> Tensor:
    """Features ``(B, 256, 196)`` of a ResNet-18 to layer3."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise SystemExit(f"no image in {str(folder)!r}: give a folder of JPEG or PNG files")
    files = files[:: max(1, len(files) // count)][:count]
    model = gcpzoo.create_model("resnet18", "gap", 2, until="layer3", backbone_weights=weights).eval()
    images = torch.stack([model.transform(read_image(str(file))) for file in files])
    return torch.cat([model.forward_features(batch) for batch in images.split(8)]).flatten(2)


def work(root: Root, d: int, m: int) -> int:
    """Operations of the forward pass for one sample."""
    with FlopCounterMode(display=False) as counter:
        root(torch.empty(1, d, m, device="meta"))
    return counter.get_total_flops()


def error(root: Root, x: Tensor, exact: Tensor, dtype: torch.dtype) -> float | None:
    found = apply_root(root, x, dtype)
    return None if found is None else float(relative_errors(found[0], exact).median())


def measure(spectrum: str, x: Tensor) -> list[dict[str, object]]:
    exact, _ = exact_root(x, x.new_zeros(len(x), *2 * x.shape[1:2]))
    usual = error(ROOTS["isqrt 5"], x, exact, torch.float32)
    usual_work = work(ROOTS["isqrt 5"], *x.shape[1:])
    assert usual is not None
    rows = []
    for name, root in ROOTS.items():
        errors = [error(root, x, exact, dtype) for dtype in DTYPES]
        products = round(work(root, 256, 256) / (2 * 256**3))
        assert errors[0] is not None
        rows.append(
            {
                "spectrum": spectrum, "root": name, "products": f"{products} + solve" if name == "mpa" else products,
                "work": f"{work(root, *x.shape[1:]) / usual_work:.2f}",
                **{str(t).removeprefix("torch."): "" if e is None else f"{e:.2g}" for t, e in zip(DTYPES, errors)},
                "less": f"{float(f'{usual / errors[0]:.2g}'):g}",
                "samples": len(x),
            }
        )  # fmt: skip
        print(*rows[-1].values(), sep=",", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--count", type=int, default=48)
    args = parser.parse_args()
    if (args.images is None) != (args.weights is None):
        parser.error("--images and --weights go together")
    rows: list[dict[str, object]] = []
    if args.images is not None:
        rows += measure("features", of_images(args.images, args.weights, args.count))
    elif RESULTS.exists():
        with RESULTS.open() as file:
            rows += [dict(row) for row in csv.DictReader(file) if row["spectrum"] == "features"]
    with torch.no_grad():
        for name, eigenvalues in SPECTRA.items():
            rows += measure(name, made(eigenvalues))
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
