#!/usr/bin/env python
"""Put a finished training into the zoo: 16-bit weights, and a record measured with exactly those.

    python checkpoints/add.py runs/resnet18/runs/NAME TAG --licence … --provenance … --data …     # of a sweep
    python checkpoints/add.py RUN TAG --control RUN --licence … --provenance … --data …           # of gcpzoo fit

writes ``checkpoints/NAME.safetensors`` and ``checkpoints/records/NAME.yaml`` with NAME = BACKBONE_HEAD.TAG. The
accuracy is measured again with the stored weights, on the data of the run's ``config.yaml``. Of a sweep the first seed
is taken, never the best on the test images; the control, the intervals over all seeds and what the search chose come
from its results. Nothing is written where the rounding to 16 bit costs accuracy, or a file is too large.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

import gcpzoo
from gcpzoo.cli.main import run
from gcpzoo.errors import ZooError
from gcpzoo.experiments.report import HeadResult, Training, collect, compare
from gcpzoo.experiments.statistics import Estimate
from gcpzoo.experiments.sweep.execute import ABOUT, RESULTS
from gcpzoo.hub import records, save_local
from gcpzoo.hub.files import WEIGHTS
from gcpzoo.hub.run_results import in_percent, read_report
from gcpzoo.limits import read_yaml
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.paths import replacing
from gcpzoo.training.options import CONFIG

HERE = Path(__file__).parent
MOST_BYTES, MOST_IN_ALL = 13_000_000, 60_000_000
MOST_CHANGE, MOST_APART = 0.3, 1.0
"""Points of top-1 by which the 16-bit weights may differ from the unrounded, and those from the run's own evaluation,
which may be in mixed precision."""
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def measure(model: Path, config: dict[str, Any], root: str | None) -> dict[str, Any]:
    """Run ``gcpzoo test`` with the stored weights on the run's own test images."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"data": config["data"]}
        if root:
            given["data"]["init_args"]["root"] = root
        (Path(folder) / "data.yaml").write_text(yaml.safe_dump(given))
        arguments = ["--config", f"{folder}/data.yaml", "--model", str(model), "--output", f"{folder}/run"]
        if run(["test", *arguments]):
            raise ZooError(f"gcpzoo test {' '.join(arguments)} failed")
        return dict(json.loads((Path(folder) / "run" / "metrics.json").read_text())["test"])


def recipe(report: dict[str, Any], config: dict[str, Any]) -> str:
    """Say in a line how it was trained."""
    m, batch = config["model"], config["data"]["init_args"]["batch_size"]
    o = m["optimizer"]
    parts = [
        f"{report['fit']['epochs']} epochs",
        f"batch {batch}",
        f"{o['name']}, {m['schedule']['name']} from {o['lr']:g}, classifier ×{o['classifier_lr_factor']:g}",
        f"weight decay {o['weight_decay']}",
        f"label smoothing {m['label_smoothing']}",
        *([f"{', '.join(m['frozen'])} frozen"] if m["frozen"] else []),
        config["trainer"]["precision"] or "float32",
        "final epoch",
    ]
    return "; ".join(parts)


def read_run(folder: Path) -> dict[str, Any]:
    """Read the report of a training that was tested.

    Raises:
        ZooError: if there is none.
    """
    report = read_report(folder)
    if lacking := [key for key in ("model", "data", "fit", "test") if key not in report]:
        raise ZooError(f"{folder} must be the folder of a training with its test, but metrics.json has no {lacking[0]}")
    return report


