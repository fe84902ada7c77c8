#!/usr/bin/env python3
"""What a PID 1 costs: opm init against tini, tini-static, dumb-init and catatonit.

    init_footprint.py [--opm PATH] [--rounds N] [--early N] [--idle SECONDS] [--json FILE]
                      [--inits opm,tini,...]

All contenders are measured in one interleaved run, in an order drawn anew for each round, so
that a noisy machine is noisy for all of them; medians are reported. Who isn't installed is left
out and said to be. The early signals as PID 1 need root (or CAP_SYS_ADMIN).

"direct" is the program without any init: the floor.
"""

import argparse
import ctypes
import json
import os
import random
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

CLONE_NEWPID = 0x20000000
HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))

# Two x86-64 programs of a few bytes each: a libc in the child would cost more than what is
# measured. clock: writes CLOCK_MONOTONIC to fd 1 and exits. sleeper: pauses for ever.
CLOCK = bytes.fromhex(
    "b8e4000000"  # mov eax, 228      clock_gettime
    "bf01000000"  # mov edi, 1        CLOCK_MONOTONIC
    "488d7424f0"  # lea rsi, [rsp-16]
    "0f05"  # syscall
    "b801000000"  # mov eax, 1        write
    "bf01000000"  # mov edi, 1
    "488d7424f0"  # lea rsi, [rsp-16]
    "ba10000000"  # mov edx, 16
    "0f05"  # syscall
    "b83c000000"  # mov eax, 60       exit
    "31ff0f05"  # xor edi, edi; syscall
)
SLEEPER = bytes.fromhex("b8220000000f05ebf7")  # mov eax, 34 (pause); syscall; jmp

WAITER = """
import os, signal, sys, time
signals = {signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
os.write(1, b"up")
while True:
    signal.sigwaitinfo(signals)
    os.write(1, time.monotonic_ns().to_bytes(8, "little"))
"""


def elf(code):
    """A static executable around the code."""
    base = 0x400000
    offset = 64 + 56
    size = offset + len(code)
    head = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + offset, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return head + code


def contenders(opm):
    """Name -> (path, flags that make it forward to the group, as opm does)."""
    found = {"direct": (None, [])}
    table = {
        "opm": (opm, ["init", "-s"]),
        "tini": (shutil.which("tini"), ["-s", "-g", "--"]),
        "tini-static": (shutil.which("tini-static"), ["-s", "-g", "--"]),
        "dumb-init": (shutil.which("dumb-init"), ["--"]),
        "catatonit": (shutil.which("catatonit"), ["--"]),
    }
    for name, (path, flags) in table.items():
        if path and os.access(path, os.X_OK):
            found[name] = (path, [path, *flags])
        else:
            print(f"{name}: not installed, left out", file=sys.stderr)
    return found


def spawn(prefix, words, stdout=None):
    argv = [*prefix, *words]
    actions = [(os.POSIX_SPAWN_DUP2, stdout, 1)] if stdout is not None else []
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)


