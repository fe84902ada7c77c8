#!/usr/bin/env python3
"""What it costs to have a service's output in a file: `cat > file`, s6-log, svlogd and PM2 beside
opm, whose services write themselves (direct) or by its daemon (plain lines, lines with stamps).

A writer writes so many MB as fast as it can, in lines of 100 bytes, by writes of 64 KB or of one
line each; it takes the time from its first write to its last, and the longest of them. The time of
a row ends when all of it is in the log, and counts the CPU of writer and carrier. Ratios are to
the file itself (direct) and to `cat > file` (carried), in the same round.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import bench
import processes

SECONDS = 900
LINE = 100
CHUNK = 65500
FLOOD = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}
/* flood BYTES SIZE REPORT: then it sleeps */
int main(int argc, char **argv)
{
	static char text[65536];
	long left = atol(argv[1]), size = atol(argv[2]), done;
	double first, last, most = 0;
	struct rusage used;
	FILE *report;
	for (int at = 0; at < (int)sizeof text; at++)
		text[at] = at % 100 == 99 ? '\n' : 'a' + at % 23;
	first = now();
	for (; left > 0; left -= done) {
		last = now();
		done = write(1, text, left < size ? left : size);
		if (done < 0)
			return perror("write"), 1;
		last = now() - last;
		most = last > most ? last : most;
	}
	getrusage(RUSAGE_SELF, &used);
	report = fopen(argv[3], "a");
	fprintf(report, "%f %f %f\n", first, most, used.ru_utime.tv_sec * 1e3 + used.ru_stime.tv_sec * 1e3
		+ used.ru_utime.tv_usec / 1e3 + used.ru_stime.tv_usec / 1e3);
	fclose(report);
	if (argc > 4)
		pause();
	return 0;
}
"""


class Way:
    """One way to a log, for so many writers of so many bytes by writes of this size."""

    def __init__(self, args, scratch):
        self.args, self.scratch = args, scratch
        self.flood = os.path.join(scratch, "flood")

    def fresh(self):
        self.dir = os.path.join(self.scratch, f"{self.name}-{time.monotonic_ns()}")
        os.mkdir(self.dir)

    def writer(self, total, size, *more):
        return [self.flood, str(total), str(size), os.path.join(self.dir, "report"), *more]

    def logged(self):
        """Bytes that have come to the logs."""
        found = 0
        for where, _, names in os.walk(self.dir):
            if "log" in os.path.basename(where) or where == self.dir:
                found += sum(os.stat(os.path.join(where, name)).st_size for name in names
                             if "log" in name or name in ("current",) or name.startswith("@"))
        return found

    def carriers(self):
        return []

    def cpu(self, of):
        return sum(processes.usage([pid])[0] for pid in of if os.path.exists(f"/proc/{pid}"))

    def run(self, count, total, size):
        """(ms, CPU ms, the longest write in ms) of all."""
        self.fresh()
        self.begin(count, total, size)
        before = self.cpu(self.carriers())
        self.start()
        end = processes.Deadline.within(30)
        report = os.path.join(self.dir, "report")
        while processes.read(report).count("\n") < count or self.logged() < count * total:
            if time.monotonic() > end:
                said = f"{self.logged():,} of {count * total:,} bytes came"
                raise processes.Failed(f"{self.name}: {said}")
            time.sleep(0.001)
        ended = time.monotonic() * 1e3
        cpu = self.cpu(self.carriers()) - before if self.carriers() else 0
        lines = [[float(word) for word in line.split()]
                 for line in processes.read(report).splitlines()]
        self.end()
        first, longest, own = zip(*lines)
        return ended - min(first), cpu + sum(own), max(longest)


class Piped(Way):
    """A shell's pipe: the writer, and a program that has its output."""

    def begin(self, count, total, size):
        self.all, self.count, self.words = [], count, (total, size)
        for number in range(count):
            where = os.path.join(self.dir, f"log{number}")
            os.mkdir(where)
            command, out = self.carrier(where)
            self.all.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out,
                                             stderr=subprocess.DEVNULL, cwd=where))

    def carriers(self):
        return [one.pid for one in self.all]

    def start(self):
        self.writers = [subprocess.Popen(self.writer(*self.words), stdout=one.stdin)
                        for one in self.all]

    def end(self):
        for one in self.writers:
            one.wait(30)
        for one in self.all:
            one.stdin.close()
            one.wait(30)


class Cat(Piped):
    name = "cat > file"

    def carrier(self, where):
        return ["cat"], open(os.path.join(where, "log"), "ab")


class S6(Piped):
    name = "s6-log"
    flags = ()

    def carrier(self, where):
        return ["s6-log", "-b", "n5", "s268435455", *self.flags, where], subprocess.DEVNULL


class S6Stamped(S6):
    name = "s6-log, stamps"
    flags = ("T",)


