"""Several processes that hold the same model and train it together, as `accelerate launch` or `torchrun` starts them.

Without such a launcher there is one process, and nothing here costs anything. What is exchanged is JSON and tensors:
nothing is pickled. Whatever talks to the others must be called by every process, in the same order; where one process
fails, the launcher ends the others.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # that a process waits for the others
_LAUNCHER = os.getppid()


def count() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which one this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def first() -> bool:
    """Whether this is the one that writes files and speaks."""
    return rank() == 0


def in_pieces() -> bool:
    """Whether accelerate was told to lay a model, or its optimiser, out over the processes in pieces."""
    return any(os.environ.get(f"ACCELERATE_USE_{kind}", "false").lower() == "true" for kind in ("FSDP", "DEEPSPEED"))


def orphaned() -> bool:
    """Whether the launcher is gone, so that nobody waits for these processes any more."""
    return count() > 1 and os.getppid() != _LAUNCHER


@functools.cache
def join() -> torch.device:
    """Meet the other processes; the device that is this one's: its GPU, or the CPU where there is none. Called before a
    model is loaded, so that "cuda" means the right one."""
    if count() == 1:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE).device


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of what all have: a run of neighbours, which differ by one at most in number."""
    here, n = rank(), count()
    return items[len(items) * here // n : len(items) * (here + 1) // n]


def part(name: str, number: int) -> int:
    """How many of `number` things each process has; `ValueError`, which calls them `name`: they cannot have as many."""
    if number % count():
        raise ValueError(f"{name}: got {number}; allowed with {count()} processes: a multiple of {count()}")
    return number // count()


def gathered(data: bytes) -> list[bytes]:
    """What each process has handed in, by rank."""
    if count() == 1:
        return [data]
    device = join()
    mine = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(count())]
    dist.all_gather(sizes, torch.tensor([len(data)], device=device))
    longest = int(max(sizes))
    texts = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in range(count())]
    dist.all_gather(texts, torch.nn.functional.pad(mine, (0, longest - len(data))).to(device))
    return [bytes(text[: int(size)].cpu().numpy()) for text, size in zip(texts, sizes, strict=True)]


def told(make: Callable[[], T]) -> T:
    """JSON data that the first process makes, for all of them."""
    if count() == 1:
        return make()
    return json.loads(gathered(json.dumps(make() if first() else None).encode())[0])


def everyone(value: T) -> list[T]:
    """JSON data of each process, by rank."""
    return [json.loads(text) for text in gathered(json.dumps(value).encode())]


def average(tensors: Iterable[torch.Tensor]) -> None:
    """Replace each tensor, of the same shape in every process, by its mean over them."""
    if count() > 1:
        join()
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= count()
