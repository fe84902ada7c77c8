#!/bin/sh
# licences.sh ROOT: who holds the rights of what is in the binary, and under which terms, by
# cargo's own word of the crates that are linked (copyright-format 1.0).
set -eu
cd "$1"
echo 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/'
echo 'Upstream-Name: opm'
echo
echo 'Files: *'
sed -n 's/^Copyright (c) /Copyright: /p' LICENSE
echo 'License: MIT'
sed -e '/^MIT License$/d' -e '/^Copyright/d' -e 's/^$/./' -e 's/^/ /' LICENSE | sed '1{/^ \.$/d}'
cargo metadata --format-version 1 --offline --locked \
    --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" |
    python3 -c '
import json, sys
found = json.load(sys.stdin)
packages = {package["id"]: package for package in found["packages"]}
nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
linked, queue = set(), [found["resolve"]["root"]]
while queue:
    package = queue.pop()
    if package in linked:
        continue
    linked.add(package)
    for dep in nodes[package]["deps"]:
        kinds = {kind["kind"] for kind in dep["dep_kinds"]}
        is_macro = any("proc-macro" in t["kind"] for t in packages[dep["pkg"]]["targets"])
        if None in kinds and not is_macro:
            queue.append(dep["pkg"])
linked.discard(found["resolve"]["root"])
for package in sorted((packages[i] for i in linked), key=lambda p: (p["name"], p["version"])):
    holders = ", ".join(package["authors"]) or "the authors of " + package["name"]
    name, version, terms = package["name"], package["version"], package["license"]
    print(f"\nFiles: crates/{name}-{version}/*\nCopyright: {holders}\nLicense: {terms}")
    print(f" Linked in; see https://crates.io/crates/{name}/{version}")
'
