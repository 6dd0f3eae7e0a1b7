"""Solutions of (A + s I) X = B for one symmetric A and many shifts s, to rounding those of each system by itself.

A is brought to tridiagonal form once, A = Q T Q': then a shift costs a sweep along three diagonals and a product with
Q, which stays in the reflections that it is made of. That is a third of the work of A's eigenvectors, which serve the
same end (Elden 1977 for least squares of many penalties).
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.linalg import lapack
from torch import Tensor


class Shifted:
    """A symmetric system, ready for any shift.

    Args:
        matrix: A, double [M, M], positive semidefinite; only what stands on and above the diagonal is read. It is
            the caller's no more.
        target: B, double [M, K].
    """

    def __init__(self, matrix: Tensor, target: Tensor) -> None:
        # LAPACK stands its matrices on columns: row by row and above the diagonal is column by column and below.
        turned = matrix.numpy().T
        work = int(lapack.dsytrd_lwork(len(turned), lower=1)[0])
        made, self._diagonal, self._beside, self._factors, _ = lapack.dsytrd(turned, lower=1, lwork=work, overwrite_a=1)
        # Q leaves the first coordinate as it is.
        self._reflections = made[1:, :-1].copy(order="F")
        self._target = self._reflected("T", target.numpy().copy(order="F"))

    def solve(self, shift: float) -> Tensor:
        """X [M, K] for a positive shift."""
        if len(self._diagonal) == 1:
            return torch.from_numpy(self._target / (self._diagonal + shift))
        _, _, found, wrong = lapack.dptsv(self._diagonal + shift, self._beside, self._target)
        if wrong:
            raise ValueError(f"a shift of {shift} does not make the matrix positive definite")
        return torch.from_numpy(self._reflected("N", found))

    def _reflected(self, which: str, x: Any) -> Any:
        """Q (`N`) or Q' (`T`) times x [M, K], in place."""
        if len(x) > 1:
            below = x[1:].copy(order="F")
            work = lapack.dormqr("L", which, self._reflections, self._factors, below, -1)[1]
            x[1:] = lapack.dormqr("L", which, self._reflections, self._factors, below, int(work[0]), overwrite_c=1)[0]
        return x