class Svlogd(Piped):
    name = "svlogd"
    flags = ()

    def carrier(self, where):
        with open(os.path.join(where, "config"), "w", encoding="utf-8") as file:
            file.write("s0\nn5\n")
        return ["svlogd", *self.flags, where], subprocess.DEVNULL


class SvlogdStamped(Svlogd):
    name = "svlogd, stamps"
    flags = ("-ttt",)


class File(Way):
    """The file itself, opened by a shell."""

    name = "the file"

    def begin(self, count, total, size):
        self.count, self.words = count, (total, size)

    def start(self):
        self.writers = []
        for number in range(self.count):
            with open(os.path.join(self.dir, f"log{number}"), "ab") as out:
                self.writers.append(subprocess.Popen(self.writer(*self.words), stdout=out))

    def end(self):
        for one in self.writers:
            one.wait(30)


class Opm(Way):
    name = "opm, direct"
    options = {}
    size = "0"

    def ask(self, *words):
        env = {"PATH": os.environ["PATH"], "OPM_HOME": os.path.join(self.dir, "state")}
        done = subprocess.run([self.args.opm, *words], env=env, cwd=self.dir, check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise processes.Failed(f"{self.name}: {done.stderr.strip()}")
        return done.stdout

    def begin(self, count, total, size):
        services = [{"name": f"w{number}", "command": self.writer(total, size, "stay"),
                     "log_max_size": self.size, "log_keep": 100000, **self.options,
                     "log_out": os.path.join(self.dir, f"log{number}")}
                    for number in range(count)]
        with open(os.path.join(self.dir, "s.json"), "w", encoding="utf-8") as file:
            json.dump({"services": services}, file)
        self.ask("daemon", "start")
        self.pid = int(processes.read(os.path.join(self.dir, "state", "opm.pid")))

    def carriers(self):
        return [self.pid]

    def start(self):
        self.ask("import", "s.json")

    def end(self):
        self.ask("daemon", "stop", "--services")


class Rotated(Opm):
    """The same, and its head becomes an archive every few MB."""

    name, size = "opm, direct, rotated", "4M"


class Stamped(Opm):
    name, options = "opm, stamps", {"log_time": "rfc3339"}


class Run(Piped):
    """`opm run` with its output in a file: lines as they are, through opm."""

    name = "opm run, plain"

    def begin(self, count, total, size):
        self.count, self.words, self.all = count, (total, size), []

    def start(self):
        services = [{"name": f"w{number}", "command": self.writer(*self.words, "stay")}
                    for number in range(self.count)]
        # A service that is alone would write to the file itself.
        services.append({"name": "idle", "command": ["sleep", "1000000"]})
        with open(os.path.join(self.dir, "s.json"), "w", encoding="utf-8") as file:
            json.dump({"services": services}, file)
        env = {"PATH": os.environ["PATH"], "OPM_HOME": os.path.join(self.dir, "state")}
        with open(os.path.join(self.dir, "log"), "ab") as out:
            self.all = [subprocess.Popen([self.args.opm, "run", "--prefix", "none", "s.json"],
                                         env=env, cwd=self.dir, stdin=subprocess.DEVNULL,
                                         stdout=out, stderr=subprocess.DEVNULL)]

    def end(self):
        self.all[0].terminate()
        self.all[0].wait(30)


class Pm2(Way):
    name = "PM2"

    def ask(self, *words):
        env = {**os.environ, "PM2_HOME": os.path.join(self.dir, "pm2"), "PM2_SILENT": "true"}
        subprocess.run([self.args.pm2, *words], env=env, cwd=self.dir, check=True, timeout=120,
                       stdin=subprocess.DEVNULL, capture_output=True)

    def begin(self, count, total, size):
        apps = [{"name": f"w{number}", "script": self.flood, "interpreter": "none",
                 "args": self.writer(total, size, "stay")[1:],
                 "out_file": os.path.join(self.dir, f"log{number}")} for number in range(count)]
        with open(os.path.join(self.dir, "p.json"), "w", encoding="utf-8") as file:
            json.dump({"apps": apps}, file)
        self.ask("ping")
        self.pid = int(processes.read(os.path.join(self.dir, "pm2", "pm2.pid")))

    def carriers(self):
        return [self.pid]

    def start(self):
        self.ask("start", "p.json")

    def end(self):
        self.ask("kill")


WAYS = (File, Opm, Rotated, Cat, Run, Stamped, S6, S6Stamped, Svlogd, SvlogdStamped, Pm2)


def available(way, args):
    program = {Pm2: args.pm2, S6: "s6-log", S6Stamped: "s6-log", Svlogd: "svlogd",
               SvlogdStamped: "svlogd"}.get(way, "true")
    return bool(program and shutil.which(program))


def fairness(args, scratch):
    """ms of `ls` and of a restart, with nobody else and while ten services shout."""
    way = Stamped(args, scratch)
    way.fresh()
    way.begin(10, 1 << 40, CHUNK)
    way.ask("start", "--name", "quiet", "--min-uptime", "0s", "--", "sleep", "1000000")

    def laps(words, times=15):
        took = []
        for _ in range(times):
            began = time.monotonic()
            way.ask(*words)
            took.append((time.monotonic() - began) * 1e3)
        return statistics.median(took)

    commands = (("ls", "--no-usage"), ("restart", "quiet"))
    quiet = [laps(words) for words in commands]
    way.ask("import", "s.json")
    time.sleep(1)
    loud = [laps(words) for words in commands]
    # As many that want the CPU, and write nothing: what is the scheduler's is not opm's.
    way.ask("remove", "w*")
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(10)]
    spun = [laps(words) for words in commands]
    for one in busy:
        one.kill()
        one.wait()
    way.end()
    return [(" ".join(words), *found) for words, *found in zip(commands, quiet, loud, spun)]


