"""The environment in which a framework's process computes fast on a CPU."""

from __future__ import annotations

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""How OpenMP's threads wait; see ``process_environment``."""
_TUNABLES = {
    # A step frees nearly all that it allocated. By default glibc then gives most of it back to the
    # system, and the next step touches new pages: tens of thousands of faults a step, up to a
    # third of its time. What was freed goes back when a trial has ended, see `automl_tl.hosted`.
    "glibc.malloc.trim_threshold": "1000000000000",
    "glibc.malloc.mmap_max": "0",
    # Pages of 2 MiB, where the system has them: fewer misses of the table of pages.
    "glibc.malloc.hugetlb": "1",
}


def process_environment(threads: int) -> dict[str, str]:
    """Return our own variables, and more where they are not set.

    OpenMP's threads sleep while they wait, after 1,000 turns of a loop, as many as GCC's OpenMP
    takes on a machine with more threads than cores. By default it takes 300,000, and spinning made
    training ten times slower on a busy machine; without any, a quarter of a step is spent waking
    threads up. What other systems do not know they ignore.

    Args:
        threads: Of OpenMP.
    """
    found = {
        "OMP_NUM_THREADS": str(threads),
        "GLIBC_TUNABLES": ":".join(f"{name}={value}" for name, value in _TUNABLES.items()),
    }
    if "OMP_WAIT_POLICY" not in os.environ:
        found |= WAITING
    return {**found, **os.environ}
