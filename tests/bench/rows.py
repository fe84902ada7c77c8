"""What is measured. Every figure goes into one flat list of samples:
{figure, who, n, round, value}. Judging them is report.py's work."""

import os
import random
import signal
import time

from processes import Failed, OutOfTime, memory, now, usage

ONE_LIFE = ("boot", "memory", "ls", "mass", "stop")
ROWS = ("boot", "respawn", "beside", "mass", "memory", "idle", "ls", "stop", "adopt")
# opm looks at new logs a second after a start, and lets go of its code a second after that.
REST = 2.5


class Bench:
    """The samples, and how much of everything there is to be."""

    def __init__(self, everyone, quick, say):
        self.everyone = everyone
        self.quick = quick
        self.say = say
        self.samples = []
        self.failures = []

    def add(self, figure, who, count, turn, value):
        self.samples.append({"figure": figure, "who": who.name, "n": count, "round": turn,
                             "value": value})

    def fast(self):
        return [one for one in self.everyone if not one.slow]

    def slow(self):
        return [one for one in self.everyone if one.slow]

    def attempt(self, what, who, work):
        """One contender's failure ends its part in this row, not the run."""
        try:
            work()
            return True
        except OutOfTime:
            raise
        except (Failed, OSError, ValueError, KeyError) as error:
            self.failed(what, who, error)
            who.clear()
            return False

    def failed(self, what, who, error):
        words = f"{what}: {who.name}: {error}"
        self.say(f"  FAILED {words}")
        if words not in self.failures:
            self.failures.append(words)

    # One life of a contender: boot, look, kill all, stop.

    def lives(self, rows, count, contenders, rounds, first=0):
        """Lives of the contenders in turn; the order changes each round, as noise drifts."""
        contenders = list(contenders)
        for turn in range(first, first + rounds):
            self.say(f"  {count} services, round {turn - first + 1} of {rounds}")
            for who in contenders[turn % len(contenders):] + contenders[:turn % len(contenders)]:
                if not self.attempt(f"{count} services", who,
                                    lambda who=who: self.life(rows, count, who, turn)):
                    contenders = [one for one in contenders if one is not who]
            if not contenders:
                return

    def life(self, rows, count, who, turn):
        self.add("boot_ms", who, count, turn, who.boot(count))
        cpu, _ = usage(who.supervisors())
        self.add("boot_cpu_ms", who, count, turn, cpu)
        self.census("boot", who, count, turn)
        if "memory" in rows:
            time.sleep(REST)
            self.memory(count, who, turn)
        if "ls" in rows and count:
            try:
                self.listing(count, who, turn)
            except Failed as error:
                self.failed("ls", who, error)
        if "mass" in rows and count:
            self.mass(count, who, turn)
        if "growth" in rows and count:
            self.replacements("respawn_ms", who, count, turn, 20)
        if count:
            took = who.stop()
            self.add("stop_left", who, count, turn, left := len(who.services()))
            if left:
                raise Failed(f"{left} of {count} services outlived the stop")
            self.add("stop_ms", who, count, turn, took)
        who.leave()
        who.clear()

    def memory(self, count, who, turn):
        of = who.supervisors()
        pss, dirty = memory(of)
        self.add("pss_kb", who, count, turn, pss)
        self.add("dirty_kb", who, count, turn, dirty)
        self.add("processes", who, count, turn, len(of))

    def listing(self, count, who, turn):
        times = 3 if who.slow else 10
        for figure, with_usage in (("ls_ms", False), ("ls_usage_ms", True)):
            command = who.list_command(with_usage)
            if command and (who.name == "opm" or not with_usage):
                for value in who.lap(times, command):
                    self.add(figure, who, count, turn, value)
        if who.name == "opm":
            for value in who.lap(times, who.connect_command()):
                self.add("connect_ms", who, count, turn, value)

    def census(self, what, who, count, turn):
        services = who.services()
        self.add(f"{what}_alive", who, count, turn, len(services))
        self.add(f"{what}_twice", who, count, turn,
                 sum(len(pids) > 1 for pids in services.values()))
        return services

    def mass(self, count, who, turn):
        if who.slow:
            time.sleep(1.1)  # runit holds back whatever has run for less than a second
        who.reports.drain()
        pids = list(who.reports.pid_of.values())
        start = now()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        last = who.reports.last_of(count, who.check)
        self.add("mass_ms", who, count, turn, (last - start) / 1e6)
        self.census("mass", who, count, turn)

    # Kill -9 to replaced.

    def replacement(self, who, index):
        """Kills one service; ms until the next incarnation has itself reported."""
        start = now()
        os.kill(who.reports.pid_of[index], signal.SIGKILL)
        return (who.reports.next_of(index) - start) / 1e6

    def replacements(self, figure, who, count, turn, times):
        for _ in range(times):
            time.sleep(0.002)
            value = self.replacement(who, random.randrange(count))
            self.add(figure, who, count, turn, value)

    def together(self, what, count, contenders, work):
        """Boots all of them at once, works, stops them: nothing but what is compared differs."""
        up = []
        try:
            for who in contenders:
                if self.attempt(what, who, lambda who=who: who.boot(count)):
                    up.append(who)
            if up:
                work(up)
        finally:
            for who in up:
                who.clear()

    def respawn(self, count, rounds, times):
        """Kill by kill in turn, so that all have the same noise."""
        what = "respawn" if count == 1 else f"respawn beside {count}"

        def work(up):
            for turn in range(rounds):
                for each in range(times):
                    for who in up[each % len(up):] + up[:each % len(up)]:
                        time.sleep(0.002)
                        value = self.replacement(who, random.randrange(count))
                        self.add("respawn_ms", who, count, turn, value)
                for who in up:
                    self.census("respawn", who, count, turn)

        self.together(what, count, self.fast(), work)

    def respawn_slow(self, count, times):
        """Those that wait a second: few samples, each after its service has run for a second."""

        def work(up):
            for turn in range(times):
                time.sleep(1.1)
                for who in list(up):
                    def once(who=who):
                        value = self.replacement(who, turn % count)
                        self.add("respawn_ms", who, count, turn, value)
                    if not self.attempt("respawn", who, once):
                        up.remove(who)

        self.together("respawn", count, self.slow(), work)

    # At rest.

    def idle(self, count, count_slow, seconds):
        """All at once: who is truly idle cannot disturb the others."""
        def work(up):
            def rest(slow):
                everyone = up + slow
                time.sleep(1.5)
                of = {who: who.supervisors() for who in everyone}
                before = {who: usage(of[who]) for who in everyone}
                time.sleep(seconds)
                for who in everyone:
                    after = usage(of[who])
                    n = count_slow if who.slow else count
                    self.add("idle_cpu_ms", who, n, 0, after[0] - before[who][0])
                    self.add("idle_switches", who, n, 0, after[1] - before[who][1])

            if self.slow():
                self.together("idle", count_slow, self.slow(), rest)
            else:
                rest([])

        self.say(f"  idle for {seconds} s")
        self.together("idle", count, self.fast(), work)

    # The supervisor dies.

    def adopt(self, count, contenders, rounds):
        for turn in range(rounds):
            self.say(f"  supervisor killed beside {count} services, round {turn + 1} of {rounds}")
            for who in list(contenders):
                if not self.attempt(f"adopt {count}", who,
                                    lambda who=who: self.revival(count, who, turn)):
                    contenders = [one for one in contenders if one is not who]

    def revival(self, count, who, turn):
        who.boot(count)
        before = dict(who.reports.pid_of)
        self.add("revive_ms", who, count, turn, who.revive())
        if who.slow:
            time.sleep(2)  # they say nothing when they are up
        after = self.census("revive", who, count, turn)
        kept = sum(before[index] in after.get(index, ()) for index in before)
        self.add("revive_kept", who, count, turn, kept)
        self.add("revive_processes", who, count, turn, len(who.supervisors()))
        managed = who.managed()
        if managed is not None:
            same = sum(managed.get(index) == pid for index, pid in before.items())
            self.add("revive_managed", who, count, turn, same)
            # What is managed is replaced when it dies, and is gone after a stop.
            self.replacements("revive_respawn_ms", who, count, turn, 3)
            who.stop()
            self.add("stop_left", who, count, turn, len(who.services()))
            who.leave()
        who.clear()


