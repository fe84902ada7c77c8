"""The supervisors that are measured, each driven as its own manual says.

A contender has a directory with its own link to the beacon and its own FIFO, so that whose service
a process is can be read from /proc/PID/exe, and its reports from nobody else's.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import struct
import termios
import time

import processes
from processes import Deadline, Failed, expired, now, spawn

F_SETPIPE_SZ = 1031
REPORT = struct.Struct("=qqq")


class Reports:
    """What the beacons say: who runs since when. The timestamps are theirs, not ours, so it does
    not matter when we read them, and while a boot is timed we read nothing."""

    def __init__(self, path):
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self.fd, F_SETPIPE_SZ, 1 << 20)
        self.pid_of = {}
        self.index_of = {}

    def close(self):
        os.close(self.fd)

    def drain(self):
        """The reports that have come: (index, pid, at)."""
        found = []
        try:
            while data := os.read(self.fd, REPORT.size * 2048):
                found.extend(REPORT.iter_unpack(data))
        except BlockingIOError:
            pass
        for index, pid, _ in found:
            self.pid_of[index] = pid
            self.index_of[pid] = index
        return found

    def _waiting(self):
        size = fcntl.ioctl(self.fd, termios.FIONREAD, b"\0" * 4)
        return struct.unpack("i", size)[0] // REPORT.size

    def last_of(self, count, check):
        """Waits for so many reports; when the last of them was made. check() raises if in vain."""
        end = Deadline.within(Deadline.patience)
        while self._waiting() < count:
            check()
            if time.monotonic() > end:
                raise expired(f"{self._waiting()} of {count} services have reported")
            time.sleep(0.002)
        return max(at for _, _, at in self.drain())

    def next_of(self, index):
        """Waits for this service's next report; when it was made."""
        end = Deadline.within(Deadline.patience)
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while time.monotonic() < end:
            if not poll.poll(processes.REAP_MS):
                processes.reap()
            for found, _, at in self.drain():
                if found == index:
                    return at
        raise expired(f"service {index} was not replaced")


