"""``--help`` of fit, validate and test: the options that most runs need; ``--help-all`` shows the parser's own page."""

from __future__ import annotations

import argparse
import shutil
import textwrap

EXAMPLES = {
    "fit": (
        "gcpzoo fit FOLDER --output runs/mine",
        "gcpzoo fit FOLDER --from resnet18_isqrt.cub50 --compare --output runs/both",
        "gcpzoo fit --config finetune/digits.yaml",
        "gcpzoo fit --config finetune/cub50.yaml --data.root FOLDER --model.head gap",
        "gcpzoo fit --config finetune/digits.yaml --output runs/digits --resume",
    ),
    "validate": ("gcpzoo validate --model runs/mine --data ImageFolder --data.root FOLDER",),
    "test": (
        "gcpzoo test --model resnet18_isqrt.digits --data Digits",
        "gcpzoo test --config evaluate/finegrained.yaml --model MODEL --data.root FOLDER",
    ),
    "analyze": (
        "gcpzoo analyze resnet18_isqrt.digits --data Digits --only spectrum,calibration",
        "gcpzoo analyze runs/mine --data FOLDER --control runs/gap --output analysis",
    ),
    "app": (
        "gcpzoo app",
        "gcpzoo app --model resnet18_isqrt.digits --port 0",
        "gcpzoo app --model runs/isqrt --control runs/gap --embeddings emb.npz",
    ),
    "benchmark": (
        "gcpzoo benchmark resnet18_isqrt.digits",
        "gcpzoo benchmark resnet50_isqrt --batch-size 8 --precision bfloat16",
    ),
    "card": ("gcpzoo card", "gcpzoo card --check"),
    "check-data": ("gcpzoo check-data FOLDER", "gcpzoo check-data FOLDER --json"),
    "convert": ("gcpzoo convert FILE.pth.tar --source fast_mpn_cov --arch mpncovresnet50 --output FOLDER",),
    "demo": ("gcpzoo demo", "gcpzoo demo --data FOLDER --epochs 2"),
    "embed": (
        "gcpzoo embed --model resnet18_isqrt.cub50 FOLDER --output emb.npz",
        "gcpzoo embed --model runs/mine FOLDER --output emb.npz --before-root --whiten 128",
    ),
    "explain": ("gcpzoo explain --model resnet18_isqrt.cub50 IMAGE.jpg --output explained",),
    "export": (
        "gcpzoo export --model resnet18_isqrt.cub50 --format onnx --output birds.onnx",
        "gcpzoo export --model runs/mine --format onnx --output mine.onnx --root minimax --half float16",
    ),
    "info": (
        "gcpzoo info resnet18_isqrt.cub50",
        "gcpzoo info resnet50_mpn_cov --size 448",
        "gcpzoo info runs/mine --json",
    ),
    "list": (
        "gcpzoo list",
        "gcpzoo list 'resnet50_*' --loadable",
        "gcpzoo list --head dropcov --max-size 100",
        "gcpzoo list --heads",
    ),
    "neighbors": ("gcpzoo neighbors emb.npz IMAGE.jpg", "gcpzoo neighbors emb.npz --evaluate"),
    "predict": (
        "gcpzoo predict --model resnet18_isqrt.cub50 IMAGE.jpg",
        "gcpzoo predict --model runs/mine FOLDER --output out.csv --top 1",
        "gcpzoo predict --model runs/mine --data ImageFolder --data.root FOLDER",
    ),
    "probe": (
        "gcpzoo probe --model resnet18_isqrt.digits --data Digits --protocol knn",
        "gcpzoo probe --model runs/mine --data FOLDER --protocol few-shot --ways 5 --shots 1",
    ),
    "publish": ("gcpzoo publish runs/mine owner/name --licence apache-2.0 --dry-run",),
    "report": ("gcpzoo report runs/digits", "gcpzoo report runs/gap runs/isqrt --output report.html"),
    "search-hub": ("gcpzoo search-hub", "gcpzoo search-hub isqrt --author NAME"),
    "serve": (
        "gcpzoo serve --model resnet18_isqrt.cub50",
        "gcpzoo serve --model runs/mine --host 0.0.0.0 --port 80 --batch-size 32 --max-queue 256",
    ),
    "shard": ("gcpzoo shard FOLDER SHARDS --max-mb 256",),
    "sweep": ("gcpzoo sweep configs/sweep/digits.yaml --jobs 2", "gcpzoo sweep configs/sweep/digits.yaml --list"),
    "verify": ("gcpzoo verify resnet18_isqrt.digits", "gcpzoo verify runs/mine --data FOLDER"),
}
"""What to type, for each command; tests parse every line."""
OPTIONS = (
    ("fit", "FOLDER", "class folders of one's own: everything that is not given is chosen for them, with reasons"),
    ("fit", "--from MODEL", "with FOLDER: the model, run or file of weights to begin with"),
    ("fit", "--compare", "with FOLDER: train covariance pooling and average pooling, and say which to keep"),
    ("fit", "--folds N", "with FOLDER: train N times, each time with another share held out"),
    ("fit", "--balanced", "weigh the loss so that every class counts alike"),
    ("fit", "--best", "keep the epoch that is best on the validation images; else the final one"),
    ("fit", "--config FILE", "options to begin with: a file of one's own or of the package"),
    ("", "--output DIR", "folder of the run (runs/NAME)"),
    ("fit", "--resume", "go on with the stopped run in --output"),
    ("test", "--model NAME", "a model of the zoo, hf-hub:owner/repo, a folder, a run or its .ckpt"),
    ("", "--data CLASS", "ImageFolder, CUB200, FGVCAircraft, StanfordCars, ImageNet, Digits or a class of one's own"),
    ("", "--data.root FOLDER", "where the images are"),
    ("", "--data.image_size N", "side of the images in pixels"),
    ("", "--data.batch_size N", "images in a batch"),
    ("", "--data.workers N", "processes that read images"),
    ("fit", "--data.val_fraction X", "share of the training images to hold out for validation"),
    ("", "--skip-corrupt", "leave out images that cannot be read"),
    ("fit", "--model.backbone NAME", "see gcpzoo list --backbones; timm:NAME for one of timm's"),
    ("fit", "--model.head NAME", "see gcpzoo list --heads; gap is the control"),
    ("fit", "--model.fusion KIND", "sum: add the logits of average pooling"),
    ("fit", "--model.backbone_weights FILE", "begin with a backbone's weights in a file"),
    ("fit", "--model.optimizer.lr X", "learning rate of the backbone"),
    ("fit", "--model.optimizer.classifier_lr_factor X", "the classifier's rate, as a multiple of it"),
    ("fit", "--trainer.max_epochs N", "epochs to train"),
    ("fit", "--trainer.precision KIND", "32-true, bf16-mixed or 16-mixed"),
    ("", "--seed_everything N", "seed of weights, order and augmentation (0)"),
)  # fmt: skip
"""Command that the option belongs to (empty: all), how it is written, what it does."""


