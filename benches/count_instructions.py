#!/usr/bin/env python3
"""How many instructions a program takes from its first SIGURG to itself to its second one.

count_instructions.py COMMAND...: steps through it, and prints the number. A call into the kernel
counts as one.
"""
import ctypes
import os
import signal
import sys

# From sys/ptrace.h.
TRACEME, CONT, SINGLESTEP = 0, 7, 9

ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
ptrace.restype = ctypes.c_long


def trace(request, pid):
    """A signal that stopped the program is not passed on."""
    if ptrace(request, pid, None, None) != 0:
        sys.exit("ptrace: " + os.strerror(ctypes.get_errno()))


def stopped(pid):
    """The signal that it stops at."""
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        sys.exit(f"{sys.argv[1]}: ended with status {status}")
    return os.WSTOPSIG(status)


def main():
    pid = os.fork()
    if pid == 0:
        trace(TRACEME, 0)
        os.execv(sys.argv[1], sys.argv[1:])
    stopped(pid)
    count = 0
    for request in CONT, SINGLESTEP:
        trace(request, pid)
        while stopped(pid) != signal.SIGURG:
            count += request == SINGLESTEP
            trace(request, pid)
    os.kill(pid, signal.SIGKILL)
    print(count)


main()
