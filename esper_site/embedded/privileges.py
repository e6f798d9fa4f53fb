"""Give up root in every child process, and tie each child's life to its parent's.

PostgreSQL refuses to run as root, and a web server or a training process has no business with root either. Started by
root, each child therefore runs under an unprivileged account. Where that account cannot reach the checkout, the
interpreter or the data (all under `/root`, say), the child keeps one capability, CAP_DAC_READ_SEARCH: it may then read
and traverse everything, but still writes only what belongs to the account.
"""

import ctypes
import os
import pwd
import signal
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from esper_site.embedded.errors import StackError

# linux/prctl.h, linux/capability.h, linux/securebits.h
PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522

LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True) if LINUX else None


@dataclass(frozen=True)
class Account:
    """The unprivileged account that child processes run under when we are root."""

    name: str
    uid: int
    gid: int
    reads_everything: bool = False


def choose_account(*, owners: Iterable[Path], needs: Iterable[Path]) -> Account | None:
    """Pick the account for child processes; None where we are not root and nothing has to be dropped.

    Args:
        owners: the first existing path of these that belongs to a named account other than root decides; else `nobody`.
        needs: files and folders that the account has to read.

    Raises:
        StackError: no account can read what it needs.
    """
    if os.geteuid() != 0:
        return None
    plain = _first_owner(owners) or _account(pwd.getpwnam("nobody"))
    needs = tuple(needs)
    for account in (plain, replace(plain, reads_everything=True)):
        if _out_of_reach(account, needs) is None:
            return account
    raise StackError(
        f"Started by root, the services run as '{plain.name}', and that account cannot read "
        f"{_out_of_reach(plain, needs)}. Start as an ordinary user, move the checkout and its interpreter to a folder "
        "that others may read (/opt/esper, say), or give DATABASE_URL, REDIS_URL and BROKER_URL of running servers."
    )


def child_setup(account: Account | None, death_signal: signal.Signals) -> Callable[[], None]:
    """Return what a forked child does before it becomes the program: drop root, then die when we die.

    The death signal is set last, because changing the user clears it.
    """
    parent = os.getpid()

    def setup() -> None:
        if account is not None:
            drop(account)
        if LINUX:
            _prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # the parent died before the line above took effect
            os._exit(1)

    return setup


def drop(account: Account) -> None:
    """Become `account` for good.

    Raises:
        OSError: the kernel does not let us, for instance because the capability is outside our bounding set.
    """
    if account.reads_everything:
        # Without this bit, changing the user would drop every capability, and access(2) would ignore the one kept.
        _prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(account.gid)
    os.setuid(account.uid)
    if account.reads_everything:
        _keep_only(CAP_DAC_READ_SEARCH)


def _keep_only(capability: int) -> None:
    """Reduce all capability sets to one, and let it survive exec."""
    if _libc is None:
        raise OSError("capabilities need Linux")
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    mask = 1 << capability
    data = struct.pack("=6I", mask, mask, mask, 0, 0, 0)
    if _libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def _prctl(option: int, *arguments: int) -> None:
    if _libc is None:
        raise OSError("prctl needs Linux")
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(option, *padded) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _first_owner(paths: Iterable[Path]) -> Account | None:
    """The named account other than root that owns the first path to have one (initdb needs a name)."""
    names = {entry.pw_uid: entry for entry in pwd.getpwall()}
    for path in paths:
        try:
            owner = path.stat().st_uid
        except OSError:
            continue
        if owner != 0 and owner in names:
            return _account(names[owner])
    return None


def _out_of_reach(account: Account, paths: tuple[Path, ...]) -> Path | None:
    """The first path that `account` cannot read, tried for real in a forked child."""
    for path in paths:
        child = os.fork()
        if child == 0:
            try:
                drop(account)
                os.close(os.open(path, os.O_RDONLY))
            except OSError:
                os._exit(1)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            return path
    return None
