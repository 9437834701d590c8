"""The demonstration's question: does the head matter where training images are few?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gcpzoo.cli.tables import new_table, show
from gcpzoo.paths import write_text

TRUNKS = {
    "ImageNet": "first stage of torchvision's ResNet-18, trained on ImageNet with average pooling",
    "random": "the same stage with random weights",
}
WHERE = "resnet18_isqrt.cub50"
"""Its training left the first stage of torchvision's ResNet-18 as it was."""
SHOTS, DRAWS, HELD_OUT, SIDE = (1, 2, 5, 10, 20, 50), 10, 200, 32
HEADS = ("gap", "isqrt", "both")
Curves = Mapping[str, Mapping[int, Mapping[int, float]]]


def few_images(folder: Path, say: Callable[[str], None], shots: tuple[int, ...] = SHOTS, draws: int = DRAWS) -> Any:
    """Learn from few digits a class on frozen trunks that no covariance head helped to train; show what comes out.

    Args:
        folder: for the figure.
        say: prints a line.
        shots: training digits a class.
        draws: of these digits.

    Returns:
        Trunk → head → digits a class → draw → share of the test digits that are right.
    """
    from gcpzoo.analysis.drawing import figures
    from gcpzoo.experiments.statistics import mean_interval

    say("\n[bold]Few images: average pooling, covariance pooling, and both side by side[/bold]")
    say("Frozen trunks that no covariance head helped to train, and ridge regression on what the heads make of them.")
    say(f"{draws} draws of the digits to learn from; the penalty is chosen for each head among the same values, by its")
    say(f"accuracy on {HELD_OUT} training digits that none learns from.")
    sizes = [network("random", head).num_features for head in HEADS[:2]]
    say(f"gap gives the classifier {sizes[0]:,} numbers of an image, isqrt {sizes[1]:,}.")
    found = {trunk: measure(trunk, shots, draws) for trunk in TRUNKS}
    panels: dict[str, dict[str, list[tuple[float, float, float, float]]]] = {}
    for trunk, curves in found.items():
        _show(trunk, curves, say)
        for head, curve in curves.items():
            for count, shares in curve.items():
                e = mean_interval([100 * share for share in shares.values()])
                low, high = (e.mean if end is None else end for end in (e.low, e.high))
                panels.setdefault(trunk, {}).setdefault(head, []).append((count, e.mean, low, high))
    drawing = figures.learning_curves(panels, {head: i for i, head in enumerate(HEADS)})
    write_text(
        folder / "few_images.svg", figures.to_svg(drawing, "Accuracy against training digits a class", alone=True)
    )
    return found


def measure(trunk: str, shots: tuple[int, ...] = SHOTS, draws: int = DRAWS) -> Curves:
    """Measure every head on the features of one trunk."""
    from gcpzoo.data import Digits
    from gcpzoo.experiments.probe import Features, extract
    from gcpzoo.experiments.probe.learning_curve import join, learning_curve

    data = Digits(image_size=SIDE, batch_size=64)
    features: dict[str, list[Features]] = {}
    with tempfile.TemporaryDirectory() as place:
        for head in ("gap", "isqrt"):
            model = network(trunk, head)
            features[head] = [extract(model, data, split, folder=Path(place)) for split in ("train", "test")]
    features["both"] = [join(*parts) for parts in zip(features["gap"], features["isqrt"])]
    return {head: learning_curve(train, test, shots, draws, HELD_OUT) for head, (train, test) in features.items()}


def network(trunk: str, head: str) -> Any:
    """Build a head on the first stage of ResNet-18; the same trunk for every head."""
    import torch

    from gcpzoo.hub.loading import load
    from gcpzoo.models.gcpnet import create_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the trunk is made first, so it is the same whatever the head
        model = create_model("resnet18", head, 10, until="layer1", dim=None)
    if trunk == "ImageNet":
        known = load(WHERE).backbone.state_dict()
        model.backbone.load_state_dict({key: known[key] for key in model.backbone.state_dict()})
    return model


def _show(trunk: str, curves: Curves, say: Callable[[str], None]) -> None:
    """Show the table of a trunk, and say where which head is ahead, by the interval of the difference."""
    from gcpzoo.experiments.statistics import mean_interval, paired_difference, percent_between

    columns = ("digits a class", *(f"{head} %" for head in HEADS), *(f"{head} - gap, points" for head in HEADS[1:]))
    table = new_table(*columns, right=columns[1:], title=f"{trunk}: {TRUNKS[trunk]}")
    sides: dict[str, dict[str, list[str]]] = {head: {"ahead": [], "behind": [], "undecided": []} for head in HEADS[1:]}
    for count in curves["gap"]:
        cells = [f"{100 * mean_interval(list(curves[head][count].values())).mean:.1f}" for head in HEADS]
        for head in HEADS[1:]:
            difference = paired_difference(curves[head][count], curves["gap"][count])
            assert difference
            cells.append(percent_between(difference))
            side = "ahead" if difference.mean > 0 else "behind"
            sides[head][side if difference.excludes_zero else "undecided"].append(str(count))
        table.add_row(str(count), *cells)
    show(table)
    for head, places in sides.items():
        told = "; ".join(f"{side} with {', '.join(at)} digits a class" for side, at in places.items() if at)
        say(f"{head} against gap: {told}.")
    say("In brackets the 95 % interval over the draws of the training digits; the 360 test digits are always the same.")
