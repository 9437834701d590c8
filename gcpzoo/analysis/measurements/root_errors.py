"""How far each square root of a covariance, and its gradient, is from the exact one, in each precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from gcpzoo.analysis.drawing.style import TEXT, add_legend, new_figure, plain, series
from gcpzoo.analysis.measurements.subject import Measurement, Row, Subject
from gcpzoo.analysis.spectrum import pooled_features
from gcpzoo.functional import as_matrix, lyapunov_sqrt, matrix_power
from gcpzoo.functional.covariance import centered, covariance
from gcpzoo.functional.minimax import COEFFICIENTS, PolarRoot
from gcpzoo.functional.newton_schulz import NewtonSchulz
from gcpzoo.functional.roots import SVD_ROOTS
from gcpzoo.functional.surrogates import svd_sqrt

Root = Callable[[Tensor], Tensor]
IMAGES = 16
PRECISIONS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
PART = 4
"""Samples at a time."""
LACKING = ("not implemented for", "Low precision dtypes not supported")
"""Parts of PyTorch's messages about an operation that a precision lacks."""


def _newton_schulz(x: Tensor, steps: int) -> Tensor:
    root: Tensor = NewtonSchulz.apply(x, steps, True)
    return root


def _minimax(x: Tensor, steps: int) -> Tensor:
    root: Tensor = PolarRoot.apply(x, COEFFICIENTS[steps], True)
    return root


def _autograd_eigh(x: Tensor) -> Tensor:
    """The covariance, ``torch.linalg.eigh`` and PyTorch's own gradient of it, all in the precision of the features."""
    w, u = torch.linalg.eigh(covariance(x))
    return (u * w.clamp_min(torch.finfo(x.dtype).tiny).sqrt()[:, None]) @ u.mT


METHODS: dict[str, Root] = {
    **{f"isqrt {n}": partial(_newton_schulz, steps=n) for n in (3, 5, 7, 10)},
    **{f"minimax {n}": partial(_minimax, steps=n) for n in COEFFICIENTS},
    "mpa_lya": lyapunov_sqrt,
    "mtp_lya": partial(lyapunov_sqrt, taylor=True),
    "exact": matrix_power,
    **{name: partial(svd_sqrt, backward=name.removeprefix("svd_")) for name in SVD_ROOTS},
    "autograd eigh": _autograd_eigh,
}
"""All roots by name, with their steps. Those of products take the way that they take on a GPU, in the features' dtype;
``exact`` and ``svd_`` decompose in float64, whatever the features are, as the heads do; ``autograd eigh`` is what one
gets without any of them."""


