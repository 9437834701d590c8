"""``gcpzoo publish``: send a model to the Hugging Face Hub."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("publish", help="publish a model on the Hugging Face Hub")
    p.add_argument("model", help="a zoo name, a folder, a run's folder or its .ckpt")
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
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Publish, and print the commit and the line that loads it."""
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
