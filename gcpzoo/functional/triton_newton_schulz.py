"""The Newton–Schulz chain as one Triton kernel: one program per matrix, no matrix leaves the chip between the steps.

It is off by default. ``GCPZOO_TRITON=bf16x3`` (or ``tf32x3``, ``tf32``: the arithmetic of the products) uses it on a
CUDA device for float32 matrices of at most :data:`LIMITS` rows; everything else takes the PyTorch products. The kernel
is checked in Triton's interpreter and compiled for compute capability 9.0 (``benchmarks/triton_compile.py``): larger
matrices run out of registers or shared memory, and ``ieee`` products take minutes to compile, so neither is offered. It
has NOT been run on a GPU: its speed is not measured.

``tf32x3`` and ``bf16x3`` (Markidis et al., IPDPSW 2018) sum three products of factors split into two short numbers.
Relative error of the derivative after 5 steps, 49 to 256 rows, with each product imitated in PyTorch, its factors
rounded to the nearest (or cut off as tensor cores do): ``ieee`` 5e-7; ``tf32x3`` 5e-7 (1e-6); ``bf16x3`` 1e-5 (1e-4);
``tf32`` 7e-4 (3e-3). In the interpreter, which cuts bfloat16 off, ``bf16x3`` has 7e-5 to 1e-4.

``benchmarks/triton_newton_schulz.py`` checks and times every variant on a machine with CUDA.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from gcpzoo.functional.precision import triton_precision

LIMITS = {"bf16x3": 128, "tf32x3": 64, "tf32": 64}
"""Most rows for which value with derivative compiles to something that can be launched."""
LIMIT = 256
"""Most rows that :func:`iterate` takes at all."""
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]  # Triton's pointers and blocks have no types
    """AB in float32; ``bf16x3`` splits both factors into two bfloat16 numbers and omits the rests' product."""
    if PRECISION == "bf16x3":
        high_a, high_b = a.to(tl.bfloat16), b.to(tl.bfloat16)
        rest_a = (a - high_a.to(tl.float32)).to(tl.bfloat16)
        rest_b = (b - high_b.to(tl.float32)).to(tl.bfloat16)
        if INTERPRETED:  # its dot mistakes bfloat16 for integers; as float32 the products are exactly the same
            high_a, rest_a = high_a.to(tl.float32), rest_a.to(tl.float32)
            high_b, rest_b = high_b.to(tl.float32), rest_b.to(tl.float32)
        return tl.dot(high_a, high_b, acc=tl.dot(high_a, rest_b, acc=tl.dot(rest_a, high_b)))
    else:
        return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _chain(  # type: ignore[no-untyped-def]  # as above
    a_ptr,
    da_ptr,
    p_ptr,
    dp_ptr,
    n,
    ITERATIONS: tl.constexpr,
    DIVIDED: tl.constexpr,
    DERIVATIVE: tl.constexpr,
    SIZE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i = tl.arange(0, SIZE)[:, None]
    j = tl.arange(0, SIZE)[None, :]
    inside = (i < n) & (j < n)
    at = tl.program_id(0).to(tl.int64) * n * n + i * n + j
    eye = tl.where(i == j, 1.5, 0.0)
    w = tl.load(a_ptr + at, mask=inside, other=0.0)
    p = w
    t = eye - 0.5 * w
    if DERIVATIVE:
        dw = tl.load(da_ptr + at, mask=inside, other=0.0)
        dp = dw
    for k in tl.static_range(ITERATIONS):
        t = eye - 0.5 * w
        if k == 0 and DIVIDED:
            if DERIVATIVE:
                dp = -0.5 * dw
            p = t
        else:
            if DERIVATIVE:
                dp = _dot(dp, t, PRECISION) - 0.5 * _dot(p, dw, PRECISION)
            p = _dot(p, t, PRECISION)
        if k < ITERATIONS - 1:
            e = _dot(w, t, PRECISION)
            if DERIVATIVE:
                de = _dot(dw, t, PRECISION) - 0.5 * _dot(w, dw, PRECISION)
                dw = _dot(de, t, PRECISION) - 0.5 * _dot(e, dw, PRECISION)
            w = _dot(e, t, PRECISION)
    tl.store(p_ptr + at, p, mask=inside)
    if DERIVATIVE:
        tl.store(dp_ptr + at, dp, mask=inside)


def precision(a: Tensor) -> str | None:
    """The arithmetic that ``GCPZOO_TRITON`` asks for, where the kernel can take ``a``; else ``None``.

    >>> import torch
    >>> precision(torch.eye(4)[None]) is None  # not on a CPU
    True
    """
    chosen = triton_precision()
    fits = chosen is not None and a.dtype == torch.float32 and a.shape[1] <= LIMITS[chosen]
    return chosen if fits and a.is_cuda else None


def iterate(
    a: Tensor, iterations: int, divided: bool, da: Tensor | None = None, precision: str = "ieee"
) -> tuple[Tensor, Tensor | None]:
    """Newton–Schulz in product form as in :func:`gcpzoo.functional.newton_schulz.iterate`, in one kernel.

    Args:
        a: ``(B, n, n)``, float32, symmetric, n at most 256.
        iterations: number of steps.
        divided: give Z instead of Y = AZ.
        da: direction of the derivative, symmetric.
        precision: ``ieee``, ``tf32x3``, ``bf16x3`` or ``tf32``.

    Returns:
        The root, and its derivative where ``da`` is given.

    Raises:
        ValueError: more than 256 rows.

    >>> import torch
    >>> iterate(0.5 * torch.eye(2, device="cuda")[None], 5, divided=False)[0]  # doctest: +SKIP
    tensor([[[0.7071, 0.0000],
             [0.0000, 0.7071]]], device='cuda:0')
    """
    n = a.shape[1]
    if n > LIMIT:
        raise ValueError(f"the kernel takes matrices of at most {LIMIT} rows, got {n}")
    a = a.contiguous()
    da = None if da is None else da.contiguous()
    p = torch.empty_like(a)
    dp = None if da is None else torch.empty_like(a)
    size = max(16, triton.next_power_of_2(n))
    warps = 4 if size <= 64 else 8 if size == 128 else 16
    _chain[(a.shape[0],)](
        a, a if da is None else da, p, p if dp is None else dp, n, iterations, divided, da is not None, size, precision,
        num_warps=warps,
    )  # fmt: skip
    return p, dp
