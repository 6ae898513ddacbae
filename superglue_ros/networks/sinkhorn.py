"""Optimal matching layer: partial assignment by optimal transport with dustbins (eq. 8-9).

One iteration, u = log p - logsumexp(Z + v) over columns and then v = log q - logsumexp(Z + u) over
rows, in four forms that give the same assignment:

- :func:`log_sinkhorn`, in the log domain: the reference. Slow (an exponential per entry and half
  iteration), any score, differentiable by autograd. The others fall back on it or are tested
  against it.
- :func:`sinkhorn`, and :func:`transport` that also counts its work: inference. Stabilised kernel
scaling with early stopping, which is data-dependent: no graph export and no autograd.
- :func:`training_sinkhorn`: training. Plain kernel scaling with its own gradient; in the log domain
if the range of scores is too wide.
- :func:`fixed_sinkhorn`: CUDA graphs and ONNX. Stabilised kernel scaling without a branch on data.

Kernel scaling: on K = exp(Z + u + v), with potentials u, v absorbed, the iteration is two
matrix-vector products,

    a = p / (K b),   b = q / (K' a),   u + log a and v + log b are the potentials of eq. 9.

That is exact as long as a and b stay near 1. The Sinkhorn update does not expand in the maximum
norm (log-sum-exp does not), so with step d = max |v_t - v_(t-1)| the next n iterates drift by at
most n d: this bounds how long a kernel may be used before it is absorbed again, and what the
remaining iterations can still change. A step too large for a kernel, such as the first one from
zero, is taken in the log domain; afterwards the dustbins keep every step below log(M + N).

All forms take ``scores`` (B, M, N), the ``dustbin`` score (a scalar; or (2,): that of the rows,
that of the columns, and 0 where they meet, as in the technical report), and ``mask0`` (B, M),
``mask1`` (B, N) bool, True = a keypoint, False = padding. They give (B, M+1, N+1), the logarithm of
the augmented assignment; entries of padded rows and columns are -inf. Each pair needs at least one
keypoint on one side; without any the result is undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FLOOR = -60.0
"""Smallest exponent of a kernel entry, so that no product becomes a (slow) denormal number."""
MAX_DRIFT = 15.0
"""Largest |log a|, |log b| in inference: a kernel entry at the floor, exp(-60), is below 1e-12 of a
row sum of at least exp(-15)."""
CHECK_EVERY = 10
"""Iterations between checks of the drift (on a GPU each check waits for the device)."""
ABSORB_EVERY = 5
"""Iterations of a fixed sequence on one kernel: with dustbins a step is below log(M + N), so five
drift by less than 45 up to 4096 keypoints."""
MAX_RANGE = 80.0
"""Maximum range of the scores in training for float32 exponentials (natural logarithm)."""


def augment(scores: Tensor, dustbin: Tensor) -> Tensor:
    """Append the dustbin row and column of eq. 8: (B, M, N) to (B, M+1, N+1).

    ``dustbin`` is a scalar, or (2,): z_A for the rows, z_B for the columns, with 0 in the corner.
    """
    batch, m, n = scores.shape
    z = dustbin.to(scores.dtype)
    z_rows, z_columns = (z, z) if z.dim() == 0 else z.unbind()
    column = z_rows.expand(batch, m, 1)
    row = z_columns.expand(batch, 1, n + 1)
    if z.dim():
        row = torch.cat([row[..., :n], row.new_zeros(batch, 1, 1)], dim=2)
    return torch.cat([torch.cat([scores, column], dim=2), row], dim=1)


def marginals(z: Tensor, mask0: Tensor | None, mask1: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logarithms of the expected matches a and b of eq. 9: (B, M+1) and (B, N+1).

    ``z`` (B, M+1, N+1) gives sizes, dtype and device. A keypoint expects one match, a dustbin as
    many as the other image has keypoints, padding none (log 0 = -inf, which removes the padded rows
    and columns from every sum).
    """
    batch, m, n = z.shape[0], z.shape[1] - 1, z.shape[2] - 1
    valid0 = z.new_ones(batch, m) if mask0 is None else mask0.to(z.dtype)
    valid1 = z.new_ones(batch, n) if mask1 is None else mask1.to(z.dtype)
    a = torch.cat([valid0, valid1.sum(1, keepdim=True)], dim=1)
    b = torch.cat([valid1, valid0.sum(1, keepdim=True)], dim=1)
    return a.log(), b.log()


