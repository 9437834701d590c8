"""Load gcpzoo serve on the loopback with 1, 8 and 32 clients, and compare every answer with the bare model's.

    python benchmarks/serve.py [--requests 10000] [--clients 1 8 32] [--threads 1] [--batch-size 16] [--max-wait-ms 5]

The server runs resnet18_isqrt.digits in a process of its own. The clients, in another process, share the requests: each
sends the next PNG of 32×32 px out of the 360 test digits to ``POST /predict`` as soon as it has its last answer, over
one connection that stays open. The requests are divided equally among the numbers of clients.

``p50_ms``, ``p99_ms``: from the first byte sent to the last received; ``batch``: images in a batch, on average;
``lost``: requests without an answer; ``different``: answers whose likeliest class is not the bare model's, or one of
whose five probabilities is off by more than 0.0002 (they are rounded to four digits, and batches round differently);
``mb_10``, ``mb_50``, ``mb_100``: memory of the server (``VmRSS``) after that share, in per cent, of the row's requests.
Writes results/serve.csv.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "serve.csv"
MODEL, TOP, TOLERANCE = "resnet18_isqrt.digits", 5, 2e-4
SHARES = (10, 50, 100)
Image = tuple[bytes, dict[str, float], str]
"""A file, the probability of each class by the bare model, and the likeliest class."""


def images() -> list[Image]:
    import torch

    import gcpzoo
    from gcpzoo.data import Digits

    model, data, found = gcpzoo.load(MODEL), Digits(), []
    read = data.reader(train=False)
    for image, _ in data.index().splits["test"]:
        digit = read(image).resize((32, 32))
        file = io.BytesIO()
        digit.save(file, "png")
        with torch.inference_mode():
            p = model(model.transform(digit)[None]).softmax(1)[0]
        found.append((file.getvalue(), dict(zip(model.class_names, p.tolist())), model.class_names[int(p.argmax())]))
    return found


def same(answer: Any, expected: dict[str, float], likeliest: str) -> bool:
    classes = answer["images"][0]["classes"]
    near = all(abs(c["probability"] - expected[c["class"]]) <= TOLERANCE for c in classes)
    ties = expected[likeliest] - expected[classes[0]["class"]] <= TOLERANCE
    return near and ties and len(classes) == TOP


def megabytes(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6


class Connection:
    """HTTP/1.1 over one connection: as little as a client can do."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        """The JSON of an answer 200; anything else is an error."""
        if not hasattr(self, "writer"):
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        content = json.loads(await self.reader.readexactly(length))
        if status.split()[1] != "200":
            raise OSError(f"{status}: {content}")
        return content


class Load:
    """Requests of several clients, and what became of them."""

    def __init__(self, server: int, port: int, requests: int, files: list[Image]) -> None:
        self.server, self.port, self.requests, self.files = server, port, requests, files
        self.milliseconds: list[float] = []
        self.lost = self.different = 0
        self.memory: dict[int, float] = {}

    async def client(self, numbers: Iterator[int]) -> None:
        connection = Connection(self.port)
        for i in numbers:
            data, expected, likeliest = self.files[i % len(self.files)]
            start = time.perf_counter()
            try:
                answer = await connection.ask("POST", f"/predict?top={TOP}", data)
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                print(f"lost: {error}", file=sys.stderr)
                self.lost += 1
                connection = Connection(self.port)
                continue
            self.milliseconds.append(1000 * (time.perf_counter() - start))
            self.different += not same(answer, expected, likeliest)
            done = len(self.milliseconds) + self.lost
            for share in SHARES:
                if done * 100 >= share * self.requests and share not in self.memory:
                    self.memory[share] = megabytes(self.server)

    async def run(self, clients: int) -> dict[str, object]:
        health = Connection(self.port)
        before = await health.ask("GET", "/health")
        start = time.perf_counter()
        numbers = iter(range(self.requests))
        await asyncio.gather(*(self.client(numbers) for _ in range(clients)))
        seconds = time.perf_counter() - start
        after = await Connection(self.port).ask("GET", "/health")
        answered, batches = (after[key] - before[key] for key in ("answered", "batches"))
        marks = statistics.quantiles(self.milliseconds, n=100, method="inclusive")
        return {
            "clients": clients, "requests": self.requests, "seconds": round(seconds, 1),
            "requests_s": round(len(self.milliseconds) / seconds, 1), "p50_ms": round(marks[49], 1),
            "p99_ms": round(marks[98], 1), "batch": round(answered / max(1, batches), 1), "lost": self.lost,
            "different": self.different, **{f"mb_{share}": round(self.memory.get(share, 0)) for share in SHARES},
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-wait-ms", type=float, default=5)
    parser.add_argument("--dry", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    shares = [args.requests // len(args.clients)] * len(args.clients)
    shares[-1] += args.requests - sum(shares)
    files, rows = images(), []
    options = ["--port", "0", *itertools.chain.from_iterable(
        (f"--{name.replace('_', '-')}", str(getattr(args, name))) for name in ("threads", "batch_size", "max_wait_ms")
    )]  # fmt: skip
    command = [sys.executable, "-m", "gcpzoo", "serve", "--model", MODEL, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            port = int(server.stdout.readline().rpartition(":")[2])
            for clients, requests in zip(args.clients, shares):
                rows.append(asyncio.run(Load(server.pid, port, requests, files).run(clients)))
                print(*rows[-1].values(), flush=True)
        finally:
            server.terminate()
    for row in rows:
        row |= {"threads": args.threads, "load": f"{Path('/proc/loadavg').read_text().split()[0]}"}
    if not args.dry:
        with RESULTS.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    if any(row["lost"] or row["different"] for row in rows):
        sys.exit("answers were lost or differ")


if __name__ == "__main__":
    main()
