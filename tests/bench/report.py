"""From samples to a table: medians, ratios to the floor of the same round, targets, marks."""

import re
import statistics
import textwrap

RIVALS = ("runit", "s6", "supervisord")
# dinit and nitro, the nearest, are not in Debian: measured once, elsewhere, beside the same floor.
RECORDED = {
    "boot": "dinit x1.53", "respawn": "dinit x1.15", "beside": "dinit x1.88", "mass": "dinit x1.24",
    "memory": "nitro 189 / 347, dinit 1,966 / 3,989", "idle": "dinit, nitro 0 / 0",
    "ls": "dinit 6.8", "stop": "nitro x1.22", "adopt20": "dinit, nitro 20 twice",
}
MARKERS = ("<!-- bench -->", "<!-- /bench -->")
NONE = "-"


def show(value):
    """A figure with as many digits as noise leaves meaningful."""
    if value is None:
        return NONE
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class View:
    """The samples of one run, asked by figure, contender and number of services."""

    def __init__(self, samples):
        self.by_key = {}
        for one in samples:
            key = (one["figure"], one["who"], one["n"])
            self.by_key.setdefault(key, {}).setdefault(one["round"], []).append(one["value"])

    def rounds(self, figure, who, count):
        found = self.by_key.get((figure, who, count), {})
        return {turn: statistics.median(values) for turn, values in found.items()}

    def all(self, figure, who, count):
        found = self.by_key.get((figure, who, count), {})
        return sorted(value for values in found.values() for value in values)

    def median(self, figure, who, count):
        found = self.rounds(figure, who, count)
        return statistics.median(found.values()) if found else None

    def p99(self, figure, who, count):
        values = self.all(figure, who, count)
        return values[min(len(values) - 1, int(len(values) * 0.99))] if values else None

    def worst(self, figure, who, count):
        values = self.all(figure, who, count)
        return values[-1] if values else None

    def least(self, figure, who, count):
        values = self.all(figure, who, count)
        return values[0] if values else None

    def ratio(self, figure, who, count):
        """Median of the rounds' own ratios to the floor: noise drifts, but slower than a round."""
        floor = self.rounds(figure, "floor", count)
        mine = self.rounds(figure, who, count)
        found = [mine[turn] / floor[turn] for turn in mine if floor.get(turn)]
        return statistics.median(found) if found else None

    def best_rival(self, figure, counts, to_floor=True):
        """The least median among the rivals, at the first of these sizes that any was run at."""
        for count in counts:
            found = [(self.median(figure, who, count), who) for who in RIVALS
                     if self.median(figure, who, count) is not None]
            if found:
                value, who = min(found)
                ratio = self.ratio(figure, who, count)
                note = f" at {count:,}" if count != counts[0] else ""
                times = f" (x{show(ratio)})" if ratio and to_floor else ""
                return f"{who} {show(value)}{note}{times}"
        return NONE

    def has(self, figure, count):
        return any(key[0] == figure and key[2] == count for key in self.by_key)


def line(row, floor, rival, opm, ratio, target, checks, recorded=""):
    """checks: what has to be true, None where opm was not measured."""
    known = [check for check in checks if check is not None]
    mark = NONE if not known or opm == NONE else "ok" if all(known) else "MISSED"
    if not checks and opm != NONE:
        mark = ""
    return {"row": row, "floor": floor, "rival": rival, "opm": opm,
            "recorded": RECORDED.get(recorded, NONE),
            "ratio": f"x{show(ratio)}" if ratio else NONE, "target": target, "mark": mark}


def at_most(value, bound):
    return None if value is None else value <= bound


def pair(first, second):
    return NONE if first is None else f"{show(first)} / {show(second)}"


def timed(view, name, row, bound, target):
    """A row that is one time, of 1,000 services, beside the floor's."""
    figure = name + "_ms"
    ratio = view.ratio(figure, "opm", 1000)
    found = line(row, show(view.median(figure, "floor", 1000)),
                 view.best_rival(figure, (1000, 100)), show(view.median(figure, "opm", 1000)),
                 ratio, target, [at_most(ratio, bound)], name)
    alive = view.least(name + "_alive", "opm", 1000)
    twice = view.worst(name + "_twice", "opm", 1000)
    if alive is not None:
        found["opm"] += f", {alive:,} alive, {twice} twice"
        if alive != 1000 or twice:
            found["mark"] = "MISSED"
    return found


