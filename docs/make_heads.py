"""Write docs/heads.md from the docstrings of the heads and the measurements in docs/heads.json.

python docs/make_heads.py             # from the docstrings and the last measurements
python docs/make_heads.py --measure   # measure first, about two minutes
"""

from __future__ import annotations

import argparse
import inspect
import json
import platform
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from gcpzoo import blocks, heads
from gcpzoo.functional import ROOTS, matrix_power, square_root
from gcpzoo.heads.base import Head, RootHead, SecondOrderHead
from gcpzoo.heads.reduction import Reduction
from gcpzoo.heads.registry import REGISTRY as HEADS
from gcpzoo.heads.registry import head_arguments
from gcpzoo.models.complexity import multiply_adds, parameters

HERE = Path(__file__).parent
CHANNELS, POSITIONS, BATCH = 256, (7, 14, 28), 4
MODULES = (
    "gap", "bcnn", "improved_bcnn", "cbp", "mpn_cov", "isqrt", "svd", "mpa_lya", "seb", "riemannian", "dropcov",
    "gaussian", "mgcrp", "moment_probing", "bdc", "inverse_covariance", "smso", "power_normalization", "democratic",
    "tcp",
)  # fmt: skip
BLOCKS = {
    "gsop": (blocks.insert_gsop, blocks.GSoP),
    "kalman_norm": (blocks.insert_kalman_norm, blocks.KalmanNorm),
    "psrp": (blocks.insert_psrp, blocks.PSRP),
    "zca_whitening": (blocks.insert_zca_whitening, blocks.ZCAWhitening),
}
INTRODUCTION = """# Heads

A head turns a feature map (B, C, h, w) into the vector that the classifier sees. All second-order heads share one
frame: an optional reduction of C to d channels, the data matrix X (d×M, M = h·w positions), its covariance
Σ = X_c X_cᵀ/M, a function of Σ, and the upper triangle `tri` of the result, row by row, d(d+1)/2 numbers.

```python
head = gcpzoo.heads.create_head("isqrt", in_features=2048, dim=256, iterations=5)   # alone
model = gcpzoo.create_model("resnet50", head="isqrt", dim=256, head_args={"iterations": 5})
head(tokens, tokens=True)      # (B, N, C), without a class token
head(x, weights=w)             # (B, M), how much each position counts; 0: masked, whatever it holds
head(volume.flatten(2))        # sequences and volumes: flattened to (B, C, M) before
```

On a CPU the command line spreads the eigendecompositions of a batch over threads, with the same result;
`GCPZOO_SHARE_THREADS=0` in the environment leaves them to PyTorch alone. In a program of your own
`gcpzoo.functional.share_threads(True)` turns it on ([when other programs use the cores](platforms.md#busy-machines)).
"""


