"""The eigendecomposition that the linear heads share: made once, it serves every strength."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Directions whose variance is below this share of the largest carry rounding alone.
NEGLIGIBLE = 1e-10


@dataclass(frozen=True)
class Spectrum:
    """Centred features X [N, D] seen along their principal directions, in double precision.

    Attributes:
        values: eigenvalues of X'X [R], those of directions without variance left out.
        basis: the directions [D, R], orthonormal.
        projected: X @ basis [N, R].
        unit: the mean eigenvalue, in which strengths are counted so that they mean the same for every N and D.
    """

    values: Tensor
    basis: Tensor
    projected: Tensor
    unit: float

    @classmethod
    def of(cls, x: Tensor) -> Spectrum:
        """Decompose the smaller of the two Gram matrices: X'X = V diag(e) V', or XX' = U diag(e) U' where N < D."""
        n, d = x.shape
        gram = x.T @ x if d <= n else x @ x.T
        unit = max(float(gram.trace()) / min(n, d), 1e-12)
        values, vectors = torch.linalg.eigh(gram)
        kept = values > values[-1] * NEGLIGIBLE
        values, vectors = values[kept], vectors[:, kept]
        if d <= n:
            return cls(values, vectors, x @ vectors, unit)
        # Right singular vectors are X'U / sqrt(e), and X V = U sqrt(e).
        root = values.sqrt()
        return cls(values, (x.T @ vectors) / root, vectors * root, unit)
