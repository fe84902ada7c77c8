#!/usr/bin/env python3
"""Restarts under load: what clients notice of 200 restarts of one instance and 50 reloads of four,
of 20 daemons that are killed and of 5 upgrades; and PM2, its own way, beside it.

Each connection asks once. It is answered, or refused, or reset, or closed without an answer, or
nothing comes for 30 s; wrk counts the same beside, in its own words. Meanwhile /proc is looked
through for incarnations: `twice` are the looks that saw two of one instance.
"""

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True

import bench
import processes

SECONDS = 3000
COUNTS = ("answered", "refused", "reset", "closed", "late")
LUA = """done = function(summary)
    local e = summary.errors
    io.write(string.format("WRK %d %d %d\\n", summary.requests, e.connect,
        e.read + e.write + e.timeout + e.status))
end"""
NODE = """const { createServer } = require('http');
const server = createServer((request, response) => response.end(`${process.pid}\\n`));
server.listen(process.env.PORT, '127.0.0.1', () => process.send && process.send('ready'));
for (const signal of ['SIGTERM', 'SIGINT'])
  process.on(signal, () => server.close(() => process.exit(0)));
"""
WSGI = """def app(environ, start):
    start('200 OK', [('Content-Length', '6')])
    return [b'hello\\n']
"""
NGINX = """daemon off; worker_processes 2; pid {dir}/{name}.pid; error_log stderr crit;
events {{ worker_connections 512; }}
http {{ access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2;
fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
server {{ listen 127.0.0.1:{port}; return 200 'hello'; }} }}
"""
FD = """import select, signal, socket
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(1))
server = socket.socket(fileno=3)
server.setblocking(False)
while not over:
    if not select.select([server], [], [], 0.2)[0]:
        continue
    try:
        client = server.accept()[0]
    except BlockingIOError:
        continue
    client.setblocking(True)
    client.recv(4096)
    client.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nhi\\n')
    client.close()
"""


def port_of(number):
    """Ports below those that clients get."""
    return 21000 + os.getpid() % 5000 + number


