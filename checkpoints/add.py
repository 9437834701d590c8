#!/usr/bin/env python
"""Put a finished run of ``gcpzoo fit`` into the zoo: 16-bit weights, and a record measured with exactly those.

    python checkpoints/add.py RUN TAG --control RUN --licence … --provenance … --data …

writes ``checkpoints/NAME.safetensors`` and ``checkpoints/records/NAME.yaml`` with NAME = BACKBONE_HEAD.TAG. The
accuracy is measured again with the stored weights, on the data of the run's ``config.yaml``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

import gcpzoo
from gcpzoo.cli.main import run
from gcpzoo.hub import records, save_local
from gcpzoo.hub.files import WEIGHTS

HERE = Path(__file__).parent


def measure(name: str, config: dict[str, Any], root: str | None) -> dict[str, Any]:
    """Run ``gcpzoo test`` with the stored weights on the run's own test images."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"data": config["data"]}
        if root:
            given["data"]["init_args"]["root"] = root
        (Path(folder) / "data.yaml").write_text(yaml.safe_dump(given))
        run(["test", "--config", f"{folder}/data.yaml", "--model", name, "--output", f"{folder}/run"])
        return dict(json.loads((Path(folder) / "run" / "metrics.json").read_text())["test"])


def percent(test: dict[str, Any]) -> dict[str, float]:
    """Convert accuracies to per cent, as records give them."""
    return {k: round(100 * test[k], 2) for k in ("top1", "top5", "per_class")}


def add(args: argparse.Namespace) -> str:
    """Write weights and record, and give the name."""
    folder = Path(args.run)
    report = json.loads((folder / "metrics.json").read_text())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    model = gcpzoo.load(folder / "checkpoints" / "last.ckpt")
    name = f"{model.config['backbone']}_{model.config['head']}.{args.tag}"
    with tempfile.TemporaryDirectory() as temporary:
        digest = save_local(model, temporary, dtype=torch.float16)
        shutil.copyfile(Path(temporary) / WEIGHTS, HERE / f"{name}.safetensors")
    m, batch = config["model"], config["data"]["init_args"]["batch_size"]
    o = m["optimizer"]
    recipe = [
        f"{report['fit']['epochs']} epochs",
        f"batch {batch}",
        f"{o['name']}, {m['schedule']['name']} from {o['lr']}, classifier ×{o['classifier_lr_factor']:g}",
        f"weight decay {o['weight_decay']}",
        f"label smoothing {m['label_smoothing']}",
        *([f"{', '.join(m['frozen'])} frozen"] if m["frozen"] else []),
        config["trainer"]["precision"] or "float32",
        "final epoch",
    ]
    record: dict[str, Any] = {
        "name": name,
        "config": model.config,
        "source": {"file": f"{name}.safetensors"},
        "sha256": digest,
        "size": (HERE / f"{name}.safetensors").stat().st_size,
        "licence": args.licence,
        "provenance": args.provenance,
        "recipe": "; ".join(recipe),
        "data": args.data,
        "metrics": {},
        "measured_by": "gcpzoo",
        "preprocessing": model.preprocessing.to_dict(),  # type: ignore[union-attr]
        "class_names": model.class_names,
        "seeds": [report["seed"]],
        "hardware": report["hardware"],
        "caveats": args.caveat,
    }
    path = HERE / "records" / f"{name}.yaml"

    def write() -> None:
        path.write_text(yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=110))
        for cached in (f for f in vars(records).values() if hasattr(f, "cache_clear")):
            cached.cache_clear()

    write()
    test = measure(name, config, args.root)
    record["metrics"] = percent(test)
    record["data"] = f"{args.data}, {test['images']:,} test images"
    if args.control:
        control = json.loads((Path(args.control) / "metrics.json").read_text())
        record["control"] = {"head": control["model"]["head"], **percent(control["test"])}
    write()
    print(f"{name}: {record['metrics']}, {record['size'] / 1e6:.1f} MB; in the run itself {percent(report['test'])}")
    return name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="output folder of gcpzoo fit")
    parser.add_argument("tag", help="data set and origin, e.g. grocery81")
    parser.add_argument("--control", help="output folder of the GAP control")
    parser.add_argument("--root", help="folder of the images, where it differs from the run's")
    parser.add_argument("--licence", required=True, help="SPDX identifier")
    parser.add_argument("--provenance", required=True, help="who trained it, from what")
    parser.add_argument("--data", required=True, help="data set, its licence and split")
    parser.add_argument("--caveat", action="append", default=[], help="what a user should know")
    add(parser.parse_args())