def add_examples(command: str, parser: argparse.ArgumentParser) -> None:
    """Put the examples of a command behind the options on its help page.

    >>> parser = argparse.ArgumentParser(epilog="See docs/data.md.")
    >>> add_examples("shard", parser)
    >>> print(parser.epilog)
    examples:
      gcpzoo shard FOLDER SHARDS --max-mb 256
    <BLANKLINE>
    See docs/data.md.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(parser.description or "", 78)
    lines = "\n".join(f"  {example}" for example in EXAMPLES[command])
    parser.epilog = f"examples:\n{lines}\n\n{textwrap.fill(parser.epilog or '', 78)}".rstrip()


def short_help(command: str, text: str) -> str:
    """Write the short help page of a command of the trainer.

    >>> print(short_help("test", "evaluate on the test split"))
    usage: gcpzoo test [options]
    ...
    """
    rows = trainer_options(command)
    column = max(len(option) for option, _ in rows) + 4
    width = max(shutil.get_terminal_size((80, 24)).columns, column + 40)
    lines = [f"usage: gcpzoo {command} [options]", "", f"{text[0].upper()}{text[1:]}.", "", "examples:"]
    lines += [f"  {example}" for example in EXAMPLES[command]]
    lines += ["", "options, of which --help-all shows all:"]
    for option, what in rows:
        lines += textwrap.wrap(what, width, initial_indent=f"  {option}".ljust(column), subsequent_indent=" " * column)
    return "\n".join([*lines, "", "See docs/training.md."])


def trainer_options(command: str) -> list[tuple[str, str]]:
    """Return how the options that most runs need are written, and what each does.

    >>> ("--output DIR", "folder of the run (runs/NAME)") in trainer_options("fit")
    True
    """
    return [(option, what) for owner, option, what in OPTIONS if _belongs(owner, command)]


def _belongs(owner: str, command: str) -> bool:
    return owner in ("", command) or (owner == "test" and command == "validate")
