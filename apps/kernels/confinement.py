"""Locks the calling process in, for good: the steps that the sandbox child takes on itself before it reads a job.

The child starts as its parent's account, because the interpreter and torch may lie where nobody else may read; it
imports its trusted code, and only then gives everything up. Each step names what it achieved, or why the machine
refuses it, and ``seal`` reports them all. On any POSIX machine the last one alone, no new descriptors, bars files and
sockets.
Linux references: namespaces(7), landlock(7), setrlimit(2), capabilities(7).
"""

import ctypes
import math
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable

SANDBOX_UIDS = range(61_184, 65_520)
"""Accounts nobody else uses (systemd's range for throw-away users): one per process, never that of .esper's owner."""

_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x2008_0522
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_RESTRICT_SELF = 446
# Landlock ABI -> number of file rights it knows (bits from 0); 4 adds TCP bind/connect, 6 signals and abstract sockets.
_LANDLOCK_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}


def leave_network() -> str:
    """Enter a network namespace without any interface. Call before any thread starts."""
    return _attempt("own network namespace", _unshare_network)


def seal(*, memory_bytes: int, cpu_s: int, file_bytes: int) -> dict[str, str]:
    """Give up account, file system, new files, sockets, threads and processes; cap what is used from now on.

    ``memory_bytes`` of address space and ``cpu_s`` seconds come on top of what the process has taken so far.

    Returns:
        What each step achieved, for the report.

    Raises:
        OSError: the resource limits, without which nothing is sealed, were refused.
    """
    address_space = _address_space_bytes()  # before the files are out of reach
    achieved = {"account": _attempt("unprivileged account of its own", _drop_account)}
    # setuid clears the parent-death signal, so it is set here and not at the start.
    achieved["parent"] = _attempt("dies with its parent", lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    achieved["privileges"] = _attempt("none, and no new ones", _give_up_privileges)
    achieved["filesystem"] = _attempt("no access (landlock)", _forbid_files_and_tcp)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, address_space + memory_bytes)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_CPU, _cpu_seconds_used() + cpu_s)
    _limit(resource.RLIMIT_NPROC, 0)
    # Open descriptors stay usable; every open(), socket(), pipe() and dup() fails from here on.
    _limit(resource.RLIMIT_NOFILE, 0)
    return achieved | {"descriptors": "no new ones"}


def allow_cpu_seconds(seconds: int) -> None:
    """From now the process may use this much CPU time, within what ``seal`` granted; then SIGXCPU ends it."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (min(hard, _cpu_seconds_used() + seconds), hard))


def _address_space_bytes() -> int:
    """Of this process. Where it is not told (no /proc), enough for any torch."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 16 << 30


def _cpu_seconds_used() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return math.ceil(usage.ru_utime + usage.ru_stime)


def _attempt(achieved: str, step: Callable[[], str | int | None]) -> str:
    if not sys.platform.startswith("linux"):
        return f"unavailable on {sys.platform}"
    try:
        refusal = step()
        return refusal if isinstance(refusal, str) else achieved
    except OSError as error:
        return f"refused by this machine: {error.strerror}"


def _unshare_network() -> None:
    try:
        _call("unshare", _CLONE_NEWNET)
    except PermissionError:
        if _has_ambient_capabilities():
            # A user namespace would take away the leave to read a closed checkout, which the imports still need.
            raise
        # Without root it takes a user namespace; the capabilities that this one grants inside are dropped at once.
        _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)
        _drop_capabilities()


def _has_ambient_capabilities() -> bool:
    """Started by root in a checkout that others cannot read (``esper_site.embedded.privileges``)?"""
    with open("/proc/self/status", "rb") as status:  # bytes: a codec may be out of reach by now
        return any(line.startswith(b"CapAmb:") and int(line.split()[1], 16) for line in status)


def _drop_account() -> str | None:
    if os.geteuid() != 0:
        return "unchanged (not started as root)"
    uid = SANDBOX_UIDS[os.getpid() % len(SANDBOX_UIDS)]
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    return None


def _give_up_privileges() -> None:
    _drop_capabilities()  # changing the account did it already; where that was refused they would remain
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _call("capset", header, bytes(24))


def _forbid_files_and_tcp() -> None:
    """Landlock with no rule at all: every right that this kernel's version can handle is denied."""
    abi = _syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    files = (1 << _LANDLOCK_FILE_RIGHTS.get(abi, 16)) - 1
    words = (files,) if abi < 4 else (files, 0b11) if abi < 6 else (files, 0b11, 0b11)
    rules = struct.pack(f"={len(words)}Q", *words)
    ruleset = _syscall(_SYS_LANDLOCK_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), ctypes.c_uint32(0))
    try:
        _syscall(_SYS_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _prctl(option: int, value: int) -> int:
    return _call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def _syscall(number: int, *arguments: object) -> int:
    return _call("syscall", ctypes.c_long(number), *arguments)


def _call(function: str, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    result: int = getattr(library, function)(*arguments)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
