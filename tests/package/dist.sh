#!/bin/sh
# dist.sh NAME OUT: the sources as OUT/NAME.tar.gz. Its path is the last line. The same sources
# give the same bytes: names in order, nobody's ids, one time.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
epoch=$(sh "$here/epoch.sh" .)
package=$2/$1.tar.gz
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
if [ -e .git ]; then
    git archive HEAD | tar -xf - -C "$staging"
else
    # A tarball that was unpacked: all but what was built in it.
    tar -cf - --exclude=./target --exclude="./$2" . | tar -xf - -C "$staging"
fi
tar --directory="$staging" --sort=name --transform="s,^\.,$1," --format=ustar \
    --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw,a-s --mtime="@$epoch" -cf - . |
    gzip -9n >"$package"
echo "$package"
