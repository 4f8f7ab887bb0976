"""Start one command in a confinement that the kernel holds. A plain file that runs alone, with
nothing but the standard library.

    python -I -S confine.py '<spec as JSON>' command …
    python -I -S confine.py --probe

The spec: ``parent`` (process id; when it ends, all of this ends), ``report`` (file descriptor that
gets one JSON line: the command's ``pid`` as the parent sees it, or an ``error``), ``layers`` (names
of ``LAYERS``), ``drop`` (whether the command loses all capabilities), ``cwd``, ``data_bytes``
(limit of ``RLIMIT_DATA``, or null), and for the layer ``files``: ``hidden`` (folders that become
empty), ``show`` (what stays visible in them), ``secret`` (files and folders that are emptied
wherever they are) and ``write`` (folders that may be written to; all others are read-only).

``--probe`` prints ``{layer: error}`` with an empty text where this machine has the layer.

With ``processes`` there are three processes: one that waits outside of the new process namespace,
the namespace's first process, and the command. When the first is killed the kernel kills the
second, and with it every process of the namespace, detached ones too.
"""

# Paths go to system calls as text, and whatever fails before the command starts is reported.
# ruff: noqa: PTH103, PTH110, PTH112, PTH115, PTH118, PTH120, PTH123, BLE001

import ctypes
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

LAYERS = ("network", "processes", "files")

# linux/sched.h, linux/prctl.h, linux/mount.h
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x20000, 0x8000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID_NODEV_NOEXEC = 0x1000, 0x4000, 0x40000, 2 | 4 | 8
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = -100, 0x8000, 1
SYS_MOUNT_SETATTR = 442  # the same number on every architecture; Linux 5.12
NOT_STARTED = 125  # exit code, as of env and timeout
SMALL = "size=1m,mode=0755"  # of the folders that stand for hidden ones
SHARED = "size=256m,mode=1777"  # of shared memory, which the limit of private memory does not count

libc = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    """``struct mount_attr`` of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def checked(result: int, what: str) -> None:
    """Raise OSError with the C library's errno where a call failed."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    words = [os.fsencode(word) for word in (source, target, kind)]
    checked(libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data)), f"mount {target}")


def read_only(path: str, *, whole: bool) -> None:
    """Make the mount at ``path`` and all below it read-only, or with ``whole=False`` that one mount
    writable.
    """
    attributes = MountAttributes(**{"set" if whole else "clear": MOUNT_ATTR_RDONLY})
    words = (AT_FDCWD, os.fsencode(path), AT_RECURSIVE if whole else 0, ctypes.byref(attributes))
    result = libc.syscall(SYS_MOUNT_SETATTR, *words, ctypes.sizeof(attributes))
    checked(result, f"mount_setattr {path}")


def tie_to(parent: int | None) -> None:
    """Let the kernel end this process with its parent; ``parent`` is None in a namespace, where the
    number is not visible.
    """
    checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")
    if parent is not None and os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(NOT_STARTED)


