#!/usr/bin/env python3
"""archive.py FILE NAME=PATH...: an initramfs (cpio, newc) of these files and a console, gzipped."""
import gzip
import stat
import sys

entries = bytearray()


def add(name, mode, content=b"", device=(0, 0)):
    """One entry: 13 numbers of eight hexadecimal digits, the name, the content; padded to four."""
    name = name.encode() + b"\0"
    numbers = (1, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0)
    for part in (b"070701" + b"".join(b"%08x" % number for number in numbers) + name, content):
        entries.extend(part + bytes(-len(part) % 4))


for directory in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
    add(directory, stat.S_IFDIR | 0o755)
# The kernel opens it for the first process, before anything is mounted.
add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
for word in sys.argv[2:]:
    name, path = word.split("=", 1)
    with open(path, "rb") as file:
        add(name, stat.S_IFREG | 0o755, file.read())
add("TRAILER!!!", 0)
with gzip.open(sys.argv[1], "wb", 1) as file:
    file.write(entries)