def check_final(folder: Path, report: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse a training that has not ended, or whose test was of another epoch than the last.

    Raises:
        ZooError: if it is one.
    """
    done, planned = report["fit"]["epochs"], config["trainer"].get("max_epochs") or 0
    if done < planned:
        raise ZooError(f"{folder} must have ended, but only {done} of {planned} epochs are done: go on by --resume")
    if report.get("checkpoint", {}).get("kept") == "best":
        raise ZooError(f"{folder} was tested in its best epoch, but the zoo takes the final one: train without --best")


def find_in_sweep(folder: Path) -> tuple[Training, HeadResult, HeadResult | None] | None:
    """Find a run in the results of its sweep, with its head and the control; nothing of a run that is in no sweep.

    Raises:
        ZooError: if it or another seed of it or of the control is not done, or it is not the first seed.
    """
    output = folder.parent.parent
    if not (output / RESULTS).is_file():
        return None
    about = json.loads((output / ABOUT).read_text())
    for block in compare(collect([output]), about["control"]):
        for head in block.heads:
            for training in head.runs:
                if training.folder is None or training.folder.resolve() != folder:
                    continue
                control = block.get(block.control)
                if unfinished := head.unfinished + (control.unfinished if control else 0):
                    raise ZooError(f"{block.title}: {unfinished} trainings are unfinished: end the sweep first")
                first = min(other.seed for other in head.runs)
                if training.seed != first:
                    raise ZooError(f"{folder.name} must be of the first seed, {first}: others would be a choice")
                return training, head, control if head.name != block.control else None
    raise ZooError(f"{folder.name} is not among the trainings of {output / RESULTS} that are done")


def trainings(found: tuple[Training, HeadResult, HeadResult | None], dtype: str) -> dict[str, Any]:
    """Collect what the sweep says of a head and its control."""
    training, head, control = found
    assert training.folder
    about = json.loads((training.folder.parent.parent / ABOUT).read_text())
    seeds = [run.seed for run in head.runs]
    common = sorted({*seeds} & {run.seed for run in control.runs}) if control else []
    chosen = training.about.get("chosen")
    assert head.test
    return {
        "sweep": about["file"],
        "run": training.folder.name,
        "choice": f"the first of the seeds {', '.join(map(str, seeds))}; not chosen by its accuracy",
        "weights": dtype,
        "chosen": json.loads(chosen) if chosen else None,
        "top1": interval(head.test, seeds),
        "control": {"head": control.name, **interval(control.test, [run.seed for run in control.runs])}
        if control and control.test
        else None,
        "difference": interval(head.over_seeds, common) if head.over_seeds else None,
    }


def interval(found: Estimate, seeds: list[int]) -> dict[str, Any]:
    """Write an estimate in per cent."""
    low, high = (None if end is None else round(100 * end, 2) for end in (found.low, found.high))
    return {"mean": round(100 * found.mean, 2), "low": low, "high": high, "seeds": seeds}


def check_size(name: str, size: int, folder: Path = HERE) -> None:
    """Refuse weights that are too large for the repository.

    Raises:
        ZooError: if they are, alone or together with what is there.
    """
    if size > MOST_BYTES:
        raise ZooError(f"{name} must have at most {MOST_BYTES / 1e6:g} MB, got {size / 1e6:.1f}: take a smaller dim")
    others = sum(f.stat().st_size for f in folder.glob("*.safetensors") if f.name != f"{name}.safetensors")
    if others + size > MOST_IN_ALL:
        raise ZooError(
            f"all weights must have {MOST_IN_ALL / 1e6:g} MB at most, got {others / 1e6:.1f} + {size / 1e6:.1f}"
        )


def check_weights(model: GCPNet, dtype: str) -> None:
    """Refuse weights that the 16-bit type does not hold.

    Raises:
        ZooError: if a finite value becomes infinite.
    """
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not value.to(DTYPES[dtype]).isfinite().all():
            raise ZooError(f"{key} does not fit into {dtype}: give --dtype bfloat16")


def check_agreement(name: str, test: dict[str, Any], other: dict[str, Any], most: float) -> None:
    """Refuse what was measured on other images, or with a top-1 that is more than ``most`` points apart.

    Raises:
        ZooError: if it was.
    """
    one, two = (f"{100 * t['top1']:.2f} % of {t['images']} images" for t in (test, other))
    if test["images"] != other["images"] or 100 * abs(test["top1"] - other["top1"]) > most:
        raise ZooError(f"{name}: top-1 must agree to {most:g} points on the same images, got {one} for {two}")


def add(args: argparse.Namespace, folder: Path = HERE) -> str:
    """Write weights and record, and give the name."""
    source = Path(args.run).resolve()
    found = find_in_sweep(source)
    if found and args.control:
        raise ZooError("--control is for runs outside a sweep: this sweep names its own")
    report = read_run(source)
    config = read_yaml(source / CONFIG)
    check_final(source, report, config)
    control = control_of(found, args.control, report)
    model = gcpzoo.load(source / "checkpoints" / "last.ckpt")
    name = f"{model.config['backbone']}_{model.config['head']}.{args.tag}"
    path = folder / "records" / f"{name}.yaml"
    if not records.NAME.fullmatch(name):
        raise ZooError(f"TAG must be of small letters, digits and _, got {args.tag!r}")
    weights_path = folder / f"{name}.safetensors"
    if taken := [file for file in (path, weights_path) if file.exists() and not args.replace]:
        raise ZooError(f"{taken[0]} exists: give another tag, or --replace")
    check_weights(model, args.dtype)
    with tempfile.TemporaryDirectory() as temporary:
        save_local(model, temporary)
        exact = measure(Path(temporary), config, args.root)
    with tempfile.TemporaryDirectory() as temporary:
        digest = save_local(model, temporary, dtype=DTYPES[args.dtype])
        weights = (Path(temporary) / WEIGHTS).read_bytes()
        check_size(name, len(weights), folder)
        test = measure(Path(temporary), config, args.root)
    metrics, unrounded, before = in_percent(test), in_percent(exact), in_percent(report["test"])
    check_agreement(f"{name} before the rounding", exact, report["test"], MOST_APART)
    check_agreement(f"{name} in {args.dtype}", test, exact, MOST_CHANGE)
    images = report["data"]["images"]
    split = [f"{images['train']:,} to train", *([f"{images['val']:,} to choose by"] if images.get("val") else [])]
    record: dict[str, Any] = {
        "name": name,
        "config": model.config,
        "source": {"file": f"{name}.safetensors"},
        "sha256": digest,
        "size": len(weights),
        "licence": args.licence,
        "provenance": args.provenance,
        "recipe": recipe(report, config),
        "data": f"{args.data}: {', '.join(split)}, {test['images']:,} test images",
        "metrics": metrics,
        "measured_by": "gcpzoo",
        "preprocessing": model.preprocessing.to_dict(),  # type: ignore[union-attr]
        "class_names": model.class_names,
        "seeds": [report["seed"]],
        "hardware": report["hardware"],
        "caveats": args.caveat,
    }
    if found:
        record["trainings"] = trainings(found, args.dtype) | {"in_run": before, "unrounded": unrounded}
    if control:
        record["control"] = control
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=110)
    records.parse_record(text, name)
    with replacing(path) as new_record, replacing(weights_path) as new_weights:  # neither where one cannot be written
        new_record.write_text(text, encoding="utf-8")
        new_weights.write_bytes(weights)
    print(f"{name}: {metrics}, {len(weights) / 1e6:.1f} MB; unrounded {unrounded}, in the run itself {before}")
    return name


def control_of(
    found: tuple[Training, HeadResult, HeadResult | None] | None, given: str | None, run: dict[str, Any]
) -> dict[str, Any] | None:
    """Read what the control of the same seed reached, by its record where the zoo has it.

    Args:
        found: of :func:`find_in_sweep`.
        given: folder of the control of a run outside a sweep.
        run: report of the run itself.

    Raises:
        ZooError: if the control is not of the same backbone, images and seed.
    """
    folder = Path(given) if given else None
    if found and found[2]:
        folder = next((other.folder for other in found[2].runs if other.seed == run["seed"]), None)
    if folder is None:
        return None
    report = read_run(folder)
    for name, part, other in (
        ("seed", run, report),
        *((key, run["model"], report["model"]) for key in ("backbone", "until")),
        *((key, run["data"], report["data"]) for key in ("data", "num_classes", "images")),
    ):
        if part.get(name) != other.get(name):
            raise ZooError(f"the control {folder} must have the run's {name}, {part.get(name)}, got {other.get(name)}")
    head, reached = report["model"]["head"], in_percent(report["test"])
    for record in map(records.get_record, records.list_models()):
        known = record.trainings or {}
        if (known.get("run"), known.get("in_run")) == (folder.name, reached):  # the name alone may be of another
            return {"record": record.name, "head": head, **record.metrics}
    return {"head": head, **reached}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a training: OUTPUT/runs/NAME of a sweep, or of gcpzoo fit")
    parser.add_argument("tag", help="data set and origin, e.g. grocery81")
    parser.add_argument("--control", help="folder of the GAP control, of a run outside a sweep")
    parser.add_argument("--root", help="folder of the images, where it differs from the run's")
    parser.add_argument("--licence", required=True, help="SPDX identifier, or other (…)")
    parser.add_argument("--provenance", required=True, help="who trained it, from what")
    parser.add_argument("--data", required=True, help="data set, its authors, licence and split")
    parser.add_argument("--caveat", action="append", default=[], help="what a user should know")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float16", help="of the stored weights (float16)")
    parser.add_argument("--replace", action="store_true", help="replace a checkpoint of this name")
    try:
        add(parser.parse_args())
    except (ZooError, OSError) as error:
        parser.exit(2, f"add.py: error: {error}\n")


if __name__ == "__main__":
    main()
