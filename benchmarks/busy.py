"""Time heads and a training step on an idle machine and beside two programs that compute, with and without spinning.

    python benchmarks/busy.py [--rounds 15] [--repeats 3] [--threads 2] [--busy 2] [--case NAME …] [--setting NAME …]

OpenMP's threads spin while they wait for each other, which takes a core from the one they wait for when other programs
use the cores. ``none``: as PyTorch comes; ``spincount``: ``GOMP_SPINCOUNT=1000``; ``passive``:
``OMP_WAIT_POLICY=passive``; ``command``: what the command line sets, ``GOMP_SPINCOUNT=1000`` and
``GCPZOO_SHARE_THREADS=1``, which spreads the eigendecompositions of a batch over threads. The heads run forward and
backward, from features (32, 256, h, w) to the vector, without a reduction layer; the step is that of a ResNet-18 up to
layer3 with isqrt and 200 classes on 32 images of 64 px in memory, with SGD.

Every setting has a process of its own, new in each repeat. In each round the processes take turns, a turn is the median
of three runs, first idle, then beside the programs (``--busy`` loops). ``idle_ms`` and ``busy_ms``:
medians over the rounds; ``slowdown``: busy_ms of the setting / idle_ms of ``none``; ``idle_cost`` and ``busy_cost``:
median over the rounds of (time with the setting) / (time with ``none`` in the same round). On a machine that is not
alone, rounds are run until there are enough in which programs of others took less than a tenth of a core, at most four
times as many, and the quietest are used: ``idle_others`` and ``busy_others`` are the cores that others took in these.
Writes results/busy.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "busy.csv"
OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GCPZOO_SHARE_THREADS")
SPINCOUNT = {"GOMP_SPINCOUNT": "1000"}
SETTINGS = {
    "none": {},
    "spincount": SPINCOUNT,
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "command": SPINCOUNT | {"GCPZOO_SHARE_THREADS": "1"},
}
BATCH, CHANNELS, RUNS = 32, 256, 3
CASES = ("isqrt 7", "isqrt 14", "mpn_cov 14", "step")
LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(10**6): pass"
QUIET, PATIENCE = 0.1, 4
TICKS = os.sysconf("SC_CLK_TCK")
Turn = dict[str, float]


def head(name: str, side: int) -> Callable[[], None]:
    """Forward and backward of a head from features that need a gradient."""
    import torch

    from gcpzoo.heads import create_head

    module = create_head(name, CHANNELS, dim=None).train()
    x = torch.randn(BATCH, CHANNELS, side, side).relu_().requires_grad_()
    cotangent = torch.randn(BATCH, module.out_features)

    def run() -> None:
        x.grad = None
        module(x).backward(cotangent)

    return run


def small_step() -> Callable[[], None]:
    import torch

    import gcpzoo
    from gcpzoo.analysis.speed import training_step
    from gcpzoo.training import OptimizerConfig

    model = gcpzoo.create_model("resnet18", "isqrt", 200, until="layer3")
    optimizer = OptimizerConfig("SGD", lr=1e-3, weight_decay=1e-4).create(model)
    return training_step(model, torch.randn(BATCH, 3, 64, 64), torch.randint(200, (BATCH,)), optimizer)


def serve(case: str, threads: int) -> None:
    """Run a case once for each line of stdin, and answer with milliseconds."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    name, _, side = case.partition(" ")
    run = head(name, int(side)) if side else small_step()
    for _ in range(3):
        run()  # the first call allocates
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        print(1e3 * statistics.median(seconds), flush=True)


@contextmanager
def started(command: Sequence[str], setting: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    inherited = {name: value for name, value in os.environ.items() if name not in OWN}
    process = subprocess.Popen(
        command, env=inherited | (setting or {}), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def milliseconds(process: subprocess.Popen[str]) -> float:
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def core_seconds(processes: Iterable[subprocess.Popen[str]]) -> tuple[float, float]:
    """Processor time that these processes have taken, and that the whole machine has, with what its host took away."""
    own = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        own += int(fields[11]) + int(fields[12])
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return own / TICKS, (user + nice + system + sum(rest)) / TICKS


def turns(asked: dict[str, subprocess.Popen[str]], others: list[subprocess.Popen[str]], rounds: int) -> list[Turn]:
    """Milliseconds of each setting in the quietest rounds, with the cores that programs of others took."""
    ours, found = [*asked.values(), *others], []
    for done in range(PATIENCE * rounds):
        if done >= rounds and sum(turn["others"] < QUIET for turn in found) >= rounds:
            break
        start, before = time.perf_counter(), core_seconds(ours)
        turn = {name: milliseconds(process) for name, process in asked.items()}
        after = core_seconds(ours)
        taken = (after[1] - before[1]) - (after[0] - before[0])
        found.append(turn | {"others": max(taken / (time.perf_counter() - start), 0.0)})
    return sorted(found, key=lambda turn: turn["others"])[:rounds]


def measure(case: str, args: argparse.Namespace) -> dict[str, list[Turn]]:
    """The rounds ``idle`` and ``busy`` of new processes."""
    command = [sys.executable, __file__, "--serve", case, "--threads", str(args.threads)]
    with ExitStack() as stack:
        asked = {name: stack.enter_context(started(command, SETTINGS[name])) for name in args.setting}
        for process in asked.values():
            assert process.stdout
            assert process.stdout.readline().strip() == "ready", f"{case} failed"
        idle = turns(asked, [], args.rounds)
        loops = [stack.enter_context(started([sys.executable, "-c", LOOP])) for _ in range(args.busy)]
        time.sleep(1)
        return {"idle": idle, "busy": turns(asked, loops, args.rounds)}


def row(case: str, name: str, found: dict[str, list[Turn]]) -> dict[str, object]:
    medians = {state: statistics.median(turn[name] for turn in rounds) for state, rounds in found.items()}
    unset = statistics.median(turn["none"] for turn in found["idle"])
    costs, others = {}, {}
    for state, rounds in found.items():
        costs[f"{state}_cost"] = round(statistics.median(turn[name] / turn["none"] for turn in rounds), 3)
        others[f"{state}_others"] = round(statistics.median(turn["others"] for turn in rounds), 2)
    return {
        "case": case, "setting": name, "idle_ms": round(medians["idle"], 1), "busy_ms": round(medians["busy"], 1),
        "slowdown": round(medians["busy"] / unset, 2), **costs, **others,
        "rounds": len(found["idle"]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=2)
    parser.add_argument("--case", nargs="+", default=CASES)
    parser.add_argument("--setting", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--dry", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.threads)
        return
    rows = []
    for case in args.case:
        found: dict[str, list[Turn]] = {"idle": [], "busy": []}
        for _ in range(args.repeats):
            for state, rounds in measure(case, args).items():
                found[state] += rounds
        rows += [row(case, name, found) for name in args.setting]
        for line in rows[-len(args.setting) :]:
            print(*line.values(), flush=True)
    if not args.dry:
        with RESULTS.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