def log_sinkhorn(
    scores: Tensor,
    dustbin: Tensor,
    iterations: int | Tensor = 100,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
) -> Tensor:
    """Log assignment (B, M+1, N+1) in the log domain: slow, exact, differentiable; the reference.

    Arguments as in the module's docstring; in the dtype of ``scores``. ``iterations`` (B,) stop
    each pair at its own number, which need not be whole, see :func:`soft_stop`.
    """
    z = augment(scores, dustbin)
    log_p, log_q = marginals(z, mask0, mask1)
    u, v = torch.zeros_like(log_p), _start(log_q)
    us, vs = [], []
    for _ in range(_whole(iterations)):
        u = log_p - torch.logsumexp(z + v.unsqueeze(1), dim=2)
        v = log_q - torch.logsumexp(z + u.unsqueeze(2), dim=1)
        if isinstance(iterations, Tensor):
            us.append(u)
            vs.append(v)
    if isinstance(iterations, Tensor):
        u, v = soft_stop(torch.stack(us), iterations), soft_stop(torch.stack(vs), iterations)
    return _assignment(z, u, v)


def soft_stop(potentials: Tensor, iterations: Tensor) -> Tensor:
    """The potentials (B, N) after ``iterations`` (B,), interpolated between whole numbers.

    ``potentials`` (T, B, N) of iterations 1 to T. The gradient for the number of iterations is
    what the next one would change.
    """
    last = len(potentials) - 1
    place = (iterations - 1).clamp(0, last)
    low = place.detach().floor().long()
    pair = torch.arange(len(iterations), device=potentials.device)
    padding = potentials[0] == -torch.inf
    below, above = (
        potentials[row, pair].masked_fill(padding, 0.0) for row in (low, (low + 1).clamp(max=last))
    )
    between = below + (place - low).unsqueeze(1).to(below.dtype) * (above - below)
    return between.masked_fill(padding, -torch.inf)


def _whole(iterations: int | Tensor) -> int:
    """The number of iterations that the slowest pair needs."""
    return iterations if isinstance(iterations, int) else int(iterations.detach().max().ceil())


@dataclass(frozen=True, eq=False)
class Transport:
    """Result of the optimal transport.

    ``log_assignment`` (B, M+1, N+1), as of :func:`log_sinkhorn`. ``iterations`` is their total,
    ``log_domain`` those in the log domain, ``kernels`` the number of absorptions.
    """

    log_assignment: Tensor
    iterations: int
    log_domain: int
    kernels: int


def sinkhorn(
    scores: Tensor,
    dustbin: Tensor,
    iterations: int = 100,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
) -> Tensor:
    """Log assignment (B, M+1, N+1) for inference: that of :func:`transport`.

    Within 1e-4 of the log domain for scores up to +-100. Under autograd, where every iteration is
    recorded, it is :func:`log_sinkhorn` itself.
    """
    if torch.is_grad_enabled() and (scores.requires_grad or dustbin.requires_grad):
        return log_sinkhorn(scores, dustbin, iterations, mask0, mask1)
    return transport(scores, dustbin, iterations, mask0, mask1).log_assignment


def transport(
    scores: Tensor,
    dustbin: Tensor,
    iterations: int = 100,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
    tolerance: float = 1e-5,
) -> Transport:
    """Optimal transport of eq. 9 by stabilised kernel scaling; arguments as :func:`log_sinkhorn`.

    Stops early once all remaining iterations together cannot change a log assignment by more than
    ``tolerance`` (0 = never).
    """
    z = augment(scores, dustbin)
    log_p, log_q = marginals(z, mask0, mask1)
    p, q = log_p.exp(), log_q.exp()
    kernel = torch.empty_like(z)
    u, v = torch.zeros_like(log_p), _start(log_q)
    a, b = torch.ones_like(u), torch.ones_like(v)
    step, drift = float("inf"), float("inf")
    done = log_domain = kernels = 0
    while done < iterations and step * (iterations - done) > tolerance:
        if step > MAX_DRIFT:
            u = log_p - _log_sum_exp(z, v.unsqueeze(1), 2, kernel)
            new = log_q - _log_sum_exp(z, u.unsqueeze(2), 1, kernel)
            step, drift, v = _largest(new - v), float("inf"), new
            done, log_domain = done + 1, log_domain + 1
            continue
        if drift + step > MAX_DRIFT:
            torch.add(z, u.unsqueeze(2), out=kernel)
            kernel.add_(v.unsqueeze(1)).clamp_(min=FLOOR).exp_()
            a, b, drift = torch.ones_like(u), torch.ones_like(v), 0.0
            u0, v0, kernels = u, v, kernels + 1
        block = min(iterations - done, CHECK_EVERY, int((MAX_DRIFT - drift) / max(step, 1e-6)))
        previous = b
        for _ in range(block):
            previous = b
            a = p / _product_by_pair(kernel, b)
            b = q / _product_by_pair(kernel.transpose(1, 2), a)
        log_a, log_b = a.log(), b.log()
        u, v = u0 + log_a, v0 + log_b
        step, drift = _largest(log_b - previous.log()), max(_largest(log_a), _largest(log_b))
        done += block
    torch.add(z, u.unsqueeze(2), out=kernel)
    return Transport(kernel.add_(v.unsqueeze(1)), done, log_domain, kernels)


