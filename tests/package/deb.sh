#!/bin/sh
# deb.sh OUT MAKE-WORDS...: a Debian package of what `make install` installs, in the directory OUT.
# Its path is the last line. Needs dpkg-deb and dpkg-shlibdeps (package dpkg-dev).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$(cd "$1" && pwd)
shift
revision=${REVISION:-1}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
arch=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-The opm developers} <${DEBEMAIL:-opm@packages.invalid}>"
SOURCE_DATE_EPOCH=$("$here/epoch.sh" "$root")
export SOURCE_DATE_EPOCH
tree=$out/deb
rm -rf "$tree"
mkdir -p "$tree/DEBIAN"
make -C "$root" --no-print-directory -s install PREFIX=/usr DESTDIR="$tree" "$@"

# Policy 12.1, 12.3, 12.5: pages and changelog compressed, licences of all that is linked in.
doc=$tree/usr/share/doc/opm
gzip -9n "$tree"/usr/share/man/man*/*
gzip -9nc "$root/CHANGELOG.md" >"$doc/changelog.gz"
cat <<END | gzip -9n >"$doc/changelog.Debian.gz"
opm ($version-$revision) UNRELEASED; urgency=medium

  * See changelog.gz.

 -- $maintainer  $(date -R -u -d "@$SOURCE_DATE_EPOCH")
END
"$here/licences.sh" "$root" >"$doc/copyright"
find "$tree/usr" -type d -exec chmod 755 {} +

# What the binary needs of libc is the package's own word.
mkdir -p "$out/shlibs/debian"
printf 'Source: opm\n\nPackage: opm\nArchitecture: any\n' >"$out/shlibs/debian/control"
depends=$(cd "$out/shlibs" && dpkg-shlibdeps -O "$tree/usr/bin/opm" | sed 's/^shlibs:Depends=//')
rm -r "$out/shlibs"
size=$(du -sk "$tree/usr" | cut -f1)
sed -e "s/@version@/$version-$revision/; s/@maintainer@/$maintainer/; s/@arch@/$arch/" \
    -e "s/@depends@/$depends/; s/@size@/$size/" \
    "$here/control" >"$tree/DEBIAN/control"
install -m 755 "$here/postinst" "$here/prerm" "$here/postrm" "$tree/DEBIAN/"
(cd "$tree" && find usr -type f -exec md5sum {} + | LC_ALL=C sort -k 2) >"$tree/DEBIAN/md5sums"
package=$out/opm_${version}-${revision}_$arch.deb
dpkg-deb --root-owner-group --build "$tree" "$package" >/dev/null
rm -r "$tree"
echo "$package"