class Contender:
    """What all have in common. `slow` ones wait a second before they restart."""

    name = ""
    slow = True
    program = ""

    def __init__(self, scratch, tools):
        self.scratch = scratch
        self.lives = 0
        self.home = os.path.join(scratch, self.name)
        self.tools = tools
        self.root = 0
        self.roots = []
        self.reports = None
        self.env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C", "HOME": self.home}

    def available(self):
        return bool(shutil.which(self.program))

    def path(self, *parts):
        return os.path.join(self.home, *parts)

    def fresh(self, count):
        """An empty directory, configured for so many services; not timed. A new one each time,
        and none is removed before the end: ext4 searches long for an inode where thousands have
        been freed within the last seconds, and who creates log files would pay for our tidying."""
        self.clear()
        self.lives += 1
        self.home = os.path.join(self.scratch, f"{self.name}-{self.lives}")
        self.env["HOME"] = self.home
        os.mkdir(self.home)
        os.link(os.path.join(self.tools, "beacon"), self.path("beacon"))
        self.reports = Reports(self.path("fifo"))
        self.configure(count)

    def configure(self, count):
        pass

    def launch(self, count):
        """Begins to start everything; sets `root`, here or in settled()."""
        raise NotImplementedError

    def settled(self):
        """Waits until the contender itself says that it is up."""

    def check(self):
        """Fails at once if what was launched has died, instead of waiting for its services."""
        code = processes.exit_code(self.root)
        if code is not None:
            raise Failed(f"{self.name} has left with {code}")

    def boot(self, count):
        """Starts the contender with so many services; ms until the last of them ran."""
        self.fresh(count)
        start = now()
        self.launch(count)
        last = self.reports.last_of(count, self.check) if count else now()
        self.settled()
        self.roots.append(self.root)
        return (last - start) / 1e6

    def services(self):
        """{index: [pids]} of the beacons that live, by their own reports."""
        found = {}
        end = time.monotonic() + 2
        for pid in processes.runs_from(self.home):
            # It runs but has not said who it is: its report is under way.
            while pid not in self.reports.index_of and time.monotonic() < end:
                self.reports.drain()
                time.sleep(0.001)
            found.setdefault(self.reports.index_of.get(pid, -1), []).append(pid)
        return found

    def supervisors(self):
        """The processes that are not services."""
        services = set(processes.runs_from(self.home))
        return [pid for pid in processes.tree([self.root]) if pid not in services]

    def stop(self):
        """Stops all services; ms until the contender has confirmed that they are gone."""
        start = now()
        os.kill(self.root, signal.SIGTERM)
        processes.wait_gone(self.root, Deadline.patience, f"{self.name} stops")
        return (now() - start) / 1e6

    def leave(self):
        """Ends the supervisor itself, if stop() has left it."""

    def list_command(self, usage):
        """What lists all services, or None."""
        return None

    def begun(self):
        """Processes that a boot which failed half way has left."""
        return [self.root]

    def clear(self):
        """Whatever is left of this contender: ended, by pid."""
        self.roots.extend(self.begun())
        processes.end_all(lambda: processes.ours(self.roots) + processes.runs_from(self.home))
        self.root = 0
        self.roots.clear()
        if self.reports:
            self.reports.close()
            self.reports = None

    def lap(self, times, command):
        """ms of each of so many runs of a command, from before its fork to its exit."""
        out, err = self.path("laps"), self.path("laps.err")
        pid = spawn([os.path.join(self.tools, "floor"), "lap", str(times), *command],
                    self.env, out, err)
        if processes.wait(pid, Deadline.patience, command[0]) != 0:
            raise Failed(processes.read(err).strip().replace("\n", "; "))
        return [int(line) / 1e6 for line in processes.read(out).split()]

    def revive(self):
        """Kills the supervisor with SIGKILL and starts it again; ms until it says it is up."""
        self.roots.extend(processes.tree([self.root]))
        os.kill(self.root, signal.SIGKILL)
        processes.wait_gone(self.root, Deadline.patience, f"{self.name} dies")
        processes.reap()
        start = now()
        self.relaunch()
        self.roots.append(self.root)
        return (now() - start) / 1e6

    def relaunch(self):
        self.launch(0)

    def managed(self):
        """{index: pid} of what it claims to supervise, or None if it cannot say."""
        return None


class Floor(Contender):
    name = "floor"
    slow = False

    def available(self):
        return True

    def launch(self, count):
        self.root = spawn([os.path.join(self.tools, "floor"), "run", str(count),
                           self.path("beacon"), self.path("fifo")], self.env)


class Opm(Contender):
    name = "opm"
    slow = False

    def __init__(self, scratch, tools, program, keys):
        super().__init__(scratch, tools)
        self.program = program
        self.keys = keys
        self.client = 0

    def available(self):
        return os.access(self.program, os.X_OK)

    def configure(self, count):
        self.env["OPM_HOME"] = self.path("state")
        services = [{"name": f"s{i}", "command": [self.path("beacon"), self.path("fifo"), str(i)],
                     "cwd": self.home, "min_uptime": "0s", **self.keys} for i in range(count)]
        with open(self.path("services.json"), "w", encoding="utf-8") as file:
            json.dump({"services": services}, file)

    def launch(self, count):
        what = ["import", self.path("services.json")] if count else ["daemon", "start"]
        self.client = self._begin(what)

    def settled(self):
        self._end(self.client, "opm import")
        self.root = int(processes.read(self.path("state", "opm.pid")) or 0)
        if not self.root:
            raise Failed("opm.pid is empty")

    def check(self):
        code = processes.exit_code(self.client)
        if code:
            self._end(self.client, "opm import")

    def begun(self):
        pid = processes.read(self.path("state", "opm.pid")).strip()
        return [self.root, self.client, int(pid) if pid.isdigit() else 0]

    def _begin(self, words):
        return spawn([self.program, *words], self.env, self.path("out"), self.path("err"))

    def _end(self, pid, what):
        code = processes.wait(pid, Deadline.patience, what)
        if code != 0:
            said = processes.read(self.path("err")).strip().splitlines()
            raise Failed(f"{what}: exit {code}: {said[-1] if said else ''}")

    def _ask(self, *words):
        self._end(self._begin(words), "opm " + " ".join(words))
        return processes.read(self.path("out"))

    def stop(self):
        start = now()
        self._ask("stop", "all")
        return (now() - start) / 1e6

    def leave(self):
        self._ask("daemon", "stop")
        processes.wait_gone(self.root, Deadline.patience, "opm daemon stop")

    def list_command(self, usage):
        return [self.program, "ls"] + ([] if usage else ["--no-usage"])

    def connect_command(self):
        return [os.path.join(self.tools, "floor"), "connect", self.path("state", "opm.sock")]

    def relaunch(self):
        self._ask("daemon", "start")
        self.root = int(processes.read(self.path("state", "opm.pid")) or 0)

    def managed(self):
        listed = json.loads(self._ask("ls", "--no-usage", "--format", "json"))
        return {int(one["name"][1:]): one["pid"] for one in listed if one["status"] == "online"}