def table(samples):
    head = ("", "64 KB writes: MB/s", "CPU ms/MB", "longest write, ms", "lines: MB/s",
            "CPU ms/MB", "100 writers: MB/s", "to the file, to cat")
    lines = [head, ("---",) * len(head)]

    def median(key):
        return statistics.median(samples[key]) if samples.get(key) else None

    show = lambda value, form="{:,.0f}": form.format(value) if value is not None else "-"
    for way in WAYS:
        of = lambda kind, what: median((way.name, kind, what))
        if of("chunks", "rate") is None:
            continue

        def ratio(to):
            both = [f"{statistics.median(mine / theirs for mine, theirs in zip(a, b)):.2f}"
                    for kind in ("chunks", "lines", "hundred")
                    if (a := samples.get((way.name, kind, "rate")))
                    and (b := samples.get((to, kind, "rate")))]
            return " ".join(both)
        lines.append((way.name, show(of("chunks", "rate")), show(of("chunks", "cpu"), "{:.2f}"),
                      show(of("chunks", "longest"), "{:.1f}"), show(of("lines", "rate")),
                      show(of("lines", "cpu"), "{:.2f}"), show(of("hundred", "rate")),
                      f"{ratio('the file')}; {ratio('cat > file')}"))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measure(args, scratch):
    processes.Deadline.at = time.monotonic() + SECONDS
    processes.become_subreaper()
    source = os.path.join(scratch, "flood.c")
    with open(source, "w", encoding="utf-8") as file:
        file.write(FLOOD)
    subprocess.run(["cc", "-O2", "-o", os.path.join(scratch, "flood"), source], check=True)
    load, samples = os.getloadavg()[0], {}
    ways = [way(args, scratch) for way in WAYS if available(way, args)]
    mb = args.megabytes
    kinds = {"chunks": (1, mb, CHUNK), "lines": (1, max(1, mb // 8), LINE),
             "hundred": (100, max(1, mb // 100), CHUNK)}
    try:
        for turn in range(args.rounds):
            for kind, (count, each, size) in kinds.items():
                for way in ways[turn % len(ways):] + ways[:turn % len(ways)]:
                    try:
                        took, cpu, longest = way.run(count, (each << 20) // LINE * LINE, size)
                    except (processes.Failed, subprocess.SubprocessError) as error:
                        print(f"failed: {kind}: {error}", flush=True)
                        continue
                    add = lambda what, value: samples.setdefault(
                        (way.name, kind, what), []).append(value)
                    add("rate", count * each / took * 1e3)
                    add("cpu", cpu / (count * each))
                    add("longest", longest)
                    shutil.rmtree(way.dir, ignore_errors=True)
            bench.say(f"round {turn + 1} of {args.rounds}")
        print(table(samples), flush=True)
        rows = fairness(args, scratch)
    except processes.OutOfTime:
        bench.say("the time was up")
        rows = []
    for words, quiet, loud, spun in rows:
        print(f"\n{words}: {quiet:.1f} ms alone, {loud:.1f} ms while ten services shout through "
              f"the daemon (x{loud / quiet:.1f}), {spun:.1f} ms beside ten that only spin")
    print(f"\n{args.rounds} rounds of {mb} MB; load average {load:.1f} at the start, "
          f"{os.getloadavg()[0]:.1f} at the end.")


def main():
    parser = argparse.ArgumentParser(prog="logs.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--opm", metavar="PATH", default=bench.default_opm(), help="default: the release build")
    add("--pm2", metavar="PATH", default=shutil.which("pm2"), help="default: the one in PATH")
    add("--rounds", type=int, default=5)
    add("--megabytes", type=int, default=200, help="that one writer writes in a round")
    args = parser.parse_args()
    args.opm = os.path.abspath(args.opm)
    return bench.guard(args, measure, SECONDS)


if __name__ == "__main__":
    sys.exit(main())
