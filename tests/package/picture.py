#!/usr/bin/env python3
"""picture.py OPM SVG: a terminal in which opm is really used, as the picture SVG.

The commands run in a home of their own, in a pseudo-terminal, so that colours are those that
people see. What was started is stopped, and its daemon with it.
"""

import html
import os
import pty
import re
import subprocess
import sys
import tempfile
import time

COLUMNS, LINE, CHAR = 84, 18, 8.4
COLOURS = {31: "#f7768e", 32: "#9ece6a", 33: "#e0af68", 34: "#7aa2f7", 36: "#7dcfff", 90: "#737aa2"}
SGR = re.compile(r"\x1b\[([0-9;]*)m")
OTHER = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]|\r")


def run(line, env):
    """What `line` shows on a terminal."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    process = subprocess.Popen(
        ["bash", "-c", line], stdin=theirs, stdout=theirs, stderr=theirs, env=env, close_fds=True
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    process.wait()
    os.close(ours)
    return OTHER.sub("", shown.decode("utf-8", "replace"))


def spans(line):
    """A line with SGR codes as pieces of SVG."""
    style, at, pieces = {}, 0, []

    def add(text):
        if text:
            names = "".join(f' {key}="{value}"' for key, value in style.items())
            pieces.append(f"<tspan{names}>{html.escape(text)}</tspan>")

    for match in SGR.finditer(line):
        add(line[at : match.start()])
        at = match.end()
        for code in (int(code or 0) for code in match[1].split(";")):
            if code == 0:
                style.clear()
            elif code == 1:
                style["font-weight"] = "bold"
            elif code == 2:
                style["fill-opacity"] = "0.6"
            elif code in COLOURS:
                style["fill"] = COLOURS[code]
            elif code == 39:
                style.pop("fill", None)
    add(line[at:])
    return "".join(pieces)


def picture(lines):
    width, height = round(COLUMNS * CHAR) + 40, len(lines) * LINE + 40
    rows = "\n".join(
        f'<text x="20" y="{30 + LINE * n}" xml:space="preserve">{spans(line)}</text>'
        for n, line in enumerate(lines)
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<rect width="{width}" height="{height}" rx="8" fill="#1a1b26"/>
<g font-family="ui-monospace, 'DejaVu Sans Mono', monospace" font-size="14" fill="#c0caf5">
{rows}
</g>
</svg>
"""


def main():
    opm, to = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    with tempfile.TemporaryDirectory() as scratch:
        os.symlink(opm, os.path.join(scratch, "opm"))
        env = {
            "PATH": f"{scratch}:{os.environ['PATH']}",
            "HOME": scratch,
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
        }
        os.chdir(scratch)
        lines = []

        def show(line, seconds=0.0):
            lines.append(f"\x1b[36m$\x1b[0m \x1b[1m{line}\x1b[0m")
            lines.extend(run(line, env).rstrip("\n").split("\n"))
            lines.append("")
            time.sleep(seconds)

        try:
            show("opm start 'python3 -m http.server 8000' --name web")
            show("opm start --name bad -- sh -c 'sleep .1; echo no config >&2; exit 3'", 1.5)
            show("opm ls")
            show("kill -9 $(opm pid web)", 3)
            show("opm events web")
        finally:
            subprocess.run([opm, "daemon", "stop", "--services"], env=env, check=False,
                           stdout=subprocess.DEVNULL)
        with open(to, "w", encoding="utf-8") as file:
            file.write(picture(lines[:-1]))


main()