def run(bench, rows):
    """All rows that are asked for; the cheap and important ones first, as time is bounded."""
    quick = bench.quick
    of_life = [row for row in rows if row in ONE_LIFE]
    if "respawn" in rows:
        bench.say("respawn, 1 service")
        bench.respawn(1, 3 if quick else 5, 60 if quick else 100)
    if "beside" in rows:
        bench.say("respawn beside 1,000")
        bench.respawn(1000, 3 if quick else 5, 60 if quick else 100)
    rounds = 3 if quick else 7
    if of_life:
        bench.say("lives: " + ", ".join(of_life))
        bench.lives(of_life, 1000, bench.fast(), rounds)
        if "ls" in of_life or "boot" in of_life:
            bench.lives(of_life, 1, bench.fast(), 2 if quick else 5)
        if "memory" in of_life:
            bench.lives(("memory",), 0, bench.everyone, 1 if quick else 3)
    if "adopt" in rows:
        bench.say("supervisor killed -9 and started again")
        bench.adopt(1000, [one for one in bench.fast() if one.name == "opm"], 1 if quick else 5)
        bench.adopt(20, [one for one in bench.everyone if one.name != "floor"], 1 if quick else 2)
    if "idle" in rows:
        bench.say("idle")
        bench.idle(1000, 100, 3 if quick else 10)
    if of_life and bench.slow():
        bench.say("lives of the rivals")
        bench.lives(of_life, 100, bench.everyone, 1 if quick else 3)
    if "respawn" in rows and bench.slow():
        bench.say("respawn of the rivals")
        bench.respawn_slow(1, 2 if quick else 5)
    if "beside" in rows and bench.slow() and not quick:
        bench.say("respawn of the rivals beside 100")
        bench.respawn_slow(100, 5)
    if of_life and bench.slow() and not quick:
        bench.say("lives of the rivals at 1,000")
        bench.lives(of_life, 1000, bench.everyone, 2, first=rounds)


def grow(bench, sizes):
    """The same lives at growing sizes."""
    bench.say("growth")
    for count in sizes:
        rounds = 2 if bench.quick or count > 1000 else 3
        bench.lives(("memory", "ls", "mass", "growth"), count, bench.fast(), rounds)