class Opm:
    """Restarts behind a socket that the daemon holds."""

    name = "opm"
    kinds = ("c", "node", "gunicorn", "nginx", "python")
    # Instances, what is done to them, how often, and how many kills and upgrades beside.
    phases = [[(1, "restart", 200, 10, 3), (4, "reload", 50, 10, 2)]]
    one = ()

    def __init__(self, args, directory):
        self.program, self.dir = os.path.abspath(args.opm), directory
        self.env = {**os.environ, "OPM_HOME": os.path.join(directory, "state")}

    def ask(self, *words, timeout=60):
        done = subprocess.run([self.program, *words], env=self.env, cwd=self.dir, timeout=timeout,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise processes.Failed(f"opm {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def start(self, kind, name, port, count):
        command, options = [os.path.join(self.dir, "drain")], []
        if kind == "node":
            command = ["node", "server.js"]
            options = ["--env", f"PORT={port}", "--ready", f"http://127.0.0.1:{port}/"]
        elif kind == "gunicorn":
            # It says that it is ready before its worker is, which drops a TERM that comes so soon.
            command = ["gunicorn", "app:app"]
            options = ["--ready", f"http://127.0.0.1:{port}/"]
        elif kind == "nginx":
            conf = os.path.join(self.dir, f"{name}.conf")
            with open(conf, "w", encoding="utf-8") as file:
                file.write(NGINX.format(dir=self.dir, port=port, name=name))
            command = ["nginx", "-c", conf]
            options = ["--env", "NGINX=3;", "--stop-signal", "QUIT"]
        elif kind == "python":
            command = ["python3", "fd.py"]
        self.ask("start", "--name", name, "-i", str(count), "--listen", f"127.0.0.1:{port}",
                 "--min-uptime", "0s", "--stop-timeout", "30s", *options, "--", *command)

    def restart(self, name):
        self.ask("restart", name)
        self.ask("wait", name, "--for", "ready")

    def reload(self, name):
        self.ask("reload", name)

    def kill(self):
        pid = int(processes.read(os.path.join(self.env["OPM_HOME"], "opm.pid")))
        os.kill(pid, signal.SIGKILL)
        processes.wait_gone(pid, 10, "the daemon's death")
        self.ask("ls")

    def upgrade(self):
        self.ask("daemon", "upgrade", self.program)

    def remove(self, name):
        self.ask("remove", name)

    def leave(self):
        self.ask("daemon", "stop", "--services")

    @staticmethod
    def incarnation(environ):
        """(instance, incarnation) of a process by its environment."""
        found = dict(one.partition("=")[::2] for one in environ.split("\0"))
        return found.get("OPM_NAME"), found.get("OPM_MARK")


class Pm2(Opm):
    """As its users have it: cluster mode for node, fork mode for what it can't share."""

    name = "PM2"
    kinds = ("fork", "cluster")
    phases = [[(4, "reload", 50, 0, 0), (4, "reload", 50, 5, 1)],
              [(1, "reload", 50, 0, 0), (1, "reload", 50, 5, 1)]]
    one = ("fork",)  # its processes can't share a port

    def __init__(self, args, directory):
        super().__init__(args, directory)
        self.program = args.pm2
        self.env = {**os.environ, "PM2_HOME": os.path.join(directory, "pm2"), "PM2_SILENT": "true"}

    def start(self, kind, name, port, count):
        app = {"name": name, "script": os.path.join(self.dir, "server.js"), "instances": count,
               "exec_mode": kind, "wait_ready": True, "env": {"PORT": port},
               "max_restarts": 100000, "min_uptime": 0}
        path = os.path.join(self.dir, f"{name}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"apps": [app]}, file)
        self.ask("start", path)
        self.ask("save")

    def kill(self):
        pid = int(processes.read(os.path.join(self.env["PM2_HOME"], "pm2.pid")))
        os.kill(pid, signal.SIGKILL)
        processes.wait_gone(pid, 10, "PM2's death")
        self.ask("resurrect")

    def upgrade(self):
        self.ask("update")

    def remove(self, name):
        self.ask("delete", name)

    def leave(self):
        self.ask("kill")

    @staticmethod
    def incarnation(environ):
        found = dict(one.partition("=")[::2] for one in environ.split("\0"))
        return found.get("pm_id") and f"{found.get('name')}-{found['pm_id']}", None


class Looks(threading.Thread):
    """Looks through /proc for incarnations until it is told to end."""

    def __init__(self, who):
        super().__init__(daemon=True)
        self.who, self.over = who, threading.Event()
        self.looks, self.twice, self.seen = 0, 0, {}

    def run(self):
        while not self.over.wait(0.1):
            alive = {}
            for pid in processes.tree([os.getpid()])[1:]:
                instance, mark = self.who.incarnation(processes.read(f"/proc/{pid}/environ"))
                if instance:
                    alive.setdefault(instance, set()).add(mark or pid)
            self.looks += 1
            self.twice += any(len(marks) > 1 for marks in alive.values())


class Load:
    """Clients that ask on and on, each time by a new connection."""

    def __init__(self, scratch, port):
        env = {"PATH": os.environ["PATH"]}
        self.scratch, self.all = scratch, []
        lua = os.path.join(scratch, "wrk.lua")
        with open(lua, "w", encoding="utf-8") as file:
            file.write(LUA)
        commands = [[os.path.join(scratch, "drain"), "ask", str(port)]] * 3
        if shutil.which("wrk"):
            commands.append(["wrk", "-t1", "-c4", "-d1h", "--timeout", "30s", "-s", lua, "-H",
                             "Connection: close", f"http://127.0.0.1:{port}/"])
        for command in commands:
            self.all.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env))

    def end(self):
        """What became of it: by our clients, and by wrk."""
        counts, longest, wrk = dict.fromkeys(COUNTS, 0), 0, None
        for one in self.all:
            one.send_signal(signal.SIGINT if one.args[0] == "wrk" else signal.SIGTERM)
        for one in self.all:
            said = one.communicate(timeout=60)[0]
            if one.args[0] == "wrk":
                last = [line for line in said.splitlines() if line.startswith("WRK ")][-1]
                wrk = [int(word) for word in last.split()[1:]]
                continue
            *found, most = [int(word) for word in said.split()]
            counts = {key: counts[key] + value for key, value in zip(COUNTS, found)}
            longest = max(longest, most)
        return counts, longest, wrk


def answers(port):
    """Whether somebody serves."""
    end = processes.Deadline.within(30)
    while time.monotonic() < end:
        done = subprocess.run(["curl", "-s", "-m", "5", "-o", "/dev/null",
                               f"http://127.0.0.1:{port}/"], check=False)
        if done.returncode == 0:
            return
        time.sleep(0.05)
    raise processes.Failed(f"nobody answers on port {port}")


def phase(who, scratch, kind, count, rounds, act):
    """One service under load, and what its clients noticed. `rounds`: acts, kills, upgrades."""
    acts, kills, upgrades = rounds
    number = who.kinds.index(kind) * 4 + (count > 1) * 2 + (kills > 0)
    name, port = f"{kind}{number}", port_of(number)
    who.start(kind, name, port, count)
    answers(port)
    looks, load = Looks(who), Load(scratch, port)
    looks.start()
    began = time.monotonic()
    failures = []
    for done in range(1, acts + 1):
        steps = [lambda: act(name)]
        steps += [who.kill] * (done * kills // acts - (done - 1) * kills // acts)
        steps += [who.upgrade] * (done * upgrades // acts - (done - 1) * upgrades // acts)
        for step in steps:
            try:
                step()
            except (processes.Failed, subprocess.TimeoutExpired) as error:
                failures.append(str(error))
    took = time.monotonic() - began
    time.sleep(0.5)
    counts, longest, wrk = load.end()
    looks.over.set()
    looks.join()
    who.remove(name)
    noticed = sum(counts[key] for key in COUNTS[1:]) + (sum(wrk[1:]) if wrk else 0)
    row = {"who": who.name, "server": kind, "what": f"{acts} x {act.__name__} of {count}",
           "kills": kills, "upgrades": upgrades, **counts, "longest_ms": longest,
           "wrk": wrk, "looks": looks.looks, "twice": looks.twice, "failures": len(failures),
           "seconds": round(took, 1), "noticed": noticed}
    print(json.dumps(row), flush=True)
    for failure in failures[:3]:
        print(f"  failed: {failure}", flush=True)
    return row


def markdown(rows):
    head = ("", "server", "what", "daemon killed, upgraded", "answered", "refused", "reset",
            "closed unanswered", "longest wait, ms", "wrk: answered, refused, other",
            "looks, two of one instance")
    lines = [head, ("---",) * len(head)]
    for row in rows:
        wrk = row["wrk"] or ["-"] * 3
        lines.append((row["who"], row["server"], row["what"],
                      f"{row['kills']}, {row['upgrades']}", f"{row['answered']:,}",
                      str(row["refused"]), str(row["reset"]), str(row["closed"] + row["late"]),
                      f"{row['longest_ms']:,}", f"{wrk[0]:,}, {wrk[1]}, {wrk[2]}",
                      f"{row['looks']:,}, {row['twice']}"))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measure(args, scratch):
    processes.Deadline.at = time.monotonic() + args.seconds
    processes.become_subreaper()
    drain = os.path.join(scratch, "drain")
    subprocess.run(["cc", "-O2", "-Wall", "-static", "-o", drain,
                    os.path.join(bench.HERE, "drain.c")], check=True)
    os.mkdir(os.path.join(scratch, "state"))
    for name, text in {"server.js": NODE, "app.py": WSGI, "fd.py": FD}.items():
        with open(os.path.join(scratch, name), "w", encoding="utf-8") as file:
            file.write(text)
    load, rows = os.getloadavg()[0], []
    everyone = [Opm(args, scratch)] + ([Pm2(args, scratch)] if args.pm2 else [])
    for who in everyone:
        for kind in who.kinds:
            if args.servers and kind not in args.servers.split(","):
                continue
            try:
                for count, act, *rounds in who.phases[kind in who.one]:
                    rounds = [math.ceil(each * args.percent / 100) for each in rounds]
                    rows.append(phase(who, scratch, kind, count, rounds, getattr(who, act)))
            except (processes.Failed, OSError, subprocess.SubprocessError) as error:
                print(f"failed: {who.name} {kind}: {error}", flush=True)
        who.leave()
    print(f"\n{markdown(rows)}\n\nload average {load:.1f} at the start, "
          f"{os.getloadavg()[0]:.1f} at the end.")
    noticed = [row for row in rows if row["who"] == "opm" and (row["noticed"] or row["twice"])]
    if noticed:
        raise SystemExit(f"restarts: {len(noticed)} rows in which somebody noticed")


def main():
    parser = argparse.ArgumentParser(prog="restarts.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--opm", metavar="PATH", default=bench.default_opm(), help="default: the release build")
    add("--pm2", metavar="PATH", default=shutil.which("pm2"), help="default: the one in PATH")
    add("--seconds", type=int, default=SECONDS, help="it ends after so many, default 3000")
    add("--percent", type=int, default=100, help="of the rounds")
    add("--servers", help="only these: c, node, gunicorn, nginx, python, fork, cluster")
    args = parser.parse_args()
    return bench.guard(args, measure, args.seconds)


if __name__ == "__main__":
    sys.exit(main())