def exact_root(x: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    r"""Square root of the covariance of ``x`` and its gradient, in float64 by the SVD of the features.

    With :math:`X_c = U\operatorname{diag}(\sqrt M a)V^\top` the root is :math:`U\operatorname{diag}(a)U^\top`. For the
    symmetrized cotangent G the gradient in :math:`\Sigma` is S of the Sylvester equation
    :math:`\sqrt\Sigma S + S\sqrt\Sigma = G`, and in X it is :math:`\tfrac2M SX_c`, in the basis of U

    .. math:: \tfrac{2}{\sqrt M}\Bigl(U\bigl(U^\top GU\circ\tfrac{a_j}{a_i+a_j}\bigr) + (I-UU^\top)GU\Bigr)V^\top,

    which stays finite where :math:`\Sigma` is singular. No square of the features is decomposed, so that small
    eigenvalues keep their digits. Directions with :math:`a_j` of the size of rounding count as none.

    Args:
        x: features ``(B, d, M)``.
        cotangent: ``(B, d, d)``.

    Returns:
        ``(B, d, d)`` and ``(B, d, M)`` in float64.

    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> root, gradient = exact_root(x, torch.eye(2)[None])  # of the trace of the root
    >>> root.round(decimals=9)[0].diagonal(), gradient.round(decimals=9)[0, 0]
    (tensor([3., 1.], dtype=torch.float64), tensor([ 0.2500, -0.2500,  0.2500, -0.2500], dtype=torch.float64))
    """
    y = centered(x.double())
    m = y.shape[2]
    u, s, vt = torch.linalg.svd(y, full_matrices=False)
    kept = s > torch.finfo(s.dtype).eps * max(y.shape[1:]) * s[:, :1]
    a = torch.where(kept, s, 0) / m**0.5
    g = (cotangent + cotangent.mT).double() / 2
    gu = g @ u
    inside = u.mT @ gu
    share = torch.where(kept[:, None], a[:, None] / (a[:, :, None] + a[:, None]), 0)
    share = torch.where(kept[:, None] & ~kept[:, :, None], 1, share)
    columns = u @ (inside * share) + (gu - u @ inside) * kept[:, None]
    return (u * a[:, None]) @ u.mT, columns @ vt * (2 / m**0.5)


def apply_root(root: Root, x: Tensor, dtype: torch.dtype, cotangent: Tensor | None = None) -> list[Tensor] | None:
    """Compute a root, and its vector-Jacobian product, from features and a cotangent rounded to a precision.

    Args:
        root: features ``(B, d, M)`` to ``(B, d, d)``.
        x: features ``(B, d, M)``.
        dtype: the precision.
        cotangent: ``(B, d, d)``; ``None``: the root alone.

    Returns:
        The root and, with a cotangent, the product, in float64; not finite where they overflowed or a decomposition
        failed. ``None`` if PyTorch lacks an operation in this precision.

    >>> x, g = torch.tensor([[[2.0, -2.0]]]), torch.ones(1, 1, 1)
    >>> apply_root(METHODS["isqrt 5"], x, torch.bfloat16, g)
    [tensor([[[2.]]], dtype=torch.float64), tensor([[[ 0.5000, -0.5000]]], dtype=torch.float64)]
    """
    parts = []
    for i in range(0, len(x), PART):
        features = x[i : i + PART].detach().to(dtype).requires_grad_(cotangent is not None)
        g = None if cotangent is None else cotangent[i : i + PART].to(dtype)
        try:
            with torch.set_grad_enabled(g is not None):
                out = root(features)
            parts.append([out.detach()] if g is None else [out.detach(), *torch.autograd.grad(out, features, g)])
        except torch.linalg.LinAlgError:
            failed = [
                features.new_full((len(features), *2 * x.shape[1:2]), torch.nan),
                torch.full_like(features, torch.nan),
            ]
            parts.append([value.detach() for value in failed[: 1 if g is None else 2]])
        except (NotImplementedError, RuntimeError) as error:
            if isinstance(error, NotImplementedError) or any(text in str(error) for text in LACKING):
                return None
            raise
    return [torch.cat(values).double() for values in zip(*parts)]


def relative_errors(found: Tensor, exact: Tensor) -> Tensor:
    r"""Relative distances :math:`\lVert A-B\rVert_F/\lVert B\rVert_F` of the matrices of two batches, in float64.

    Returns:
        ``(B,)``; infinite where ``found`` is not finite, or is not zero where the exact matrix is.

    >>> relative_errors(torch.tensor([[[1.1]], [[torch.nan]]]), torch.ones(2, 1, 1)).round(decimals=3)
    tensor([0.1000,    inf], dtype=torch.float64)
    """
    found, exact = found.double(), exact.double()
    distance = torch.linalg.matrix_norm(found - exact)
    distance = torch.where(distance.isnan(), torch.inf, distance)
    return torch.where(distance == 0, 0, distance / torch.linalg.matrix_norm(exact))


def root_errors(x: Tensor, seed: int = 0, methods: Mapping[str, Root] = METHODS) -> list[Row]:
    """Measure every root in every precision.

    Args:
        x: features ``(B, d, M)`` in float32, which the exact root is of: rounding them to 16 bits is part of the error.
        seed: of the cotangents, normally distributed.
        methods: name → root.

    Returns:
        For each root and precision medians over the samples: ``forward`` and ``gradient``, the distances to
        :func:`exact_root`; ``forward_rounding`` and ``gradient_rounding``, to the same method in float64; ``cosine`` of
        the gradient and the exact one; ``overflow``, the number of samples whose root or gradient is not finite, and
        ``status``: ``ok``, ``overflow`` or ``not available``.

    >>> x = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    >>> rows = root_errors(x, methods={"exact": METHODS["exact"]})
    >>> [(row["precision"], row["forward"] < 1e-6) for row in rows[:2]]
    [('float64', True), ('float32', True)]
    """
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(len(x), x.shape[1], x.shape[1], generator=generator)
    exact = exact_root(x, g)
    rows = []
    for name, root in methods.items():
        own = None
        for dtype in PRECISIONS:
            row: Row = {"root": name, "precision": str(dtype).removeprefix("torch."), "samples": len(x)}
            found = apply_root(root, x, dtype, g)
            own = found if own is None else own
            rows.append(row | _compare(found, own, exact))
    return rows


COLUMNS = ("forward", "gradient", "forward_rounding", "gradient_rounding", "cosine")


def _compare(found: list[Tensor] | None, own: Any, exact: tuple[Tensor, Tensor]) -> Row:
    """Compare a root and a gradient with the exact ones and with those of the same method in float64."""
    if found is None:
        return {"status": "not available", "overflow": None, **dict.fromkeys(COLUMNS)}
    finite = torch.stack([part.flatten(1).isfinite().all(1) for part in found]).all(0)
    overflow = int((~finite).sum())
    cosine = torch.cosine_similarity(found[1].flatten(1), exact[1].flatten(1)).nan_to_num(0)
    values = [relative_errors(a, b) for ab in (zip(found, exact), zip(found, own)) for a, b in ab]
    medians = [median(v.tolist()) for v in (*values, cosine)]
    return {"status": "overflow" if overflow else "ok", "overflow": overflow, **dict(zip(COLUMNS, medians))}


@torch.no_grad()
def reduced_features(model: Any, images: Tensor) -> Tensor:
    """Compute the features that a network's head takes the covariance of, each group of channels for itself.

    Args:
        model: a :class:`gcpzoo.models.GCPNet` in eval mode.
        images: preprocessed images ``(B, 3, H, W)``.

    Returns:
        ``(B·groups, d/groups, M)`` in float32.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "isqrt", 2, dim=8, until="layer1").eval()
    >>> reduced_features(model, torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 8, 64])
    """
    x = as_matrix(model.head.reduction(pooled_features(model, images))).float()
    groups = getattr(model.head, "cov_groups", 1)
    return x.reshape(len(x) * groups, x.shape[1] // groups, x.shape[2])


def _run(subject: Subject) -> list[Row]:
    rows: list[Row] = []
    for name, model in subject.networks():
        batches = subject.batches("test", subject.images or IMAGES)
        x = torch.cat([reduced_features(model, images) for images, _ in batches])
        about = {"model": name, "channels": x.shape[1], "positions": x.shape[2]}
        rows += [about | row for row in root_errors(x, subject.seed)]
    return rows


def _draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    labels = list(dict.fromkeys((row["model"], row["root"]) for row in rows))
    several = len({name for name, _ in labels}) > 1
    figure, axes = new_figure(9.5, 1.2 + 0.24 * len(labels), 2)
    for axis, key in zip(axes, ("forward", "gradient")):
        lost: dict[int, list[str]] = {}
        for i, precision in enumerate(dict.fromkeys(row["precision"] for row in rows)):
            points: list[tuple[float, int]] = []
            for row in (r for r in rows if r["precision"] == precision and r[key] is not None):
                place = labels.index((row["model"], row["root"]))
                if math.isfinite(row[key]):
                    points.append((max(row[key], 1e-17), -place))
                else:
                    lost.setdefault(place, []).append(precision)
            look = {**series(i), "linestyle": "none", "markersize": 5}
            axis.plot([x for x, _ in points], [y for _, y in points], label=precision, **look)
        for place, names in lost.items():
            text = f"overflow: {', '.join(names)}"
            axis.text(1.01, -place, text, transform=axis.get_yaxis_transform(), fontsize=7, ha="left", va="center")
        axis.set_xscale("log")
        axis.set_yticks([-i for i in range(len(labels))], [plain(f"{m}: {r}" if several else r) for m, r in labels])
        axis.set(xlabel=f"relative error of the {'root' if key == 'forward' else 'gradient'}, median")
        axis.grid(color=TEXT, alpha=0.15)
    axes[1].set_yticklabels([])
    add_legend(axes[0])
    return figure


ROOTS = Measurement(
    "roots",
    _run,
    _draw,
    "Distance of every root of the covariance, and of its gradient, from the exact one in float64, on the network's "
    "features. Topic of Song et al., ICCV 2021 (which gradient of the accurate root), and ICLR 2022 (errors of the "
    "Padé and Taylor roots)",
)