def training_sinkhorn(
    scores: Tensor,
    dustbin: Tensor,
    iterations: int | Tensor,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
) -> Tensor:
    """Log assignment (B, M+1, N+1) in float32 for training, differentiable.

    The log domain makes several passes over the matrix per iteration, forward and backward. Here
    both directions are products of one kernel matrix with vectors, and the gradient of the kernel
    is a single product of all iterations at the end: an order of magnitude faster on a CPU. Falls
    back to :func:`log_sinkhorn` where the range of scores exceeds :data:`MAX_RANGE`. On a GPU
    that test would wait for the device: scores that far below their row's largest are raised.
    ``iterations`` (B,) stop each pair at its own number, see :func:`soft_stop`.
    """
    z = augment(scores.float(), dustbin)
    log_p, log_q = marginals(z, mask0, mask1)
    row_max = z.detach().amax(dim=2, keepdim=True)
    kernel = z - row_max
    if z.is_cuda:
        kernel = kernel.clamp(min=-MAX_RANGE)
    elif bool((row_max.amax() - z.detach().amin()) > MAX_RANGE):
        return log_sinkhorn(scores.float(), dustbin, iterations, mask0, mask1)
    us, vs = _Scaling.apply(kernel.exp(), log_p.exp(), log_q.exp(), _whole(iterations))
    if isinstance(iterations, Tensor):
        u, v = (soft_stop(_finite_log(x), iterations) for x in (us, vs))
    else:
        u, v = _finite_log(us[-1]), _finite_log(vs[-1])
    return _assignment(z - row_max, u, v)


