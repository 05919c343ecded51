"""What a process may use: its affinity and its control groups, of either version."""

import os

import psutil
import pytest

from automl_tl import machine


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine of 64 CPUs and 100 GiB, half of them free, whose control groups a test writes."""
    total, free = 100 * 2**30, 50 * 2**30
    found = type("Memory", (), {"total": total, "available": free})()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: found)
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "_MINE", tmp_path / "mine")

    def write(mine, **files):
        (tmp_path / "mine").write_text(mine)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_a_machine_without_control_groups_is_used_whole(groups):
    assert machine.available_cpus() == 64
    assert machine.memory() == (100 * 2**30, 50 * 2**30)


def test_the_affinity_narrows(groups, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 9}, raising=False)
    assert machine.available_cpus() == 3


def test_without_affinity_all_cpus_count(groups, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.available_cpus() == 6


def test_a_container_has_its_quota_and_its_memory(groups):
    groups(
        "0::/\n",
        **{
            "cpu.max": "350000 100000\n",
            "memory.max": f"{8 * 2**30}\n",
            "memory.current": f"{5 * 2**30}\n",
            "memory.stat": f"anon 7\nfile {4 * 2**30}\ninactive_file {2 * 2**30}\n",
        },
    )
    assert machine.available_cpus() == 4
    assert machine.memory() == (8 * 2**30, 5 * 2**30)


def test_a_container_without_bounds_is_the_machine(groups):
    groups("0::/\n", **{"cpu.max": "max 100000\n", "memory.max": "max\n", "memory.current": "7\n"})
    assert machine.available_cpus() == 64
    assert machine.memory() == (100 * 2**30, 50 * 2**30)


def test_the_narrowest_group_above_counts(groups):
    groups(
        "0::/kube/pod/box\n",
        **{
            "kube/cpu.max": "1600000 100000\n",
            "kube/pod/cpu.max": "200000 100000\n",
            "kube/pod/box/cpu.max": "max 100000\n",
            "kube/pod/memory.max": f"{2**30}\n",
            "kube/pod/memory.current": f"{2 * 2**30}\n",
        },
    )
    assert machine.available_cpus() == 2
    assert machine.memory() == (2**30, 0)


def test_the_first_version_of_control_groups(groups):
    groups(
        "5:cpuset:/\n4:memory:/docker/b1\n3:cpu,cpuacct:/docker/b1\n0::/\n",
        **{
            "cpu/cpu.cfs_quota_us": "50000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": f"{4 * 2**30}\n",
            "memory/memory.usage_in_bytes": f"{2**30}\n",
            "memory/memory.stat": f"cache 5\ntotal_inactive_file {2**29}\n",
        },
    )
    assert machine.available_cpus() == 1
    assert machine.memory() == (4 * 2**30, 3 * 2**30 + 2**29)


def test_no_quota_in_the_first_version(groups):
    groups("1:cpu:/\n", **{"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"})
    assert machine.available_cpus() == 64