def limit(data_bytes: int | None) -> None:
    """No core files, which would hold a model's memory; and no more private memory than allowed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if data_bytes is not None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        allowed = data_bytes if hard == resource.RLIM_INFINITY else min(data_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))


def enter(layers: Sequence[str]) -> None:
    """New namespaces for this process, and in them the user it was.

    A process of another user namespace cannot be traced, so neither the memory nor the environment
    of any process outside can be read.
    """
    user, group = os.geteuid(), os.getegid()
    flags = CLONE_NEWUSER | CLONE_NEWNS
    flags |= CLONE_NEWNET if "network" in layers else 0
    flags |= CLONE_NEWPID | CLONE_NEWIPC if "processes" in layers else 0
    checked(libc.unshare(flags), "unshare")
    maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
    for name, text in maps.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    mount("none", "/", "none", MS_REC | MS_PRIVATE)


def within(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def hide(spec: Mapping[str, Any]) -> None:
    """Empty folders over the hidden ones, what is shown bound back into them, and everything
    read-only but what may be written to.
    """
    folders = {os.path.realpath(path) for path in spec["hidden"] if os.path.isdir(path)}
    hidden = sorted(folders - {"/"}, key=len)
    write = [os.path.realpath(path) for path in spec["write"]]
    names = []
    for path in [*spec["show"], *write]:
        folder, name = os.path.split(path)
        names += [path, os.path.join(os.path.realpath(folder), name), os.path.realpath(path)]
    kept: dict[str, int] = {}
    # what lies in a folder that is kept is there with it, links included
    for name in sorted({*names}, key=len):
        inside = within(name, [other for other in kept if os.path.isdir(other)])
        if os.path.exists(name) and within(name, hidden) and not inside:
            kept[name] = os.open(name, os.O_PATH)
    nodes = "/dev/shm"
    for folder in hidden:
        if os.path.isdir(folder):  # a hidden folder may lie in one that is hidden by now
            size = SHARED if folder == nodes else SMALL
            mount("none", folder, "tmpfs", MS_NOSUID_NODEV_NOEXEC, size)
    for path in sorted(kept, key=len):  # a folder before what lies in it
        opened = f"/proc/self/fd/{kept[path]}"
        is_folder = os.path.isdir(opened)
        os.makedirs(path if is_folder else os.path.dirname(path), exist_ok=True)
        if not is_folder and not os.path.exists(path):
            open(path, "w").close()
        mount(opened, path, "none", MS_BIND | MS_REC)
        os.close(kept[path])
    for path in spec["secret"]:
        if os.path.isdir(path):
            mount("none", os.path.realpath(path), "tmpfs", MS_NOSUID_NODEV_NOEXEC, SMALL)
        elif os.path.exists(path):
            mount("/dev/null", os.path.realpath(path), "none", MS_BIND)
    for path in write:
        if path not in kept:
            mount(path, path, "none", MS_BIND | MS_REC)
    read_only("/", whole=True)
    for path in [*write, *([nodes] if within(nodes, hidden) and os.path.isdir(nodes) else [])]:
        read_only(path, whole=False)


def drop_privileges() -> None:
    """Root in the new namespace could take its mounts away again; root without one could read all
    processes.
    """
    number = 0
    while libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
        number += 1
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def become(spec: Mapping[str, Any], command: Sequence[str]) -> NoReturn:
    """Confine this process and be the command; returns only by an exception."""
    host = int(os.readlink("/proc/self"))  # as the process file system of before counts
    if "processes" in spec["layers"]:
        mount("proc", "/proc", "proc", MS_NOSUID_NODEV_NOEXEC)
    if "files" in spec["layers"]:
        hide(spec)
    os.chdir(spec["cwd"])
    if spec["drop"]:
        drop_privileges()
    limit(spec["data_bytes"])
    os.write(spec["report"], json.dumps({"pid": host}).encode() + b"\n")
    os.set_inheritable(spec["report"], False)
    os.execve(command[0], list(command), os.environ)


def report_and_end(spec: Mapping[str, Any], error: Exception) -> NoReturn:
    said = json.dumps({"error": f"{type(error).__name__}: {error}"})
    os.write(spec["report"], said.encode() + b"\n")
    os._exit(NOT_STARTED)


def try_to_become(spec: Mapping[str, Any], command: Sequence[str]) -> NoReturn:
    try:
        become(spec, command)
    except Exception as error:
        report_and_end(spec, error)


def close_all_but(*kept: int) -> None:
    """Only the command may hold what was passed on: the other side learns of its end by the end of
    these.

    Not by a look into ``/proc``, which the command replaces meanwhile by one that does not know
    this process.
    """
    low = 3
    for descriptor in sorted(kept):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def first_process(
    spec: Mapping[str, Any], command: Sequence[str], ended: int, alive: int
) -> NoReturn:
    """The first process of a process namespace: starts the command, waits for what is left behind,
    and tells how the command ended.
    """
    tie_to(None)
    # the end of the pipe: the process that waits outside was gone before the kernel was asked
    if select.select([alive], [], [], 0)[0]:
        os._exit(NOT_STARTED)
    child = os.fork()
    if child == 0:
        os.close(ended)
        os.close(alive)
        try_to_become(spec, command)
    close_all_but(ended)
    while True:
        pid, status = os.wait()
        if pid == child:
            os.write(ended, str(status).encode())
            os._exit(0)


def wait_outside(child: int, ended: int) -> NoReturn:
    """End as the command ended."""
    told = os.read(ended, 64)
    status = int(told) if told else os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def start(spec: Mapping[str, Any], command: Sequence[str]) -> NoReturn:
    tie_to(spec["parent"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not spec["layers"]:
        try_to_become(spec, command)
    try:
        enter(spec["layers"])
        tie_to(spec["parent"])  # new credentials take it away
    except Exception as error:
        report_and_end(spec, error)
    if "processes" not in spec["layers"]:
        try_to_become(spec, command)
    ended, tell = os.pipe()
    alive, hold = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ended)
        os.close(hold)
        first_process(spec, command, tell, alive)
    close_all_but(ended, hold)
    wait_outside(child, ended)


def probe_one(layer: str) -> str:
    """Why this machine does not have a layer; empty where it does."""
    said, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter([layer])
            if layer == "processes":
                inner = os.fork()
                if inner:
                    os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))
                mount("proc", "/proc", "proc", MS_NOSUID_NODEV_NOEXEC)
            elif layer == "files":
                hide({"hidden": ["/tmp"], "show": [], "secret": [], "write": []})
        except Exception as error:
            os.write(say, f"{error}".encode())
        os._exit(0)
    os.close(say)
    with os.fdopen(said, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    return text


if __name__ == "__main__":
    if sys.argv[1] == "--probe":
        print(json.dumps({layer: probe_one(layer) for layer in LAYERS}))
    else:
        start(json.loads(sys.argv[1]), sys.argv[2:])