def end(pid, number=signal.SIGTERM):
    """Ends an init that we started, and its children, which we hold by pidfd."""
    pins = [os.pidfd_open(child) for child in child_pids(pid)]
    os.kill(pid, number)
    if not wait_until(pid, 2.0):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for pin in pins:
        try:
            signal.pidfd_send_signal(pin, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(pin)


def wait_until(pid, seconds):
    """Reaps the child; False if it is still there when the time is over."""
    fd = os.pidfd_open(pid)
    try:
        if not select.select([fd], [], [], seconds)[0]:
            return False
    finally:
        os.close(fd)
    os.waitpid(pid, 0)
    return True


def child_pids(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def poll(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("condition never came true")
        time.sleep(0.001)


def measure_start(prefix, clock):
    """(ms until the program's first instruction, ms until the init has been reaped)."""
    reader, writer = os.pipe()
    begin = time.monotonic_ns()
    pid = spawn(prefix, [clock], writer)
    os.waitpid(pid, 0)
    whole = time.monotonic_ns() - begin
    seconds, nanos = struct.unpack("<qq", os.read(reader, 16))
    os.close(reader)
    os.close(writer)
    return (seconds * 10**9 + nanos - begin) / 1e6, whole / 1e6


def measure_rest(prefix, sleeper, idle):
    """RSS, and what of it is written to, in kB, and context switches while idle."""
    pid = spawn(prefix, [sleeper])
    try:
        if prefix:
            poll(lambda: child_pids(pid))
        time.sleep(0.2)
        sizes = {}
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                words = line.split()
                if words[0] in ("Rss:", "Private_Dirty:"):
                    sizes[words[0].rstrip(":")] = int(words[1])
        before = switches(pid)
        time.sleep(idle)
        return sizes.get("Rss", 0), sizes.get("Private_Dirty", 0), switches(pid) - before
    finally:
        end(pid)


def switches(pid):
    with open(f"/proc/{pid}/status") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)


def measure_latency(prefix, count):
    """Microseconds from kill(init) to the program's having the signal."""
    reader, writer = os.pipe()
    pid = spawn(prefix, [sys.executable, "-S", "-c", WAITER], writer)
    os.close(writer)
    taken = []
    try:
        assert os.read(reader, 2) == b"up"
        for _ in range(count):
            time.sleep(0.002)
            begin = time.monotonic_ns()
            os.kill(pid, signal.SIGUSR1)
            at = int.from_bytes(os.read(reader, 8), "little")
            taken.append((at - begin) / 1e3)
    finally:
        os.close(reader)
        end(pid)
    return taken


def measure_early(prefix, sleeper, delay):
    """Whether a TERM sent so long after the exec was lost, init being an ordinary process."""
    pid = spawn(prefix, [sleeper])
    spin(delay)
    os.kill(pid, signal.SIGTERM)
    if wait_until(pid, 0.5):
        return False
    end(pid, signal.SIGKILL)
    return True


def measure_early_first(prefix, sleeper, delay, libc):
    """The same with init as PID 1 of a namespace of its own; None if we may not make one."""
    maker = os.fork()
    if maker == 0:
        if libc.unshare(CLONE_NEWPID) != 0:
            os._exit(2)
        pid = spawn(prefix, [sleeper])
        spin(delay)
        os.kill(pid, signal.SIGTERM)
        lost = not wait_until(pid, 0.5)
        if lost:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os._exit(1 if lost else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(maker, 0)[1])
    return {0: False, 1: True}.get(code)


def spin(delay):
    until = time.perf_counter() + delay
    while time.perf_counter() < until:
        pass


def shuffled(names):
    names = list(names)
    random.shuffle(names)
    return names


def run(options):
    assert os.uname().machine == "x86_64", "the tiny programs are x86-64 code"
    found = contenders(options.opm)
    if options.inits:
        wanted = {"direct", *options.inits.split(",")}
        found = {name: how for name, how in found.items() if name in wanted}
    libc = ctypes.CDLL(None, use_errno=True)
    data = {name: {"start": [], "whole": [], "rest": [], "latency": []} for name in found}
    # Fresh page cache would show as private and dirty.
    os.sync()
    with tempfile.TemporaryDirectory() as folder:
        programs = {}
        for name, code in (("clock", CLOCK), ("sleeper", SLEEPER)):
            path = os.path.join(folder, name)
            with open(path, "wb") as file:
                file.write(elf(code))
            os.chmod(path, 0o755)
            programs[name] = path
        for _ in range(options.rounds):
            for name in shuffled(found):
                start, whole = measure_start(found[name][1], programs["clock"])
                data[name]["start"].append(start)
                data[name]["whole"].append(whole)
        for _ in range(3):
            for name in shuffled(found):
                idle = options.idle if len(data[name]["rest"]) == 0 else 0
                data[name]["rest"].append(
                    measure_rest(found[name][1], programs["sleeper"], idle)
                )
        for _ in range(5):
            for name in shuffled(found):
                data[name]["latency"] += measure_latency(found[name][1], 60)
        early = {name: [0, 0, 0] for name in found if name != "direct"}
        for number in range(options.early):
            # From the very first instant to 6 ms, when every init has long been at work.
            delay = 0.006 * number / max(1, options.early)
            for name in shuffled(early):
                prefix = found[name][1]
                early[name][0] += measure_early(prefix, programs["sleeper"], delay)
                lost = measure_early_first(prefix, programs["sleeper"], delay, libc)
                early[name][1] += bool(lost)
                early[name][2] += lost is not None
    return report(found, data, early, options)


def report(found, data, early, options):
    floor = statistics.median(data["direct"]["start"])
    floor_whole = statistics.median(data["direct"]["whole"])
    rows = {}
    for name, (path, _) in found.items():
        mine = data[name]
        rows[name] = {
            "binary_bytes": os.path.getsize(path) if path else None,
            "rss_kb": statistics.median(rest[0] for rest in mine["rest"]),
            "dirty_kb": statistics.median(rest[1] for rest in mine["rest"]),
            "start_ms": round(statistics.median(mine["start"]), 4),
            "start_over_direct_ms": round(statistics.median(mine["start"]) - floor, 4),
            "whole_over_direct_ms": round(statistics.median(mine["whole"]) - floor_whole, 4),
            "signal_us": round(statistics.median(mine["latency"]), 1),
            "wake_ups": mine["rest"][0][2],
            "early_lost": early[name][0] if name in early else None,
            "early_lost_pid1": early[name][1] if name in early and early[name][2] else None,
        }
    return {"rounds": options.rounds, "early": options.early, "idle_s": options.idle, "inits": rows}


def show(result):
    columns = [
        ("binary_bytes", "bytes"),
        ("rss_kb", "RSS kB"),
        ("dirty_kb", "dirty kB"),
        ("start_ms", "start ms"),
        ("start_over_direct_ms", "+ms"),
        ("whole_over_direct_ms", "+ms whole"),
        ("signal_us", "signal us"),
        ("wake_ups", f"wake-ups/{result['idle_s']:g}s"),
        ("early_lost", f"lost/{result['early']}"),
        ("early_lost_pid1", "as PID 1"),
    ]
    print(f"{'':12}" + "".join(f"{title:>13}" for _, title in columns))
    for name, row in result["inits"].items():
        cells = ["-" if row[key] is None else f"{row[key]:g}" for key, _ in columns]
        cells[0] = "-" if row["binary_bytes"] is None else str(row["binary_bytes"])
        print(f"{name:12}" + "".join(f"{cell:>13}" for cell in cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    static = os.path.join(TREE, "target/x86_64-unknown-linux-gnu/release/opm")
    parser.add_argument("--opm", default=static, help="the static binary")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--early", type=int, default=1000)
    parser.add_argument("--idle", type=float, default=5.0)
    parser.add_argument("--inits", help="only these, by name, with commas between")
    parser.add_argument("--json", help="write the figures here too ('-': stdout)")
    options = parser.parse_args()
    result = run(options)
    show(result)
    text = json.dumps(result, indent=1)
    if options.json == "-":
        print(text)
    elif options.json:
        with open(options.json, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
