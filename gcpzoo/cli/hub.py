"""The commands of the hub: ``publish``, ``convert``, ``verify``, ``search-hub``, ``card``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.hub.convert import SOURCES, TRIANGLES


def add_parser(subparsers: Any) -> None:
    """Add the commands to ``argparse``'s ``subparsers``.

    Each sets ``handler``, a function of the parsed arguments that returns the exit code. Neither torch nor the Hub's
    client is imported before it runs.

    >>> parser = argparse.ArgumentParser()
    >>> add_parser(parser.add_subparsers())
    >>> parser.parse_args(["publish", "runs/mine/checkpoints/last.ckpt", "owner/mine", "--tag", "v1"]).tag
    'v1'
    """
    p = subparsers.add_parser("publish", help="publish a model on the Hugging Face Hub")
    p.add_argument("model", help="a zoo name, a folder, or a run's last.ckpt")
    p.add_argument("repo", help="owner/name on the Hub")
    p.add_argument("--private", action="store_true", help="create a private repository")
    p.add_argument("--tag", help="also tag the commit, e.g. v1.0")
    p.add_argument("--collection", help="also put it into this collection (a title, or a slug)")
    p.add_argument("--licence", "--license", help="SPDX identifier, e.g. apache-2.0")
    p.add_argument("--datasets", nargs="*", default=[], help="ids of the training data on the Hub")
    p.add_argument("--base-model", help="id of the model that it was fine-tuned from")
    p.add_argument("--dry-run", action="store_true", help="write and check everything, send nothing")
    p.add_argument("--branch", default="main", help="branch to commit to; created if missing (main)")
    p.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    p.add_argument("--message", help="title of the commit")
    p.set_defaults(handler=_publish)

    p = subparsers.add_parser("convert", help="convert the authors' weights into our format")
    p.add_argument("file", help="their file (.pth, .pth.tar, .safetensors)")
    p.add_argument("--source", required=True, choices=SOURCES, help="their repository")
    p.add_argument("--arch", required=True, help="their name of the model, e.g. mpncovresnet50")
    p.add_argument("--output", required=True, help="the folder to write")
    p.add_argument("--triangle", choices=TRIANGLES, default="auto", help="order of the classifier's columns")
    p.set_defaults(handler=_convert)

    p = subparsers.add_parser("verify", help="check a checkpoint's hash, tensors, logits and accuracy")
    p.add_argument("model", help="as for loading")
    p.add_argument("--data", help="a folder with one subfolder of images a class (the test split) to measure top-1 on")
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--device", default="cpu")
    p.set_defaults(handler=_verify)

    p = subparsers.add_parser("search-hub", help="models on the Hub that this library loads")
    p.add_argument("query", nargs="?", help="part of the name")
    p.add_argument("--author", help="a user or an organization")
    p.add_argument("--limit", type=int, default=50)
    p.set_defaults(handler=_search)

    p = subparsers.add_parser("card", help="write MODEL_CARD.md and the README's table from the records")
    p.add_argument("folder", nargs="?", default=".", help="where MODEL_CARD.md and README.md lie")
    p.add_argument("--check", action="store_true", help="write nothing; exit with 1 where they are not up to date")
    p.set_defaults(handler=_card)


def _publish(args: argparse.Namespace) -> int:
    from gcpzoo.hub import publish

    done = publish(
        args.model,
        args.repo,
        private=args.private,
        tag=args.tag,
        collection=args.collection,
        licence=args.licence,
        datasets=args.datasets,
        base_model=args.base_model,
        dry_run=args.dry_run,
        branch=args.branch,
        create_pr=args.create_pr,
        message=args.message,
    )
    if args.dry_run:
        print(f"would publish {', '.join(done.files)} to {done.repo}:\n\n{done.card}")
        return 0
    if done.files:
        print(f"commit {done.commit} ({', '.join(done.files)})")
    else:
        print(f"unchanged, at commit {done.commit}: nothing sent; write access not tested")
    print(done.url)
    print(f"load it with: {done.line}")
    return 0


def _convert(args: argparse.Namespace) -> int:
    from gcpzoo.hub import convert

    model = convert(args.file, args.source, args.arch, args.output, args.triangle)
    c = model.config
    print(f"{c['backbone']} with {c['head']} (dim {c['dim']}), {c['num_classes']} classes")
    print(f'load it with: gcpzoo.load("local-dir:{args.output}")')
    return 0


def _verify(args: argparse.Namespace) -> int:
    from gcpzoo.experiments import verify

    checks = verify(args.model, args.data, args.batch_size, args.device)
    for check in checks:
        mark = {True: "ok    ", False: "FAILED", None: "  –   "}[check.ok]
        print(f"{mark} {check.name:14} {check.detail}")
    return 1 if any(check.ok is False for check in checks) else 0


def _search(args: argparse.Namespace) -> int:
    from gcpzoo.hub import search_hub

    found = search_hub(args.query, args.author, args.limit)
    for m in found:
        print(f"{m['repo']:50} {m['downloads']:>9} downloads {m['likes']:>5} likes  {m['updated']}")
    if not found:
        print("no such model on the Hub")
    return 0


def _card(args: argparse.Namespace) -> int:
    from gcpzoo.hub.card import BEGIN, update_page, zoo_card

    folder = Path(args.folder)
    card, page = folder / "MODEL_CARD.md", folder / "README.md"
    if not folder.is_dir():
        raise ZooError(f"there is no folder {args.folder!r}")
    stale = not card.is_file() or card.read_text(encoding="utf-8") != zoo_card()
    has_table = page.is_file() and BEGIN in page.read_text(encoding="utf-8")
    if args.check:
        stale = stale or (has_table and update_page(page, write=False))
        print("not up to date: run gcpzoo card" if stale else "up to date")
        return int(stale)
    card.write_text(zoo_card(), encoding="utf-8")
    if has_table:
        update_page(page)
    print(f"wrote {card}" + (f" and the table in {page}" if has_table else ""))
    return 0
