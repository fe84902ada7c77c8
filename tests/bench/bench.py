#!/usr/bin/env python3
"""The benchmark of opm: its rows beside a floor that only spawns and waits, and beside rivals.

Everything is interleaved in one run, because a machine's noise drifts: what counts is the ratio to
the floor of the same round. It asserts nothing; a missed target is a word in a table.

The process that is started becomes a guard and measures in a child of its own. Whatever happens to
the child, the guard ends all that descends from it, by pid, and removes the scratch directory.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True

import contenders
import processes
import report
import rows as measuring

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SIZES = (1, 100, 1000, 5000)
SECONDS, SECONDS_QUICK, GRACE = 560, 80, 20


def say(words):
    print(words, file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer rounds, under 90 seconds in all")
    add("--rows", default=",".join(measuring.ROWS), help="of " + ",".join(measuring.ROWS))
    add("--growth", action="store_true", help="instead: the figures at 1, 100, 1,000, 5,000")
    add("--opm", metavar="PATH", default=default_opm(), help="default: the release build")
    add("--opm-key", metavar="KEY=JSON", action="append", default=[],
        help="one more key of opm's services, such as no_logs=true")
    add("--bare", action="store_true",
        help="services without libc: their exec costs a quarter, so ratios are harder to keep")
    add("--json", metavar="FILE", default=os.path.join(ROOT, "target", "bench", "last.json"))
    add("--no-rivals", action="store_true", help="only floor and opm")
    add("--readme", metavar="FILE", help="measure nothing: put the last JSON's table into FILE")
    found = parser.parse_args()
    found.rows = [row for row in found.rows.split(",") if row]
    for row in found.rows:
        if row not in measuring.ROWS:
            parser.error(f"no such row: {row} (of {', '.join(measuring.ROWS)})")
    try:
        found.keys = {key: json.loads(value)
                      for key, _, value in (one.partition("=") for one in found.opm_key)}
    except ValueError as error:
        parser.error(f"--opm-key: {error}")
    return found


def default_opm():
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(target, "release", "opm")


def build(scratch, without_libc):
    """Compiles the floor and the beacon; a beacon without libc only where its assembly is known."""
    tools = os.path.join(scratch, "tools")
    os.mkdir(tools)
    bare = ["-nostdlib", "-ffreestanding", "-fno-stack-protector"]
    known = platform.machine() in ("x86_64", "aarch64")
    beacon = bare if without_libc and known else ["-DWITH_LIBC"]
    for name, flags in (("beacon", beacon), ("floor", [])):
        command = ["cc", "-O2", "-Wall", "-static", *flags, "-o", os.path.join(tools, name),
                   os.path.join(HERE, name + ".c")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"bench: cannot compile {name}.c: {done.stderr.strip()}")
    return tools


def raise_limits():
    """As many descriptors as we may have; and words on what bounds the number of services."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = int(processes.read("/proc/sys/fs/nr_open") or hard)
    for wanted in ((top, top), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, wanted)
            break
        except (ValueError, OSError):
            continue
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    tasks = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    pid_max = int(processes.read("/proc/sys/kernel/pid_max") or 0)
    return (f"limits here: {files:,} descriptors, "
            f"{'unlimited' if tasks < 0 else f'{tasks:,}'} processes, pid_max {pid_max:,}.")


def machine():
    model = next((one.partition(":")[2].strip()
                  for one in processes.read("/proc/cpuinfo").splitlines()
                  if one.startswith("model name")), platform.machine())
    return {"model": model, "cpus": os.cpu_count(), "kernel": platform.release()}


def competitors(args, scratch, tools, notes):
    """The floor, opm if it is there, and the rivals that are installed."""
    opm = contenders.Opm(scratch, tools, os.path.abspath(args.opm), args.keys)
    found = [contenders.Floor(scratch, tools)]
    if opm.available():
        found.append(opm)
        # Pages of a binary that was just built are dirty, and would count as the daemon's own.
        with open(opm.program, "rb") as file:
            os.fsync(file)
    else:
        notes.append(f"opm was not measured: {args.opm} is not there.")
    if not args.no_rivals:
        rivals = [rival(scratch, tools) for rival in contenders.RIVALS]
        found.extend(one for one in rivals if one.available())
        missing = [one.name for one in rivals if not one.available()]
        if missing:
            notes.append(f"rivals not installed here: {', '.join(missing)}.")
    return found