def boot(view):
    return [timed(view, "boot", "boot 1,000 services, ms", 1.1, "x1.1, journal on")]


def respawn(view, count):
    figure = "respawn_ms"
    ratio = view.ratio(figure, "opm", count)
    twice = view.worst("respawn_twice", "opm", count)
    checks, target = [at_most(ratio, 1.3), at_most(twice, 0)], "p50 x1.3, gate on"
    if count > 1:
        tail, floor = view.p99(figure, "opm", count), view.p99(figure, "floor", count)
        checks.append(at_most(tail, 3 * floor) if tail is not None and floor else None)
        target = "p50 x1.3, p99 x3, gate on"
    where = "1 service" if count == 1 else f"beside {count:,}"
    return [line(f"kill -9 to replaced, {where}, p50 / p99, ms",
                 pair(view.median(figure, "floor", count), view.p99(figure, "floor", count)),
                 view.best_rival(figure, (1,) if count == 1 else (count, 100)),
                 pair(view.median(figure, "opm", count), view.p99(figure, "opm", count)),
                 ratio, target, checks, "respawn" if count == 1 else "beside")]


def mass(view):
    return [timed(view, "mass", "1,000 killed at once, all replaced, ms", 1.1,
                  "x1.1, 1,000 alive, 0 twice")]


def weight(view):
    def of(who, figure="pss_kb"):
        return pair(view.median(figure, who, 0), view.median(figure, who, 1000))

    none, many = view.median("pss_kb", "opm", 0), view.median("pss_kb", "opm", 1000)
    each = (many - none) / 1000 if none is not None and many is not None else None
    dirty = view.median("dirty_kb", "opm", 0)
    return [
        line("PSS at 0 / 1,000 services, kB", of("floor"),
             view.best_rival("pss_kb", (1000, 100), False), of("opm"), None, "2,048 at 0",
             [at_most(none, 2048)], "memory"),
        line("PSS for each service, kB", NONE, NONE, show(each), None, "1", [at_most(each, 1)]),
        line("private dirty at rest (0 / 1,000), kB", of("floor", "dirty_kb"),
             view.best_rival("dirty_kb", (1000, 100), False), of("opm", "dirty_kb"), None,
             "300 at 0", [at_most(dirty, 300)]),
    ]


def idle(view):
    def of(who, count):
        return pair(view.median("idle_cpu_ms", who, count),
                    view.median("idle_switches", who, count))

    cpu = view.median("idle_cpu_ms", "opm", 1000)
    switches = view.median("idle_switches", "opm", 1000)
    rivals = "; ".join(f"{who} {of(who, 100)}" for who in RIVALS if of(who, 100) != NONE)
    return [line("idle, 1,000 services: CPU ms / switches", of("floor", 1000),
                 f"{rivals} at 100" if rivals else NONE, of("opm", 1000), None, "0 / 0",
                 [at_most(cpu, 0), at_most(switches, 0)], "idle")]


def listing(view):
    many, one = view.median("ls_ms", "opm", 1000), view.median("ls_ms", "opm", 1)
    bare = view.median("connect_ms", "opm", 1)
    over = one - bare if one is not None and bare is not None else None
    return [
        line("ls of 1,000, no usage, whole process, ms", NONE,
             view.best_rival("ls_ms", (1000, 100)), show(many), None, "5", [at_most(many, 5)],
             "ls"),
        line("ls of one, over a bare connect, ms", show(bare), NONE, show(over), None, "2",
             [at_most(over, 2)]),
        line("ls of 1,000 with usage, ms", NONE, NONE,
             show(view.median("ls_usage_ms", "opm", 1000)), None, NONE, []),
    ]


def stop(view):
    found = timed(view, "stop", "stop 1,000, all confirmed gone, ms", 1.3, "x1.3")
    left = view.worst("stop_left", "opm", 1000)
    if left:
        found["opm"] += f", {left} LEFT"
        found["mark"] = "MISSED"
    return [found]