def features(batch: int, channels: int, side: int) -> torch.Tensor:
    """Correlated features after a ReLU, with a decaying spectrum as in trained networks."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(channels, channels, generator=g) * torch.arange(1, channels + 1) ** -0.5
    x = mix @ torch.randn(batch, channels, side * side, generator=g)
    return x.relu().reshape(batch, channels, side, side)


def milliseconds(head: torch.nn.Module, side: int) -> float:
    """Processor time of one forward and backward pass for one map: the median of five passes over a batch."""
    x = features(BATCH, CHANNELS, side).requires_grad_()
    times = []
    for _ in range(6):
        start = time.process_time()
        head(x).sum().backward()
        times.append(time.process_time() - start)
    return statistics.median(times[1:]) / BATCH * 1e3


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    table, roots = {}, {}
    for name in HEADS:
        head = heads.create_head(name, in_features=CHANNELS)
        table[name] = {
            "out_features": head.out_features,
            "parameters": parameters(head),
            "multiply_adds": [multiply_adds(head, 1, CHANNELS, s, s) for s in POSITIONS],
            "milliseconds": [milliseconds(head, s) for s in POSITIONS],
        }
        print(name, table[name])
    for root in ROOTS:
        distances = []
        for side in POSITIONS:
            x = features(BATCH, CHANNELS, side).double()
            exact = matrix_power(x)
            distances.append(float((square_root(x, root) - exact).norm() / exact.norm()))
        roots[root] = distances
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())  # fmt: skip
    return {"hardware": f"{cpu}, one thread, torch {torch.__version__.split('+')[0]}", "heads": table, "roots": roots}


def roles(text: str) -> str:
    """Convert formulas, roles, literals and examples of our docstrings to Markdown."""
    text = text.replace("``", "`")
    text = re.sub(
        r"\.\. math::((?:.|\n)*?)(?=\n\n|\Z)",
        lambda m: "```math\n" + "\n".join(line.strip() for line in m[1].strip().splitlines()) + "\n```",
        text,
    )
    text = re.sub(r":math:`([^`]*)`", lambda m: f"$`{m[1]}`$", text)
    text = re.sub(r":(?:func|class|meth|data|mod):`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return re.sub(r"^>>> (?:.+\n?)+", lambda m: f"```python\n{m[0].rstrip()}\n```\n", text, flags=re.M)


def markdown(text: str) -> str:
    """Convert the few constructs of our docstrings to Markdown."""
    text = roles(inspect.cleandoc(text))
    text = re.sub(r"\n(Returns|Raises):\n(    .*\n?)*", "", text)
    text = re.sub(r"\n(?:Args|Attributes):\n((?:    .*\n?|\n(?=    ))*)", arguments, text)
    return re.sub(
        r"^(When to use|Released code|Source): (.)", lambda m: f"**{m[1]}.** {m[2].upper()}", text, flags=re.M
    ).strip()


def arguments(match: re.Match[str]) -> str:
    """Convert the ``Args:`` section to a list."""
    body = re.sub(r"\n {8,}", " ", "\n" + match[1])
    return "\n" + re.sub(r"\n {4}([\w, ]+): ", r"\n- `\1`: ", body).lstrip("\n")


def classes(module: ModuleType) -> Iterator[type[Head]]:
    """Yield the heads of a file and the bases they share there, in its order."""
    for cls in vars(module).values():
        if isinstance(cls, type) and issubclass(cls, Head) and cls.__module__ == module.__name__:
            yield cls


def defaults(name: str) -> str:
    return ", ".join(f"`{k}={v!r}`" for k, v in head_arguments(name).items())


def page(results: dict[str, Any]) -> str:
    table, sides = results["heads"], [f"{s}×{s}" for s in POSITIONS]
    lines = [INTRODUCTION, "## At a glance\n"]
    lines.append(
        f"For d = {CHANNELS} channels without reduction. Multiply-adds of the forward pass, and processor\n"
        f"milliseconds of a forward and backward pass in float32, for one map of {', '.join(sides)} positions\n"
        f"({results['hardware']}). Written by `python docs/make_heads.py --measure`.\n"
    )
    lines.append("| head | output | parameters | 10⁶ multiply-adds | ms |\n|---|---:|---:|---:|---:|")
    for name in sorted(HEADS):
        row = table[name]
        counts = " / ".join(f"{n / 1e6:.1f}" for n in row["multiply_adds"])
        times = " / ".join(f"{t:.1f}" for t in row["milliseconds"])
        lines.append(f"| [{name}](#{name}) | {row['out_features']:,} | {row['parameters']:,} | {counts} | {times} |")
    lines.append(
        "\n## How far each root is from the exact one\n\n‖R − Σ^½‖ / ‖Σ^½‖ in float64 for features with a decaying\n"
        f"spectrum, d = {CHANNELS}; `isqrt` with 5 steps, `minimax` with 4. Any head that takes a root can take each\n"
        "of these (`root=`) and exchange it at run time (`head.switch_root`). On a GPU, under `torch.compile` and in\n"
        "ONNX an eigendecomposition is slow or missing: `head.switch_root('minimax')` before the export takes the\n"
        "place of the exact root of `mpn_cov` and the `svd_` heads. On a CPU the exact root costs the same.\n"
    )
    lines.append(f"| root | {' | '.join(sides)} |\n|---|{'---:|' * len(sides)}")
    for root, distances in results["roots"].items():
        lines.append(f"| {root} | {' | '.join(f'{d:.1e}' for d in distances)} |")
    lines.append("\n## Arguments that heads share")
    lines += [
        f"\n### {cls.__name__}\n\n{markdown(cls.__doc__ or '')}" for cls in (Reduction, SecondOrderHead, RootHead)
    ]
    for name in MODULES:
        module = getattr(heads, name)
        lines.append(f"\n## {module.__doc__.strip().rstrip('.')}")
        for cls in classes(module):
            if cls in HEADS.values():
                lines.append(f"\n### {cls.name}\n\n{markdown(cls.__doc__ or '')}\n\n**Defaults.** {defaults(cls.name)}")
            else:
                lines.append(f"\n{markdown(cls.__doc__ or '')}")
    lines.append("\n## Blocks inside the network")
    for name, parts in BLOCKS.items():
        lines.append(f"\n### {name}\n\n" + "\n\n".join(markdown(part.__doc__ or "") for part in parts))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure costs and accuracies again")
    if parser.parse_args().measure:
        (HERE / "heads.json").write_text(json.dumps(measure(), indent=1) + "\n")
    results = json.loads((HERE / "heads.json").read_text())
    if missing := set(HEADS) - set(results["heads"]):
        parser.exit(1, f"not measured yet: {', '.join(sorted(missing))}; run python docs/make_heads.py --measure\n")
    (HERE / "heads.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
