"""Processes of the benchmark: starting, awaiting, finding and ending them.

Everything that runs here descends from the benchmark, which is a subreaper: what a daemon leaves
behind comes back to us. So "ours" is a fact of /proc's parent links, never a guess by name, and
nothing else is ever signalled.
"""

import ctypes
import os
import select
import signal
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)
_exited = {}
REAP_MS = 5


class Failed(Exception):
    """A contender did not do what it was asked; its row says so and the run goes on."""


class OutOfTime(Exception):
    """The whole run's time is up; what has been measured is reported."""


class Deadline:
    """The end of the whole run; every wait is bounded by it."""

    at = float("inf")
    patience = 30

    @classmethod
    def left(cls):
        return cls.at - time.monotonic()

    @classmethod
    def within(cls, seconds):
        """The end of a wait of so many seconds, or of the run if that comes first."""
        if cls.left() <= 0:
            raise OutOfTime
        return min(time.monotonic() + seconds, cls.at)


def expired(what):
    """A wait is over: was it this contender's fault, or is the run's time up?"""
    return OutOfTime() if Deadline.left() <= 0 else Failed(f"timed out: {what}")


def now():
    """CLOCK_MONOTONIC in ns: the clock that the beacons report."""
    return time.monotonic_ns()


def become_subreaper():
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(sig):
    _libc.prctl(PR_SET_PDEATHSIG, int(sig), 0, 0, 0)


def spawn(argv, env, out="/dev/null", err="/dev/null"):
    """Starts a program in a group of its own, so that a terminal's Ctrl-C reaches only us."""
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, out, writing, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, err, writing, 0o600),
    ]
    try:
        pid = os.posix_spawn(
            argv[0], argv, env, file_actions=actions, setpgroup=0,
            setsigmask=[], setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE])
    except OSError as error:
        raise Failed(f"{argv[0]}: {error.strerror}") from error
    _exited.pop(pid, None)
    return pid


def reap():
    """Takes every dead child: our own, whose status is kept, and orphans that came to us."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _exited[pid] = status


def wait_gone(pid, seconds, what):
    """Waits for the end of a process, child or not."""
    end = Deadline.within(seconds)
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        # Orphans come to us and not to init, so we reap while we wait, as init would.
        while not poll.poll(REAP_MS):
            reap()
            if time.monotonic() > end:
                raise expired(what)
    finally:
        os.close(fd)


def wait(pid, seconds, what):
    """The exit status of a child, as a shell would say it."""
    if pid not in _exited:
        wait_gone(pid, seconds, what)
        reap()
    return os.waitstatus_to_exitcode(_exited.pop(pid))


def exit_code(pid):
    """A child's exit status if it has died, else None; may be asked again."""
    reap()
    return os.waitstatus_to_exitcode(_exited[pid]) if pid in _exited else None


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def read(path):
    """A file of /proc; empty if its process has gone meanwhile."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def parents():
    """{pid: its parent's pid} of all that lives; zombies are dead."""
    found = {}
    for pid in pids():
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if fields and fields[0] not in "ZX":
            found[pid] = int(fields[1])
    return found


def tree(roots):
    """The roots that live and all that descends from them, parents before children."""
    by_parent, live = {}, parents()
    for pid, parent in live.items():
        by_parent.setdefault(parent, []).append(pid)
    order = [pid for pid in roots if pid in live]
    for pid in order:
        order.extend(by_parent.get(pid, []))
    return order


def ours(roots):
    """The trees of these roots, as far as they descend from us: a pid that has meanwhile been
    given to a stranger is left alone."""
    mine = set(tree([os.getpid()])[1:])
    return [pid for pid in tree(roots) if pid in mine]


def runs_from(directory):
    """Live processes whose executable lies below a directory (of ours)."""
    found = []
    for pid in pids():
        try:
            if os.readlink(f"/proc/{pid}/exe").startswith(directory + "/"):
                found.append(pid)
        except OSError:
            continue
    return found


def end_all(find, seconds=15):
    """Kills what find() returns until it returns nothing: a supervisor may spawn meanwhile."""
    end = time.monotonic() + seconds
    while (found := find()) and time.monotonic() < end:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.005)
        reap()
    reap()
    return not found


def end_descendants():
    """Ends all that this process has started, and what that has started, by pid."""
    return end_all(lambda: tree([os.getpid()])[1:])


def memory(of):
    """(PSS, private dirty) in kB of these processes together."""
    pss = dirty = 0
    for pid in of:
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                pss += int(line.split()[1])
            elif line.startswith(("Private_Dirty:", "Private_Hugetlb:")):
                dirty += int(line.split()[1])
    return pss, dirty


def usage(of):
    """(CPU ms, context switches) of these processes, all threads, since they began."""
    cpu = switches = 0
    for pid in of:
        for task in os.listdir(f"/proc/{pid}/task"):
            base = f"/proc/{pid}/task/{task}"
            # schedstat counts ns; utime and stime count ticks of 10 ms, blind to what we look for.
            cpu += int((read(f"{base}/schedstat") or "0").split()[0]) / 1e6
            for line in read(f"{base}/status").splitlines():
                if "ctxt_switches" in line:
                    switches += int(line.split()[1])
    return cpu, switches
