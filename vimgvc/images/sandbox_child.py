"""The launcher and guard of a confined program; see `sandbox`. A script, standard library only.

Arguments: the policy as JSON, the program, its arguments. Numbers: <linux/prctl.h>, <linux/sched.h>,
<linux/landlock.h>, <linux/capability.h>.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import stat
import struct
import sys
from typing import Any, NoReturn

_NOT_CONFINED = 125

_SET_PDEATHSIG = 1
_CAPBSET_DROP = 24
_SET_NO_NEW_PRIVS = 38
_CAP_DAC_OVERRIDE = 1
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REMOVE_FILE, _MAKE_REG, _TRUNCATE, _IOCTL_DEV = 1 << 5, 1 << 8, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
#: How many rights of files each version of Landlock knows.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_TCP = 3
_SCOPES = 3  # no abstract sockets, no signals to others

#: What a program reads to start and to learn what machine it runs on.
_SYSTEM = (
    *("/usr", "/bin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/etc/crypto-policies", "/etc/gnutls", "/etc/ssl/openssl.cnf", "/etc/gcrypt"),
    *("/proc/sys/crypto", "/sys/devices/system/cpu", "/sys/devices/system/node"),
    *("/dev/urandom", "/dev/random"),
)


def main(arguments: list[str]) -> int:
    policy = json.loads(arguments[0])
    # A pipe that wakes the guard: set before there is a child whose end it could miss.
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            _become(policy, guard, arguments[1:])
        except BaseException as error:  # noqa: BLE001 - no exception may run what follows the fork twice
            _say(str(error))
        finally:
            os._exit(_NOT_CONFINED)
    _guard(child, ended, policy)
    return 0


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"sandbox: {text}\n".encode(errors="replace"))


# --- the guard ------------------------------------------------------------------------------------


def _guard(child: int, ended: int, policy: dict[str, Any]) -> None:
    control = policy["control"]
    for fd in {*policy["reads"], *policy["extra"], policy["listen"], policy["folder"]} - {None}:
        if fd not in {item[1] for item in policy["scratch"]}:
            os.close(fd)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(control, select.POLLIN)
    status = None
    while status is None:
        ready = dict(poll.poll())
        if control in ready:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        os.read(ended, 64)
        done, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else None
    with contextlib.suppress(OSError):
        if status is not None:
            os.write(control, str(status).encode())
        os.read(control, 1)  # until it is closed
    for path, fd in policy["scratch"]:
        _remove(path, fd)


def _remove(path: str, fd: int) -> None:
    """Remove a folder and the files in it, if `path` still is this folder."""
    with contextlib.suppress(OSError):
        for name in os.listdir(fd):
            os.unlink(name, dir_fd=fd)
        if os.path.samestat(os.lstat(path), os.fstat(fd)):
            os.rmdir(path)


# --- the program, before it is one ----------------------------------------------------------------


def _become(policy: dict[str, Any], guard: int, command: list[str]) -> NoReturn:
    libc = ctypes.CDLL(None, use_errno=True)
    for fd in {policy["control"], *(fd for _path, fd in policy["scratch"])} - {policy["folder"], *policy["extra"]}:
        os.close(fd)
    _leave_network(libc)
    _drop_capabilities(libc)
    if policy["folder"] is None:
        os.chdir("/")
    else:
        os.fchdir(policy["folder"])
    _call("no_new_privs", libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _landlock(libc, policy)
    environment = dict(os.environ)
    if policy["listen"] is not None:
        os.dup2(policy["listen"], 3)  # where systemd's protocol has the first socket
        os.close(policy["listen"])
        environment |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    _limit(policy)
    # Last: a change of credentials forgets it. The guard may have died before.
    _call("parent's death", libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != guard:
        os._exit(_NOT_CONFINED)
    # SIGPIPE and SIGXFSZ stay ignored, as Python has them: the program gets errors, and can tell them.
    os.execve(command[0], [os.path.basename(command[0]), *command[1:]], environment)  # noqa: S606 - one of the two programs of `qemu`


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _limit(policy: dict[str, Any]) -> None:
    limits = {
        resource.RLIMIT_AS: policy["memory"],
        resource.RLIMIT_CPU: policy["cpu"],
        resource.RLIMIT_FSIZE: policy["file_bytes"],
        resource.RLIMIT_NOFILE: policy["open_files"],
        resource.RLIMIT_CORE: 0,
    }
    for number, wanted in limits.items():
        most = resource.getrlimit(number)[1]
        value = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(number, (value, value))


def _leave_network(libc: ctypes.CDLL) -> None:
    """Go where no network is. Some containers allow that to nobody; what qemu opens does not depend on it."""
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Of what root may do leave only the reading of files of other users: the image may be one."""
    if os.geteuid() == 0:
        for number in range(64):
            if number != _CAP_DAC_OVERRIDE:
                libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)  # refused: there is no such capability


def _landlock(libc: ctypes.CDLL, policy: dict[str, Any]) -> None:
    """Deny every file but the system's, those of the policy, and TCP. Nothing where the kernel lacks it."""
    syscall = libc.syscall
    syscall.restype = ctypes.c_long
    version = syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    handled = (1 << _RIGHTS.get(version, 16)) - 1
    attributes = struct.pack("=QQQ", handled, _TCP, _SCOPES)
    attributes = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _call("landlock", syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))

    def allow(fd: int, rights: int) -> None:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights & handled, fd)
        _call("landlock rule", syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))

    for path in (*_SYSTEM, *policy["runs"]):
        with contextlib.suppress(OSError):
            allow(os.open(path, os.O_PATH | os.O_CLOEXEC), _READ_FILE | _READ_DIR | _EXECUTE)
    allow(os.open("/dev/null", os.O_PATH | os.O_CLOEXEC), _READ_FILE | _WRITE_FILE)
    for fd in policy["reads"]:
        allow(fd, _READ_FILE | _IOCTL_DEV)
    if policy["folder"] is not None:
        allow(policy["folder"], _READ_FILE | _WRITE_FILE | _READ_DIR | _REMOVE_FILE | _MAKE_REG | _TRUNCATE)
    _call("landlock", syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
