"""``gcpzoo benchmark MODEL``: images/s, memory, and a training step beside the average-pooling control."""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

from gcpzoo.cli.tables import new_table, show, show_json
from gcpzoo.errors import ZooError


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "benchmark",
        help="measure a model's speed and memory beside its control's",
        description="Measure images/s, a training step and what it keeps in memory, in turns with the same backbone "
        "with global average pooling. The images are noise.",
    )
    p.add_argument("model", help="a model of the zoo, a folder, a run's .ckpt, or BACKBONE_HEAD")
    p.add_argument("--batch-size", type=int, default=16, metavar="N", help="images at a time (16)")
    p.add_argument("--image-size", type=int, metavar="N", help="side in pixels (the model's own)")
    p.add_argument("--rounds", type=int, default=10, metavar="N", help="measurements of each (10)")
    p.add_argument("--device", default="cpu", help="to compute on (cpu)")
    p.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32", help="(float32)")
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Print a row for the model and one for the control."""
    for option in ("batch_size", "image_size", "rounds"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise ZooError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
    import torch

    from gcpzoo.cli.info import network
    from gcpzoo.training.run_report import hardware

    model, size = network(args.model)
    side = args.image_size or size
    if model.head.frames > 1:
        raise ZooError(f"{args.model} reads clips; gcpzoo benchmark measures networks that read images")
    try:
        x = torch.rand(args.batch_size, 3, side, side, device=torch.device(args.device))
    except (RuntimeError, AssertionError) as error:
        raise ZooError(f"--device {args.device} cannot be used: {str(error).splitlines()[0]}") from error
    networks = {args.model: model} | ({} if model.config["head"] == "gap" else {"the same with gap": _control(model)})
    rows = _measure(networks, x, args.rounds, getattr(torch, args.precision))
    about = {"images": list(x.shape), "precision": args.precision, "rounds": args.rounds, "hardware": hardware()}
    if args.json:
        show_json({**about, "models": rows})
        return
    print(f"{len(x)} images of {side} pixels, {args.precision}, medians of {args.rounds} rounds; {about['hardware']}")
    table = new_table(
        "model", "images/s", "training", "ratio", "kept MB", right=("images/s", "training", "ratio", "kept MB")
    )
    for row in rows:
        low, high = row["ratio_quartiles"]
        numbers = f"{row['images_per_second']:.1f}", f"{row['training_images_per_second']:.1f}"
        kept = f"{row['kept_bytes'] / 1e6:.1f}"
        table.add_row(row["model"], *numbers, f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})", kept)
    show(table)
    print(
        "training: images/s with forward pass, backward pass and an SGD step; ratio: seconds of such a step over the "
        "control's, median and quartiles; kept MB: what the forward pass keeps for the backward pass."
    )


def _control(model: Any) -> Any:
    """Build the same network with global average pooling, without a reduction layer."""
    from gcpzoo.cli.info import with_head
    from gcpzoo.models.gcpnet import create_model

    return create_model(**with_head(model.config, "gap"))


def _measure(networks: dict[str, Any], x: Any, rounds: int, dtype: Any) -> list[dict[str, Any]]:
    """Measure networks in turns; the last one is what the others are compared with."""
    import torch

    from gcpzoo.analysis.speed import in_turns, inference, kept_bytes, median_ratio, training_step
    from gcpzoo.training import OptimizerConfig

    for model in networks.values():
        model.to(x.device)
    seconds = in_turns([inference(model, x, dtype) for model in networks.values()], rounds)
    labels = torch.arange(len(x), device=x.device)
    sgd = OptimizerConfig("SGD", lr=1e-6, weight_decay=1e-4)
    steps = [training_step(m, x, labels % m.config["num_classes"], sgd.create(m), dtype) for m in networks.values()]
    step_seconds = in_turns(steps, rounds)
    rows = []
    for (name, model), forward, step in zip(networks.items(), seconds, step_seconds):
        ratio, low, high = median_ratio(step, step_seconds[-1])
        with torch.autocast(x.device.type, dtype, enabled=dtype is not torch.float32):
            kept = kept_bytes(partial(model, x))
        rows.append(
            {
                "model": name,
                "images_per_second": len(x) / statistics.median(forward),
                "training_images_per_second": len(x) / statistics.median(step),
                "ratio": ratio,
                "ratio_quartiles": [low, high],
                "kept_bytes": sum(kept.values()),
            }
        )
    return rows
