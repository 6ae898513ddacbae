"""Training in several processes of ``torchrun``: each draws its batches, gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from superglue_ros.errors import ConfigError
from superglue_ros.networks.device import resolve_device


@dataclass(frozen=True)
class Group:
    """One process among ``size``; ``rank`` 0 writes files and logs."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.rank == 0


def training_device(name: str) -> torch.device:
    """The device of this process; on several GPUs each process of ``torchrun`` takes its own.

    Raises :class:`ConfigError` if it is not available, or there are fewer GPUs than processes.
    """
    device = resolve_device(name)
    if device.type == "cuda" and device.index is None:
        rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if rank >= count:
            raise ConfigError(
                f"process {rank + 1} has no GPU of its own, there are {count}: start torchrun with "
                f"as many processes as GPUs, or set loop.device to cpu"
            )
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    return device


def join_group(device: torch.device) -> Group:
    """Join the processes that ``torchrun`` started; a group of one without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(dist.get_rank(), size)


def leave_group(group: Group) -> None:
    """Leave the process group, all processes together; does nothing in a group of one.

    The first process still writes files after the last step of the others: no process closes its
    connection or exits before all are done.
    """
    if group.size > 1:
        dist.barrier()
        dist.destroy_process_group()


def share_start(network: nn.Module, group: Group) -> None:
    """Give every process the weights of the first."""
    if group.size > 1:
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, 0)


def average_gradients(parameters: Iterable[nn.Parameter], group: Group) -> None:
    """Replace gradients by their mean over the processes, in one message."""
    if group.size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= group.size
    for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def all_finite(loss: Tensor, group: Group) -> bool:
    """Whether the loss is finite in every process, so that all of them stop together."""
    finite = torch.isfinite(loss.detach()).float()
    if group.size > 1:
        dist.all_reduce(finite, dist.ReduceOp.MIN)
    return bool(finite)
