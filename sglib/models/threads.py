"""Python threads that have one of torch's threads each: for operations that are too small to be divided among cores.

Torch releases Python's lock while it computes, so such threads keep all cores busy. Dividing each operation instead, as
torch does by itself, makes the products of a model of a million parameters slower, not faster.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import torch


def thread_map(function: Callable, items: Sequence, stop: Callable[[], None] | None = None) -> list:
    """`function` of each item, in order, as many at a time as torch has threads (`torch.get_num_threads()`).

    Raises what `function` raises first in that order, when nothing runs any more. `function` must not call
    `thread_map`; `stop` is called after an error or Ctrl-C and should make the calls that still run return soon.
    """
    threads = torch.get_num_threads()
    if min(threads, len(items)) < 2:
        return [function(item) for item in items]

    def call(item):
        torch.set_num_threads(1)  # for this thread; in part for the whole process, hence every time
        return function(item)

    futures = [_pool(threads).submit(call, item) for item in items]
    try:
        return [future.result() for future in futures]
    except BaseException:
        if stop is not None:
            stop()
        raise
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
        torch.set_num_threads(threads)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
