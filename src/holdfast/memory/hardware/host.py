"""Tells how much host memory a process may use, and whether the kernel killed for want of it.

A container's or a service's limit counts as well as what the machine has free, and so does a limit
on the process itself (`ulimit -v`, `ulimit -d`). Needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")
SCARCE = 0.03
"""Share of what may be used below which a process that was killed is taken to have been killed for
want of memory, where the kernel keeps no count."""


def host_ram_bytes(root: Path = ROOT) -> int:
    """Host memory that a new process can use, bytes: what is available, within every limit.

    Args:
        root: where `proc` and `sys` are mounted.
    """
    limits = [_meminfo(root, "MemAvailable"), *_groups_leave(root)]
    if root == ROOT:
        limits += [max(0, limit - taken) for limit, taken in _process_limits()]
    found = [one for one in limits if one is not None]
    return min(found) if found else _machine_bytes()


def host_total_bytes(root: Path = ROOT) -> int:
    """Host memory that a process could use if nothing else ran, bytes."""
    limits = [_number(group / limit) for group, limit, *_ in _groups(root)]
    if root == ROOT:
        limits += [limit for limit, _ in _process_limits()]
    found = [one for one in (_meminfo(root, "MemTotal"), *limits) if one is not None]
    return min(found) if found else _machine_bytes()


def kills(root: Path = ROOT) -> int:
    """How many processes the kernel has killed for want of memory so far.

    In the groups (containers) that this process is in; on the whole machine where they do not say.
    """
    counted = [
        int(words[1])
        for group, limit, *_ in _groups(root)
        for line in _lines(group / ("memory.events" if limit == "memory.max" else _CONTROL))
        if len(words := line.split()) == 2 and words[0] == "oom_kill"
    ]
    for line in _lines(root / "proc/vmstat"):
        if line.startswith("oom_kill "):
            counted.append(int(line.split()[1]))
    return max(counted, default=0)


_CONTROL = "memory.oom_control"
_NEW = ("memory.max", "memory.current", "inactive_file")
_OLD = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """The control groups whose limits hold here, those above included, and their files' names."""
    mounted = root / "sys/fs/cgroup"
    places = {(mounted, _NEW), (mounted / "memory", _OLD)}
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and "memory" not in kinds.split(","):
            continue
        top, names = (mounted / "memory", _OLD) if kinds else (mounted, _NEW)
        own = top / path.strip("/")
        places |= {(one, names) for one in (own, *own.parents) if one.is_relative_to(top)}
    for group, (limit, used, reclaimable) in sorted(places):
        if (group / limit).is_file():
            yield group, limit, used, reclaimable


def _groups_leave(root: Path) -> Iterator[int]:
    """What each group's limit leaves; cached files count as free, for they can be dropped."""
    for group, limit, used, reclaimable in _groups(root):
        allowed, taken = _number(group / limit), _number(group / used)
        if allowed is not None and taken is not None:
            cache = 0
            for line in _lines(group / "memory.stat"):
                key, _, value = line.partition(" ")
                cache = int(value) if key == reclaimable else cache
            yield max(0, allowed - taken + cache)


def _process_limits() -> list[tuple[int, int]]:
    """Limits on this process, which its children inherit, and what it has taken of each, bytes."""
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        page = os.sysconf("SC_PAGE_SIZE")
        sizes = [int(word) * page for word in _lines(ROOT / "proc/self/statm")[0].split()]
        kinds = (resource.RLIMIT_AS, sizes[0]), (resource.RLIMIT_DATA, sizes[5])
        every = [(resource.getrlimit(kind)[0], taken) for kind, taken in kinds]
        return [(soft, taken) for soft, taken in every if soft != resource.RLIM_INFINITY]
    return []


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _meminfo(root: Path, key: str) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none, or `max`."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
