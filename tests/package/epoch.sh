#!/bin/sh
# epoch.sh ROOT: the time that what is built of it bears: its last commit's, or in a release
# tarball that of the manifest, which the tarball gave it.
set -eu
if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
    echo "$SOURCE_DATE_EPOCH"
elif [ -e "$1/.git" ]; then
    git -C "$1" log -1 --format=%ct
else
    stat -c %Y "$1/Cargo.toml"
fi
