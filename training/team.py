"""Processes that train one network together, as `torchrun` starts them: one for each device, on one machine or many."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import distributed, nn

from mrnets.errors import InputError

__all__ = ["Team", "join"]


@dataclass(frozen=True)
class Team:
    """This process among `world` processes."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def share(self, network: nn.Module, *, some_frozen: bool) -> nn.Module:
        """Return `network` with gradients that become the mean over all processes. It is unchanged if there is but
        one."""
        if self.world == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, devices, find_unused_parameters=some_frozen)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            distributed.barrier()

    def agreed(self, value: bool) -> bool:
        """Return the value of the first process."""
        if self.world == 1:
            return value
        told = torch.tensor([int(value)], device=self.device)
        distributed.broadcast(told, src=0)
        return bool(told.item())

    def spread(self, content: bytes) -> bytes:
        """Return the content of the first process."""
        if self.world == 1:
            return content
        size = torch.tensor([len(content)], device=self.device)
        distributed.broadcast(size, src=0)
        told = torch.empty(int(size.item()), dtype=torch.uint8)
        if self.leads and content:
            told = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        told = told.to(self.device)
        if told.numel():
            distributed.broadcast(told, src=0)
        return told.cpu().numpy().tobytes()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Go on where no process has a problem. Raises InputError in all of them where a part raises it in one.

        Each tells its own; the others say that another one cannot go on. So none waits for ever for one that ended."""
        problem = ""
        try:
            yield
        except InputError as error:
            if self.world == 1:
                raise
            problem = f"process {self.rank} of {self.world}: {error}"
        if self.world == 1:
            return
        wrong = torch.tensor([int(bool(problem))], device=self.device)
        distributed.all_reduce(wrong)
        if problem:
            raise InputError(problem)
        if wrong.item():
            raise InputError(f"process {self.rank} of {self.world}: another process cannot go on, and says why")

    def leave(self) -> None:
        """End the group of processes."""
        if self.world > 1:
            distributed.destroy_process_group()


def join(device: str) -> Team:
    """Return the team that torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK) describes; without one, this process
    alone.

    Raises InputError for a device that is not there.
    """
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise InputError(f"option device: no such device: {device!r}; use cpu, cuda, cuda:1 and so on") from None
    if wanted.type not in ("cpu", "cuda"):
        raise InputError(f"option device: networks train on cpu and cuda (cuda:1 and so on), not on {device!r}")
    if wanted.type == "cuda":
        index = local if world > 1 or wanted.index is None else wanted.index
        if index >= torch.cuda.device_count():
            there = ", ".join(f"cuda:{n}" for n in range(torch.cuda.device_count()))
            hint = (
                f"only {there}; give device={there.partition(',')[0]}" if there else "no CUDA device; give device=cpu"
            )
            raise InputError(f"option device: cuda:{index} wanted, but torch finds {hint}")
        wanted = torch.device("cuda", index)
        torch.cuda.set_device(wanted)
    if world == 1:
        return Team(0, 1, wanted)
    distributed.init_process_group("nccl" if wanted.type == "cuda" else "gloo")
    return Team(distributed.get_rank(), distributed.get_world_size(), wanted)
