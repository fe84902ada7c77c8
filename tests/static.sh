#!/bin/sh
# Builds a static binary for this host and prints its path as the last line.
#
# crt-static needs --target: without it the flag would reach build scripts and proc macros,
# which can't be static. At a fixed address, because a position-independent one relocates itself
# at every start, page by page: a third of what `opm init` would cost.
set -eu
cargo=$1
target_dir=$2
host=$(rustc -vV | sed -n 's/^host: //p')
flags="-C target-feature=+crt-static -C relocation-model=static"
RUSTFLAGS="${RUSTFLAGS:-} $flags" "$cargo" build --release --target "$host"
binary=$target_dir/$host/release/opm
if command -v readelf >/dev/null 2>&1 && readelf -l "$binary" | grep -q INTERP; then
    echo "static: $binary wants a dynamic linker" >&2
    exit 1
fi
realpath "$binary"