class _Scaling(torch.autograd.Function):
    """Vectors u, v of the matrix scaling diag(u) K diag(v) with row sums a and column sums b.

    (T, B, M+1) and (T, B, N+1): those of every iteration.
    """

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, a: Tensor, b: Tensor, iterations: int) -> Any:
        v = torch.where(b > 0, torch.ones_like(b), torch.zeros_like(b))
        before, us, vs = [], [], []
        for _ in range(iterations):
            before.append(v)
            u = a / _product(kernel, v)
            v = b / _product(kernel.transpose(1, 2), u)
            us.append(u)
            vs.append(v)
        all_us, all_vs = torch.stack(us), torch.stack(vs)
        ctx.save_for_backward(kernel, a, b, torch.stack(before), all_us, all_vs)
        return all_us, all_vs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        kernel, a, b, before, us, vs = ctx.saved_tensors
        given_us, given_vs = gradients
        grad_v = torch.zeros_like(given_vs[0])
        left, right = [], []
        for t in reversed(range(len(us))):
            grad_u, grad_v = given_us[t], grad_v + given_vs[t]
            # v = b / s with s = K^T u, so ds = -dv v^2 / b; the same for u.
            grad_s = -grad_v * vs[t] * _ratio(vs[t], b)
            left.append(us[t])
            right.append(grad_s)
            grad_u = grad_u + _product(kernel, grad_s)
            grad_r = -grad_u * us[t] * _ratio(us[t], a)
            left.append(grad_r)
            right.append(before[t])
            grad_v = _product(kernel.transpose(1, 2), grad_r)
        grad_kernel = torch.stack(left, dim=2) @ torch.stack(right, dim=1)
        return grad_kernel, None, None, None


Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From potentials u, v to those some iterations later."""


def _unrolled(step: Step, times: int, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    for _ in range(times):
        u, v = step(u, v)
    return u, v


def fixed_sinkhorn(
    scores: Tensor,
    dustbin: Tensor,
    iterations: int,
    mask0: Tensor,
    mask1: Tensor,
    repeat: Callable[[Step, int, Tensor, Tensor], tuple[Tensor, Tensor]] = _unrolled,
) -> Tensor:
    """Log assignment (B, M+1, N+1) as a fixed sequence of operations, without a branch on data.

    Kernels are absorbed every :data:`ABSORB_EVERY` iterations regardless of the drift. The masks
    are not optional. ``repeat`` applies a step a number of times: an exported graph has a loop.
    """
    z = augment(scores, dustbin)
    log_p, log_q = marginals(z, mask0, mask1)
    # Minus infinity times zero is NaN: the padding's logarithm is a large negative number.
    p, q = log_p.exp().unsqueeze(2), log_q.exp().unsqueeze(2)
    log_p, log_q = log_p.clamp(min=-1e4), log_q.clamp(min=-1e4)
    v = torch.where(log_q > -1e3, torch.zeros_like(log_q), log_q)
    u = log_p - torch.logsumexp(z + v.unsqueeze(1), dim=2)
    v = log_q - torch.logsumexp(z + u.unsqueeze(2), dim=1)

    def on_one_kernel(u: Tensor, v: Tensor, count: int = ABSORB_EVERY) -> tuple[Tensor, Tensor]:
        kernel = _assignment(z, u, v).clamp(min=FLOOR).exp()
        b = torch.ones_like(q)
        for _ in range(count):
            a = p / (kernel @ b)
            b = q / (kernel.transpose(1, 2) @ a)
        return (
            u + a.squeeze(2).clamp(min=1e-30).log(),
            v + b.squeeze(2).clamp(min=1e-30).log(),
        )

    kernels, rest = divmod(iterations - 1, ABSORB_EVERY)
    u, v = repeat(on_one_kernel, kernels, u, v)
    if rest:
        u, v = on_one_kernel(u, v, rest)
    log_assignment = _assignment(z, u, v)
    padding = (log_p < -1e3).unsqueeze(2) | (log_q < -1e3).unsqueeze(1)
    return torch.where(padding, torch.full_like(log_assignment, -torch.inf), log_assignment)


def _assignment(z: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Scores (B, M+1, N+1) plus the potentials of their rows and columns."""
    return z + u.unsqueeze(2) + v.unsqueeze(1)


def _start(log_marginal: Tensor) -> Tensor:
    """The first potentials: 0, and -inf for padding."""
    return torch.zeros_like(log_marginal).masked_fill(log_marginal == -torch.inf, -torch.inf)


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    """(B, M, N) times (B, N)."""
    return torch.bmm(matrix, vector.unsqueeze(2)).squeeze(2)


def _product_by_pair(matrix: Tensor, vector: Tensor) -> Tensor:
    """(B, M, N) times (B, N); pair by pair on the CPU, whose batched product is slow.

    Training keeps the batched product: the two differ in the last digits.
    """
    if matrix.is_cuda or len(matrix) == 1:
        return _product(matrix, vector)
    return torch.stack([torch.mv(m, x) for m, x in zip(matrix, vector, strict=True)])


def _log_sum_exp(z: Tensor, offset: Tensor, dim: int, buffer: Tensor) -> Tensor:
    """``logsumexp(z + offset, dim)`` in the given memory, several times torch's speed on a CPU."""
    torch.add(z, offset, out=buffer)
    top = buffer.amax(dim, keepdim=True)
    return buffer.sub_(top).clamp_(min=FLOOR).exp_().sum(dim).log_().add_(top.squeeze(dim))


def _largest(x: Tensor) -> float:
    """Largest magnitude; padding (-inf, and its differences) does not count."""
    return float(x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().amax())


def _finite_log(x: Tensor) -> Tensor:
    """Logarithm whose gradient stays finite where padding makes it -inf."""
    positive = x > 0
    return torch.where(positive, x, torch.ones_like(x)).log().masked_fill(~positive, -torch.inf)


def _ratio(x: Tensor, total: Tensor) -> Tensor:
    """X / total, 0 where there is padding."""
    return torch.where(total > 0, x / total, torch.zeros_like(x))
