"""``gcpzoo export``: a model as one file for other runtimes, checked on real images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError, printable


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser(
        "export",
        help="write a model as ONNX or torch.export: weights, preprocessing and labels in one file",
        epilog="A float32 file is written only if it gives the network's answers; what another root, float16 and INT8 "
        "change is printed. See docs/export.md.",
    )
    p.add_argument("--model", required=True, help="as for gcpzoo predict: a name, a folder, or a run's .ckpt")
    p.add_argument("--format", choices=("onnx", "torch_export"), default="onnx", help="(onnx)")
    p.add_argument("--output", required=True, metavar="FILE", help="FILE.onnx, or FILE.pt2 for torch_export")
    p.add_argument("--root", metavar="ROOT", help="exchange the head's matrix root; minimax is one that ONNX has")
    p.add_argument("--half", choices=("float16",), help="weights in half the bytes; the covariance stays in float32")
    p.add_argument("--int8", action="store_true", help="the backbone in INT8, the covariance in float32; ONNX only")
    p.add_argument("--calibration", nargs="+", metavar="FOLDER", help="typical images for --int8; 512 of them are used")
    p.add_argument(
        "--check",
        nargs="+",
        metavar="FOLDER|IMAGE",
        help="images to compare on, labelled where their folder is a class's (handwritten digits)",
    )
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> None:
    """Export, and print what was measured."""
    if args.int8 != (args.calibration is not None):
        raise ZooError("--int8 and --calibration FOLDER go together: the images give the ranges of the activations")
    from gcpzoo.serve import find_images

    check, calibration = (None if given is None else find_images(given) for given in (args.check, args.calibration))

    from gcpzoo.analysis.exporting.agreement import CheckImages
    from gcpzoo.analysis.exporting.export import export
    from gcpzoo.hub.loading import load

    model = load(args.model)
    own = getattr(model.head, "root", None)
    exported = export(
        model,
        args.output,
        args.format,
        None if check is None else CheckImages.files(model, check),
        args.root,
        args.half is not None,
        None if calibration is None else CheckImages.files(model, calibration),
    )
    about = exported.metadata
    shapes = " → ".join(f"{about[k]['name']} ({', '.join(map(str, about[k]['shape']))})" for k in ("input", "output"))
    print(f"{printable(exported.path)}: {exported.size / 1e6:.1f} MB, {shapes}, {about['precision']}")
    source = "the given images" if check else "handwritten digits (--check FOLDER takes your own)"
    runtime = "onnxruntime" if args.format == "onnx" else "torch.export"
    print(f"checked by {runtime} on {exported.agreement.images:,} images: {source}")
    changes = [f"root {args.root} for {own}"] if args.root and args.root != own else []
    changes += [about["precision"]] if about["precision"] != "float32" else []
    if exported.translation is not None:
        show("file against PyTorch", exported.translation)
    if changes:
        show(" and ".join(changes), exported.agreement)
    _show_accuracy(exported.agreement, Path(exported.path).name)


def show(what: str, agreement: Any) -> None:
    """Print how far two networks agree.

    >>> from gcpzoo.analysis.exporting.agreement import Agreement
    >>> show("file against PyTorch", Agreement(64, 1e-6, 2e-7, 64))
    file against PyTorch: probabilities differ by at most 2e-07, logits by 1e-06; same class for 64 of 64
    """
    print(
        f"{what}: probabilities differ by at most {agreement.probabilities:.2g}, logits by {agreement.logits:.2g}; "
        f"same class for {agreement.same:,} of {agreement.images:,}"
    )


def _show_accuracy(agreement: Any, name: str) -> None:
    if agreement.before is None:
        print("accuracy: not measured, no image lies in a folder named as one of the model's classes")
        return
    before, after = 100 * agreement.before, 100 * agreement.after
    print(
        f"accuracy on {agreement.labelled:,} labelled images: {before:.2f} % before, {after:.2f} % in {printable(name)}"
    )
