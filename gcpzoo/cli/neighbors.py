"""``gcpzoo neighbors``: the nearest images of an image, and how well images find their class."""

from __future__ import annotations

import argparse
from typing import Any

from gcpzoo.cli.predict import add_model_options, report_faults
from gcpzoo.cli.tables import new_table, show, show_json
from gcpzoo.errors import ZooError, printable


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "neighbors",
        help="nearest images by the vectors of gcpzoo embed; recall and mAP",
        epilog="See docs/images.md for what recall@k and mAP are.",
    )
    p.add_argument("images", nargs="*", metavar="IMAGE", help="the embeddings (.npz), and images to find neighbors of")
    p.add_argument("--embeddings", metavar="FILE", help="the embeddings, in place of the first argument")
    p.add_argument("--evaluate", action="store_true", help="recall@1, 5, 10 and mAP of the embeddings themselves")
    p.add_argument("--top", type=int, default=5, help="neighbors to show of each image (5)")
    add_model_options(p, required=False)
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Print neighbors, or figures."""
    file, images = args.embeddings, list(args.images)
    if file is None and images and images[0].endswith(".npz"):
        file = images.pop(0)
    if file is None:
        raise ZooError("which embeddings? give the .npz file of 'gcpzoo embed' first, or --embeddings FILE")
    if args.evaluate == bool(images):
        raise ZooError("give images to find the neighbors of, or --evaluate" + (", not both" if images else ""))
    from gcpzoo.serve.images import find_images

    paths = find_images(images)

    from gcpzoo.analysis import Embeddings

    found = Embeddings.read(file)
    if args.evaluate:
        _evaluate(found, args.json)
    else:
        _neighbors(args, found, paths)


def _evaluate(found: Any, as_json: bool) -> None:
    from gcpzoo.analysis import evaluate_retrieval

    figures = evaluate_retrieval(found)
    if as_json:
        show_json(figures.to_dict())
        return
    recall = ", ".join(f"recall@{k} {100 * v:.2f} %" for k, v in figures.recall.items())
    print(f"{recall}, mAP {100 * figures.mean_average_precision:.2f} %")
    print(f"{figures.queries:,} queries among {figures.images:,} images of {len(found.class_names)} classes")


def _neighbors(args: argparse.Namespace, found: Any, paths: list[str]) -> None:
    from gcpzoo.analysis import nearest
    from gcpzoo.analysis.retrieval import embed_queries

    options = {name: getattr(args, name) for name in ("batch_size", "workers", "device")}
    queries = embed_queries(found, paths, args.model, **options, skip_corrupt=True)  # the exit code says the rest
    at, cosine = nearest(found, queries.vectors, args.top)
    rows = [
        (query, found.paths[i], found.class_names[found.labels[i]] if found.labels is not None else None, float(c))
        for query, places, values in zip(queries.paths, at, cosine)
        for i, c in zip(places, values)
    ]
    if args.json:
        keys = ("image", "neighbor", "class", "cosine")
        show_json([{k: v for k, v in zip(keys, row) if v is not None} for row in rows])
    else:
        table = new_table("image", "neighbor", "class", "cosine", right=["cosine"])
        for query, path, name, c in rows:
            table.add_row(*(printable(cell) for cell in (query, path, name or "")), f"{c:.4f}")
        show(table)
    report_faults([f"{path}: {why}" for path, why in queries.faults.items()], len(paths), args.skip_corrupt)
