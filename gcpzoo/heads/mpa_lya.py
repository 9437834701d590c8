"""Matrix Padé approximant and matrix Taylor polynomial with the Lyapunov gradient."""

from __future__ import annotations

from typing import ClassVar

from gcpzoo.heads.base import RootHead, register


@register("mpa_lya")
class MpaLya(RootHead):
    r"""MPA-Lya: the root by the [5/5] Padé approximant of √(1−z), the gradient by 8 steps of a Lyapunov solver.

    .. math:: \operatorname{tri}\bigl(\sqrt{\lVert\Sigma\rVert_F}\,Q(Z)^{-1}P(Z)\bigr),
              \qquad Z = I - \Sigma/\lVert\Sigma\rVert_F

    Output size d(d+1)/2. ``iterations`` has no effect but with another ``root``.

    Args:
        in_features, dim, root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`.

    When to use: with more positions than channels, where it is nearer to the root than five Newton–Schulz steps. Zero
    eigenvalues come out as 0.09 √‖Σ‖, which makes it worse with fewer.

    Released code: the inverse root normalizes its backward pass over the whole batch, so that samples mix.

    Source: Song et al., "Fast Differentiable Matrix Square Root", ICLR 2022.
    """

    default_root: ClassVar[str] = "mpa_lya"


@register("mtp_lya")
class MtpLya(RootHead):
    r"""MTP-Lya: as ``mpa_lya`` with the Taylor polynomial of degree 10, matrix products only.

    .. math:: \operatorname{tri}\Bigl(\sqrt{\lVert\Sigma\rVert_F}\sum_{k=0}^{10}\tbinom{1/2}{k}(-Z)^k\Bigr)

    Output size d(d+1)/2. ``iterations`` has no effect but with another ``root``.

    Args:
        in_features, dim, root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`.

    When to use: where ``mpa_lya``'s linear system is not to be had, as in ONNX; less accurate for small eigenvalues,
    zeros come out as 0.18 √‖Σ‖.

    Released code: the sum overwrites the identity matrix that the backward pass uses (gradient 99.7 % wrong); mended.

    Source: Song et al., "Fast Differentiable Matrix Square Root", ICLR 2022.
    """

    default_root: ClassVar[str] = "mtp_lya"
