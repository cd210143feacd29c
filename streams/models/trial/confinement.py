"""Restrictions of a trial process before it reads a model: no processes, no programs, no network, and a low priority.

Linux filters system calls on x86-64 and arm64 (`seccomp(2)`), for any user. On other systems `RLIMIT_NPROC` prevents
new processes for users other than root, and a separate network namespace, if the kernel permits one, prevents network
access.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import sys
from contextlib import suppress
from pathlib import Path

NICENESS = 5
OOM_SCORE = 1_000
"""The out-of-memory killer selects this process first."""
_SET_PARENT_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 1, 22, 38
_FILTER_MODE = 2
_NEW_NETWORK = 0x40000000

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_IS_THREAD = 0x00010000
_CLONE3, _IO_URING_SETUP = 435, 425
_FOREIGN_NUMBERS = 0x40000000
"""System call numbers of the x32 ABI start here."""
# Audit architecture; clone; socket, socketpair, connect, fork and vfork (x86-64 only),
# execve, execveat, ptrace, process_vm_writev.
_CALLS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "x86_64": (0xC000003E, 56, (41, 53, 42, 57, 58, 59, 322, 101, 311)),
    "aarch64": (0xC00000B7, 220, (198, 199, 203, 221, 281, 117, 271)),
}

Instruction = tuple[int, int, int, int]
"""Code, instructions to skip if the test is true, instructions to skip if it is false, and the operand."""


def die_with(parent: int) -> None:
    """Asks the kernel to kill this process when `parent` ends; exits now if `parent` has already ended."""
    if sys.platform == "linux":
        _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def lower_priority() -> None:
    """Lowers the priority of this process, and makes it the first candidate of the out-of-memory killer."""
    os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def give_up_processes_and_network() -> None:
    """Forbids new processes, programs and sockets from here on; threads remain possible. Without seccomp, it isolates
    the network only."""
    if not _filter_calls():
        _leave_network()


def _filter_calls() -> bool:
    """Whether the kernel has installed the filter."""
    if sys.platform != "linux" or (calls := _CALLS.get(platform.machine())) is None:
        return False
    program = _program(*calls)
    code = (_Instruction * len(program))(*[_Instruction(*instruction) for instruction in program])
    length_and_code = _Program(len(program), code)
    try:
        _prctl(_SET_NO_NEW_PRIVILEGES, 1)
        _prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.addressof(length_and_code))
    except OSError:
        return False
    return True


def _program(architecture: int, clone: int, rejected: tuple[int, ...]) -> list[Instruction]:
    """The filter: EPERM for `rejected` and for `clone` without CLONE_THREAD; ENOSYS for clone3, so that libc falls back
    to clone."""
    reject = (_RETURN, 0, 0, _REFUSE | errno.EPERM)
    program = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture),
        reject,
        (_LOAD, 0, 0, _AT_NUMBER),
        (_IF_AT_LEAST, 0, 1, _FOREIGN_NUMBERS),
        reject,
    ]
    for number in (*rejected, _IO_URING_SETUP):
        program += [(_IF_EQUAL, 0, 1, number), reject]
    return [
        *program,
        (_IF_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _REFUSE | errno.ENOSYS),
        (_IF_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        (_IF_ANY_BIT, 1, 0, _IS_THREAD),
        reject,
        (_RETURN, 0, 0, _ALLOW),
    ]


def _leave_network() -> None:
    with suppress(OSError, AttributeError):
        if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "unshare")


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    if ctypes.CDLL(None, use_errno=True).prctl(option, *padded):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.POINTER(_Instruction)))
