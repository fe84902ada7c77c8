#!/usr/bin/env python3
"""readme.py TARBALL ROOT: plays README.md word for word, as a stranger who has a fresh Debian.

ROOT is a fresh Debian root (debootstrap's minbase), changed by this; TARBALL is what `make dist`
makes. A user with sudo unpacks it, and says line after line what stands in README's blocks of `sh`
and `console`: what a build needs is installed, opm is built, installed and used. What a console
shows has to come, but for digits and blanks. Crates are vendored beforehand. Needs root and
systemd-nspawn; the build takes a minute or more.
"""
import os
import re
import subprocess
import sys
import time

# What needs a terminal or a reader's Ctrl-C; what is tried elsewhere (`make test`; a system that
# has booted, in check.sh).
INSTEAD = {
    "make test": "true",
    "opm logs web -f": "timeout -s INT 2 opm logs web -f || [ $? -eq 124 ]",
    "opm top": "printf q | TERM=linux script -qec 'opm top' /dev/null",
    "opm daemon setup": "opm daemon setup --print",
}
SOURCES = """deb {mirror} bookworm main
deb {security} bookworm-security main
"""


def lines_of(readme):
    """Each command line, and the output that follows it; nothing: nothing is said of it."""
    lines = []
    for kind, block in re.findall(r"^```(sh|console)\n(.*?)^```", readme, re.M | re.S):
        for line in filter(str.strip, block.splitlines()):
            if kind == "sh" or line.startswith("$ "):
                lines.append((line.removeprefix("$ "), []))
            else:
                lines[-1][1].append(line)
    return lines


def pattern(line):
    """What the reader sees, but for digits and blanks; `…` is anything."""
    words = re.split(r"(\d+|\s+|…)", line)
    loose = {"…": ".*"}
    return "".join(
        r"\d+" if word.isdigit() else r"\s+" if word.isspace() else loose.get(word, re.escape(word))
        for word in words
    )


class Stranger:
    """A login shell in the root, which is told one line after the other."""

    def __init__(self, root, user, directory):
        words = ["systemd-nspawn", "--quiet", f"--directory={root}", "--register=no",
                 "--keep-unit", "--as-pid2", "--hostname=localhost", "--pipe", f"--user={user}",
                 f"--chdir={directory}", "--setenv=DEBIAN_FRONTEND=noninteractive", "/bin/bash"]
        self.shell = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True)

    def says(self, line):
        """What came of it, and its exit code."""
        end = f"END-{time.monotonic_ns()}"
        self.shell.stdin.write(f"{{ {line}\n}} </dev/null 2>&1; code=$?; echo; echo {end} $code\n")
        self.shell.stdin.flush()
        out = []
        for said in self.shell.stdout:
            if said.startswith(end):
                return "".join(out), int(said.split()[1])
            out.append(said)
        raise SystemExit(f"readme: the shell ended at '{line}':\n" + "".join(out))

    def leaves(self):
        self.shell.stdin.close()
        self.shell.wait(timeout=60)


def prepare(tarball, root):
    """A user with sudo, the sources in that user's directory, and Debian's usual archives."""
    mirror = os.environ.get("MIRROR", "http://deb.debian.org/debian")
    security = os.environ.get("SECURITY", "http://deb.debian.org/debian-security")
    with open(f"{root}/etc/apt/sources.list", "w", encoding="utf-8") as sources:
        sources.write(SOURCES.format(mirror=mirror, security=security))
    for name in ("hosts", "resolv.conf"):
        subprocess.run(["cp", "-L", f"/etc/{name}", f"{root}/etc/{name}"], check=True)
    host = Stranger(root, "root", "/")
    for line in ("apt-get -q update", "apt-get -qy install sudo python3 ca-certificates",
                 "useradd -m -s /bin/bash dev", "echo 'dev ALL=NOPASSWD: ALL' >/etc/sudoers.d/dev"):
        out, code = host.says(line)
        if code:
            raise SystemExit(f"readme: {line}: {out}")
    host.leaves()
    name = os.path.basename(tarball).removesuffix(".tar.gz")
    home = f"{root}/home/dev"
    subprocess.run(["tar", "-C", home, "-xf", tarball], check=True)
    os.mkdir(f"{home}/{name}/.cargo")
    with open(f"{home}/{name}/.cargo/config.toml", "w", encoding="utf-8") as config:
        subprocess.run(["cargo", "vendor", "--quiet", "--locked", f"{home}/{name}/vendor"],
                       cwd=f"{home}/{name}", check=True, stdout=subprocess.DEVNULL)
        config.write('[source.crates-io]\nreplace-with = "vendored"\n'
                     '[source.vendored]\ndirectory = "vendor"\n')
    owner = os.stat(home)
    subprocess.run(["chown", "-R", f"{owner.st_uid}:{owner.st_gid}", f"{home}/{name}"], check=True)
    return f"/home/dev/{name}", f"{home}/{name}/README.md"


def play(stranger, readme):
    """Every line in README's order; the pid in its text stands for the one that was said."""
    lines, pid = lines_of(readme), {}
    # The demo builds, and what a build needs stands further down.
    lines = [line for line in lines if not line[0].startswith("make demo")] + [("make demo", [])]
    for line, wanted in lines:
        command = line.split("  #")[0].strip()
        command = INSTEAD.get(command, command)
        command = re.sub(r"\b4242\b", lambda it: pid.get(it[0], it[0]), command)
        # People need some seconds from a command to the next.
        if command == "opm events":
            stranger.says("opm wait web --for online; sleep 1")
        if command.startswith("sudo apt install "):
            command = command.replace("apt install", "apt-get -qy install")
            command += " rustc-web cargo-web"
        began = time.monotonic()
        out, code = stranger.says(command)
        print(f"{time.monotonic() - began:7.2f}s  {code}  {command}", flush=True)
        told = re.search(r"\s*\n\s*".join(map(pattern, wanted)), out)
        if code or not told:
            raise SystemExit(f"readme: '{command}' (exit code {code}):\n{out}")
        if found := re.search(r"web: online \(id 0, pid (\d+)\)", out):
            pid.setdefault("4242", found[1])


def main():
    directory, readme = prepare(*sys.argv[1:3])
    stranger = Stranger(sys.argv[2], "dev", directory)
    with open(readme, encoding="utf-8") as file:
        play(stranger, file.read())
    # As README has it, to be rid of it.
    for line in ("opm daemon stop --services", "sudo make uninstall", "[ ! -e /usr/local/bin/opm ]"):
        out, code = stranger.says(line)
        if code:
            raise SystemExit(f"readme: '{line}' (exit code {code}):\n{out}")
    stranger.leaves()
    print("readme: every line of it holds")


if __name__ == "__main__":
    main()