def adopt(view):
    def words(who, count):
        kept, twice = view.least("revive_kept", who, count), view.worst("revive_twice", who, count)
        return NONE if kept is None else f"{kept:,} kept, {twice} twice"

    found = []
    for count in (20, 1000):
        took = view.median("revive_ms", "opm", count)
        checks = [None if took is None else check for check in (
            view.least("revive_kept", "opm", count) == count,
            view.worst("revive_twice", "opm", count) == 0,
            view.least("revive_managed", "opm", count) == count,
            view.worst("revive_processes", "opm", count) == 1,
            view.worst("stop_left", "opm", count) == 0,
            count == 20 or at_most(took, 50))]
        opm = NONE
        if took is not None:
            managed = view.least("revive_managed", "opm", count)
            alone = view.worst("revive_processes", "opm", count)
            opm = (f"{show(took)} ms, {words('opm', count)}, {managed or 0:,} managed, "
                   f"{alone} process")
        rivals = "; ".join(f"{who} {words(who, count)}" for who in RIVALS
                           if words(who, count) != NONE)
        target = f"{count:,} kept, 0 twice, all managed, 1 process"
        found.append(line(f"supervisor killed -9 and started, {count:,} services", NONE,
                          rivals or NONE, opm, None,
                          target + (", 50 ms" if count == 1000 else ""), checks,
                          f"adopt{count}"))
    return found


TABLE = {
    "boot": boot, "respawn": lambda view: respawn(view, 1),
    "beside": lambda view: respawn(view, 1000), "mass": mass, "memory": weight, "idle": idle,
    "ls": listing, "stop": stop, "adopt": adopt,
}

GROWING = (
    ("boot_ms", "boot, ms"), ("boot_cpu_ms", "own CPU of that, ms"),
    ("respawn_ms", "kill -9 to replaced, p50, ms"), ("mass_ms", "all killed, all replaced, ms"),
    ("pss_kb", "PSS, kB"), ("ls_ms", "ls, no usage, ms"), ("ls_usage_ms", "ls, ms"),
    ("stop_ms", "stop, ms"),
)


def table(view, rows, with_opm):
    found = [one for row in rows for one in TABLE[row](view)]
    for one in found:
        # No figure although opm is there: it failed before it came to this row.
        if with_opm and one["opm"] == NONE:
            one["mark"] = "FAILED"
    return found


def growth(view, sizes):
    """Each figure at each size, and how it grew over the last step."""
    found = []
    for figure, title in GROWING:
        for who in ("floor", "opm"):
            values = [view.median(figure, who, count) for count in sizes]
            if all(value is None for value in values):
                continue
            told = NONE
            if len(sizes) > 1 and values[-1] is not None and values[-2]:
                told = f"x{show(values[-1] / values[-2])} for x{show(sizes[-1] / sizes[-2])}"
            found.append([title, who, *map(show, values), told])
    return found


def columns(lines):
    """Plain text, aligned."""
    widths = [max(len(cells[at]) for cells in lines) for at in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()
                     for cells in lines)


def markdown(lines):
    head, *rest = lines
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head),
                      *("| " + " | ".join(cells) + " |" for cells in rest)])


def lines_of(result):
    head = ["", "floor", "best rival here", "recorded", "opm", "opm to floor", "at most", "mark"]
    keys = ("row", "floor", "rival", "recorded", "opm", "ratio", "target", "mark")
    return [head, *([one[key] for key in keys] for one in result["table"])]


def growth_lines(result):
    sizes = [f"{count:,}" for count in result["sizes"]]
    return [["at so many services", "", *sizes, "growth, last step"], *result["growth"]]


def text(result):
    parts = [columns(lines_of(result))] if result["table"] else []
    if result["growth"]:
        parts.append(columns(growth_lines(result)))
    return "\n\n".join([*parts, *(f"failed: {one}" for one in result["failures"]),
                        *result["notes"]])


def readme(result, path):
    """Rewrites what stands between the markers."""
    with open(path, encoding="utf-8") as file:
        old = file.read()
    machine = result["machine"]
    kernel = machine["kernel"].split("-")[0]
    above = (f"{machine['cpus']} x {machine['model']}, Linux {kernel}, {result['when']}. "
             "Medians; a ratio is the median of the rounds' own ratios to the floor; `recorded`: "
             "of another such machine, beside the same floor.")
    body = [textwrap.fill(above, 100), "",
            markdown(lines_of(result))]
    if result["growth"]:
        body += ["", markdown(growth_lines(result))]
    body += ["", *(textwrap.fill(one, 100) for one in result["notes"])]
    pattern = re.compile(re.escape(MARKERS[0]) + ".*?" + re.escape(MARKERS[1]), re.DOTALL)
    between = "\n".join([MARKERS[0], "", *body, "", MARKERS[1]])
    new, count = pattern.subn(lambda _: between, old)
    if count != 1:
        raise SystemExit(f"bench: {path}: wanted one {MARKERS[0]} … {MARKERS[1]}, found {count}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(new)
