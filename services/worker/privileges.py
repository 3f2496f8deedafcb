"""Hide this process from others of its user, and take the rights away from processes of user code."""

from __future__ import annotations

import ctypes
import os
import sys

_SET_DUMPABLE = 4  # PR_SET_DUMPABLE, from linux/prctl.h
_DROP_BOUNDING = 24  # PR_CAPBSET_DROP
_SET_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS
_AMBIENT, _CLEAR_ALL = 47, 4  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
_LAST_CAPABILITY = 63
_VERSION_3 = 0x20080522  # of capset's structure, from linux/capability.h


def hide() -> None:
    """Have the kernel keep this process's environment, memory and descriptors from others of its user."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def drop(user: int | None = None) -> None:
    """Give up every capability for good, also of programs that this process executes, and become another user if one is named.

    Root without them still is the owner of root's files, but reads no hidden process.

    Raises:
        OSError: they cannot be given up, or the user cannot be changed.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    for capability in range(
        _LAST_CAPABILITY + 1
    ):  # fails for those that the kernel does not know, or we lack
        libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header, nothing = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "the capabilities of a process of user code cannot be dropped")
    if os.geteuid() == 0 or user is not None:
        libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0)  # it may read its own /proc