def measure(args, scratch):
    """The child's work: everything is measured, printed and written down."""
    began, load = time.monotonic(), os.getloadavg()[0]
    processes.Deadline.at = began + (SECONDS_QUICK if args.quick else SECONDS)
    processes.Deadline.patience = 10 if args.quick else 30
    processes.become_subreaper()
    notes = [raise_limits(), "Services are static programs "
             + ("without libc." if args.bare else "with libc.")]
    everyone = competitors(args, scratch, build(scratch, args.bare), notes)
    bench = measuring.Bench(everyone, args.quick, say)
    try:
        if args.growth:
            measuring.grow(bench, SIZES)
        else:
            measuring.run(bench, args.rows)
    except processes.OutOfTime:
        notes.append("The time was up before all rounds were done.")
    notes.append(f"load average {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end; "
                 f"{time.monotonic() - began:.0f} s in all.")
    view = report.View(bench.samples)
    with_opm = any(one.name == "opm" for one in everyone)
    result = {
        "when": datetime.date.today().isoformat(), "machine": machine(), "quick": args.quick,
        "bare": args.bare,
        "table": [] if args.growth else report.table(view, args.rows, with_opm),
        "growth": report.growth(view, SIZES) if args.growth else [], "sizes": SIZES,
        "failures": bench.failures, "notes": notes, "samples": bench.samples,
    }
    write(args.json, result, args.growth)
    print(report.text(result))


def write(path, result, only_growth):
    """Growth is kept beside the last table, and the table beside the last growth."""
    try:
        with open(path, encoding="utf-8") as file:
            before = json.load(file)
        kept = "table" if only_growth else "growth"
        result = {**result, kept: before[kept]}
    except (OSError, ValueError, KeyError):
        pass
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(result, file)
    os.replace(path + ".new", path)


def leave(signum, _frame):
    raise SystemExit(128 + signum)


def child(args, scratch, work):
    """Measures, never returns. It cleans up itself too, in case the guard was killed."""
    code = 1
    try:
        processes.die_with_parent(signal.SIGTERM)
        work(args, scratch)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
        if isinstance(leaving.code, str):
            say(leaving.code)
    except (processes.Failed, OSError) as error:
        say(f"bench: {error}")
    except Exception:  # ours; nothing may be lost of it when the child leaves at once
        traceback.print_exc()
    finally:
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, signal.SIG_IGN)
        processes.end_descendants()
        sys.stdout.flush()
        if os.getppid() == 1 or code != 0:
            shutil.rmtree(scratch, ignore_errors=True)
        os._exit(code)


def guard(args, work, seconds):
    """Starts the child, passes signals on, and cleans up after it."""
    processes.become_subreaper()
    scratch = tempfile.mkdtemp(prefix="opm-bench-")
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(sig, leave)
    pid = os.fork()
    if pid == 0:
        child(args, scratch, work)
    code = 1
    try:
        # A wait inside the child that is not bounded by its deadline is ended from here.
        signal.alarm(seconds + GRACE)
        code = processes.wait(pid, 1e6, "measuring")
    except SystemExit as leaving:
        code = leaving.code
        os.kill(pid, signal.SIGTERM)
    finally:
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(sig, signal.SIG_IGN)
        try:
            processes.wait(pid, 10, "the child's own cleaning")
        except (processes.Failed, KeyError):
            pass
        if not processes.end_descendants():
            say("bench: something of ours could not be ended")
        shutil.rmtree(scratch, ignore_errors=True)
    return code if code >= 0 else 128 - code


def main():
    args = arguments()
    if args.readme:
        try:
            with open(args.json, encoding="utf-8") as file:
                report.readme(json.load(file), args.readme)
        except (OSError, ValueError) as error:
            raise SystemExit(f"bench: {error} (run 'make bench' first)") from error
        return 0
    return guard(args, measure, SECONDS_QUICK if args.quick else SECONDS)


if __name__ == "__main__":
    sys.exit(main())
