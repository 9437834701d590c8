"""``gcpzoo explain --model NAME IMAGE… --output DIR``: what speaks for a class, position by position."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError, printable, unknown_name
from gcpzoo.paths import check_outputs, write_text

FILE = "explanations.json"


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "explain",
        help="mark what speaks for a class in images: Grad-CAM, and the covariance's pairs of channels",
        epilog="docs/explain.md says what each map means.",
    )
    p.add_argument("images", nargs="+", help="image files or folders")
    p.add_argument("--model", required=True, help="a model of the zoo, hf-hub:owner/repo, a folder, or a run's .ckpt")
    p.add_argument("--output", required=True, metavar="DIR", help=f"folder for a PNG of each image and {FILE}")
    p.add_argument("--class", dest="label", metavar="NAME", help="id or name of the class (each image's likeliest)")
    p.add_argument(
        "--method",
        default="grad_cam,second_order",
        metavar="NAMES",
        help="grad_cam (needs the extra explain), second_order, or both with a comma (both)",
    )
    p.add_argument("--pairs", type=int, default=3, help="pairs of channels to draw (3)")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Write a figure of each image, and what the figures show as JSON."""
    from gcpzoo.data.scan import refuse_inside
    from gcpzoo.serve import find_images

    paths = find_images(args.images)
    methods = _methods(args.method)
    if not 0 <= args.pairs <= 5:
        raise ZooError(f"pairs must be between 0 and 5, got {args.pairs}")
    folder = Path(args.output)
    if folder.exists() and not folder.is_dir():
        raise ZooError(f"the output {args.output!r} must be a folder")
    for given in args.images:
        if Path(given).is_dir():
            refuse_inside(folder, given)
    names = list(_file_names(paths))
    check_outputs([folder / name for name in names], paths)
    if "grad_cam" in methods:
        import pytorch_grad_cam  # noqa: F401  # where it is missing, an error before the model is read

    from gcpzoo.analysis.explanations.explain import draw_explanation, explain_image, find_class
    from gcpzoo.data.images import ImageError, read_image
    from gcpzoo.hub import load

    model = load(args.model)
    label = None if args.label is None else find_class(model, args.label)
    entries, bad = [], []
    for path, name in zip(paths, names):
        try:
            image = read_image(path)
        except ImageError as error:
            bad.append(str(error).removeprefix("cannot read image "))
            continue
        explanation = explain_image(model, image, label, methods)
        draw_explanation(explanation, folder / name, args.pairs)
        entries.append({"path": path, "figure": name, **explanation.to_dict()})
        print(f"{printable(path)}: {printable(explanation.description)} {100 * explanation.probability:.2f} %")
        if explanation.view is not None:
            for pair in explanation.view.pairs(args.pairs):
                print(f"  channels {pair.i} × {pair.j} add {pair.contribution:+.4f} to the logit")
    if entries:
        content = json.dumps({"model": str(args.model), "methods": methods, "images": entries}, indent=1)
        write_text(folder / FILE, content + "\n")
        print(f"{len(entries)} figure{'s' if len(entries) > 1 else ''} and {FILE} in {printable(args.output)}")
    if bad:
        raise ZooError(f"{len(bad)} of {len(paths)} images cannot be read: {'; '.join(bad[:10])}")


def _methods(text: str) -> list[str]:
    from gcpzoo.analysis.explanations.explain import METHODS

    methods = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not methods:
        raise ZooError("--method must be grad_cam, second_order or both, got none")
    for method in methods:
        if method not in METHODS:
            raise unknown_name("method", method, METHODS)
    return methods


def _file_names(paths: list[str]) -> Iterator[str]:
    """Name a PNG for each image; those of equal stems are numbered."""
    given: set[str] = set()
    for path in paths:
        stem = Path(path).stem
        name, number = f"{stem}.png", 2
        while name.casefold() in given:
            name, number = f"{stem}-{number}.png", number + 1
        given.add(name.casefold())
        yield name