class Scanned(Contender):
    """runit and s6: a directory of directories with a program `run` in each."""

    def configure(self, count):
        os.mkdir(self.path("scan"))
        for index in range(count):
            os.mkdir(self.path("scan", f"s{index}"))
            os.link(self.path("beacon"), self.path("scan", f"s{index}", "run"))

    def directories(self):
        return [entry.path for entry in os.scandir(self.path("scan")) if entry.name[0] == "s"]

    def all_gone(self, of):
        """Waits for every one of these: here nobody confirms it for us."""
        end = Deadline.within(Deadline.patience)
        for pid in of:
            while os.path.exists(f"/proc/{pid}"):
                if time.monotonic() > end:
                    raise expired(f"{self.name} stops")
                time.sleep(0.001)
                processes.reap()


class Runit(Scanned):
    name = "runit"
    program = "runsvdir"

    def launch(self, count):
        self.root = spawn([shutil.which("runsvdir"), "-P", self.path("scan")], self.env)

    def stop(self):
        of = processes.tree([self.root])
        start = now()
        os.kill(self.root, signal.SIGHUP)
        self.all_gone(of)
        return (now() - start) / 1e6

    def list_command(self, usage):
        return [shutil.which("sv"), "status", *self.directories()]


class S6(Scanned):
    name = "s6"
    program = "s6-svscan"

    def launch(self, count):
        self.root = spawn([shutil.which("s6-svscan"), "-c", "10000", self.path("scan")], self.env)

    def stop(self):
        of = processes.tree([self.root])
        start = now()
        os.kill(self.root, signal.SIGTERM)
        self.all_gone(of)
        return (now() - start) / 1e6


class Supervisord(Contender):
    name = "supervisord"
    program = "supervisord"

    def configure(self, count):
        # Each of its children closes minfds descriptors, one by one: no more than it needs.
        with open(self.path("conf"), "w", encoding="utf-8") as file:
            file.write(
                "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
                f"minfds={1024 + 4 * count}\nminprocs=1\npidfile={self.path('pid')}\n"
                f"[unix_http_server]\nfile={self.path('sock')}\n"
                f"[supervisorctl]\nserverurl=unix://{self.path('sock')}\n"
                "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory="
                "supervisor.rpcinterface:make_main_rpcinterface\n")
            for index in range(count):
                file.write(
                    f"[program:s{index}]\nstartsecs=0\nautorestart=true\nstdout_logfile=NONE\n"
                    f"stderr_logfile=NONE\ncommand={self.path('beacon')} {self.path('fifo')} "
                    f"{index}\n")

    def launch(self, count):
        self.root = spawn([shutil.which("supervisord"), "-c", self.path("conf")], self.env)

    def list_command(self, usage):
        return [shutil.which("supervisorctl"), "-c", self.path("conf"), "status"]


RIVALS = (Runit, S6, Supervisord)
