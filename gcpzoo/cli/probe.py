"""``gcpzoo probe``: classifiers on frozen features, and few-shot episodes."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from gcpzoo.cli.tables import new_progress
from gcpzoo.errors import ZooError

PROTOCOLS = ("linear", "ridge", "knn", "svm", "few-shot")
FORMAT = 1
EPISODES = {"ways": 5, "shots": 1, "queries": 15, "episodes": 2000, "classifier": "logistic"}
"""Options of few-shot episodes alone, with their defaults."""


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "probe",
        help="measure frozen features: linear, ridge, knn, svm, few-shot",
        epilog="Features are computed once and kept by weights, images and preprocessing. See docs/sweeps.md.",
    )
    p.add_argument("--model", required=True, help="a name, a folder, a run's folder or its .ckpt")
    p.add_argument("--head", help="replace the model's head by this one, untrained and without a reduction")
    p.add_argument("--data", required=True, help="train and test folders of class folders, or Digits")
    p.add_argument("--protocol", choices=PROTOCOLS, default="linear", help="see above (linear)")
    p.add_argument("--image-size", type=int, metavar="N", help="side in pixels (the model's own)")
    p.add_argument("--seed", type=int, default=0, help="of held-out images and episodes (0)")
    p.add_argument("--device", default="cpu", help="to compute features on (cpu)")
    p.add_argument("--batch-size", type=int, default=32, help="images at a time (32)")
    p.add_argument("--cache", metavar="DIR", help="folder of kept features (in the user's cache)")
    p.add_argument("--output", metavar="FILE", help="also write the result as JSON")
    few = p.add_argument_group("few-shot episodes, on the test images or all images of class folders")
    few.add_argument("--ways", type=int, help="classes of an episode (5)")
    few.add_argument("--shots", type=int, help="images of each to learn from (1)")
    few.add_argument("--queries", type=int, help="images of each to classify (15)")
    few.add_argument("--episodes", type=int, help="number of episodes (2000)")
    few.add_argument("--classifier", choices=("logistic", "prototype"), help="(logistic)")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Print what was measured."""
    from gcpzoo.experiments.probe import check_episodes, few_shot, probe
    from gcpzoo.paths import write_text

    _check(args)
    model = _model(args)
    data = _data(args, model)
    folder = Path(args.cache) if args.cache else None
    if args.protocol == "few-shot":
        labels = [label for _, label in data.samples("test")]
        check_episodes(labels, args.ways, args.shots, args.queries, args.episodes, args.seed)
        found = _extract(args, model, data, "test", folder)
        numbers = (args.ways, args.shots, args.queries, args.episodes)
        result: Any = few_shot(found, *numbers, classifier=args.classifier, seed=args.seed)
        text = f"{args.ways}-way {args.shots}-shot, {args.episodes:,} episodes"
    else:
        train, test = (_extract(args, model, data, split, folder) for split in ("train", "test"))
        result = probe(train, test, args.protocol, args.seed)
        text = f"{args.protocol}, {result.dim:,} features, {result.images:,} test images"
        text += f", {', '.join(f'{k} = {v:g}' for k, v in result.setting.items())}"
    half = (result.high - result.low) / 2
    print(f"{text}: top-1 {100 * result.top1:.2f} ± {100 * half:.2f} %")
    if args.output:
        about = {"format": FORMAT, "model": args.model, "head": model.config["head"], "data": args.data}
        write_text(args.output, json.dumps({**about, "seed": args.seed, **result.to_dict()}, indent=2) + "\n")


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work, or has no effect, before anything is loaded; fill in the defaults of episodes."""
    from gcpzoo.experiments.probe import check_seed

    for option, default in EPISODES.items():
        if args.protocol == "few-shot" and getattr(args, option) is None:
            setattr(args, option, default)
        elif args.protocol != "few-shot" and getattr(args, option) is not None:
            raise ZooError(f"--{option} belongs to --protocol few-shot and has no effect on {args.protocol}")
    check_seed(args.seed)
    for option in ("batch_size", "image_size"):
        if (value := getattr(args, option)) is not None and value < 1:
            raise ZooError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
    if args.cache and Path(args.cache).exists() and not Path(args.cache).is_dir():
        raise ZooError(f"--cache must be a folder, got the file {args.cache!r}")
    if args.output and Path(args.output).is_dir():
        raise ZooError(f"--output must be a file, got the folder {args.output!r}")


def _model(args: argparse.Namespace) -> Any:
    """Load the network, and give it another head if one is asked for."""
    from gcpzoo.cli.info import with_head
    from gcpzoo.hub.loading import load
    from gcpzoo.models.gcpnet import create_model

    model = load(args.model)
    if args.head is None:
        return model
    other = create_model(**with_head(model.config, args.head))
    other.backbone.load_state_dict(model.backbone.state_dict())
    other.preprocessing = model.preprocessing
    if any(p.requires_grad for p in other.head.parameters()):
        raise ZooError(f"the head {args.head!r} has weights to train, so it cannot be probed untrained")
    return other


def _data(args: argparse.Namespace, model: Any) -> Any:
    from gcpzoo.data import Digits
    from gcpzoo.experiments.probe import class_folders

    own: dict[str, Any] = {"batch_size": args.batch_size, "image_size": args.image_size}
    known = model.preprocessing
    if args.image_size is None and known is not None:
        own["preprocessing"] = known
    data = Digits(**own) if args.data == "Digits" else class_folders(args.data, args.protocol == "few-shot", **own)
    if known is not None:  # another size keeps the colors that the network knows
        data.preprocessing = dataclasses.replace(data.preprocessing, mean=known.mean, std=known.std)
    return data


def _extract(args: argparse.Namespace, model: Any, data: Any, split: str, folder: Path | None) -> Any:
    from gcpzoo.experiments.probe import extract

    with new_progress() as progress:
        task = progress.add_task(f"features of {split} images", total=None)
        found = extract(
            model, data, split, args.device, folder, lambda n, total: progress.update(task, completed=n, total=total)
        )
    kept = "kept from before" if found.cached else "computed"
    print(f"{split}: {len(found.y):,} images of {len(found.class_names)} classes, features {kept}")
    return found
