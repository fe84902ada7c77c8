#!/bin/sh
# Sees that every program of packages.txt is there. As root on Debian it installs what is
# missing, without starting any of the services; else it says what to install, and fails.
set -u
list=$(dirname "$0")/packages.txt

# Whether one of the comma list `$1` is a program in PATH or a pattern that matches a file.
is_there() {
    for candidate in $(echo "$1" | tr ',' ' '); do
        case $candidate in
            /*) [ -x "$candidate" ] && return 0 ;;
            *) command -v "$candidate" >/dev/null 2>&1 && return 0 ;;
        esac
    done
    return 1
}

missing() {
    sed 's/#.*//' "$list" | while read -r program package; do
        [ -z "$program" ] || is_there "$program" || echo "$package"
    done | sort -u | tr '\n' ' '
}

packages=$(missing)
[ -z "$packages" ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "tests: missing: $packages(install these Debian packages, or what has the same programs:" \
        "apt-get install $packages; as root 'make test' does it)" >&2
    exit 1
fi

# A package's postinst starts its service unless this policy forbids it. One that is there
# already is the machine's own: it is kept, and put back.
policy=/usr/sbin/policy-rc.d
kept=
clean_up() {
    rm -f "$policy"
    [ -z "$kept" ] || mv "$kept" "$policy"
}
if [ -e "$policy" ]; then
    kept=$policy.opm-tests
    mv "$policy" "$kept"
fi
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"
# What it runs would be read as settings of its own.
unset MAKEFLAGS MFLAGS MAKELEVEL
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
echo "tests: installing $packages" >&2
# shellcheck disable=SC2086 # a list of words
install="apt-get -q -y --no-install-recommends install $packages"
$install >&2 || { apt-get -q update >&2 && $install >&2; }
packages=$(missing)
[ -z "$packages" ] && exit 0
echo "tests: still missing: $packages" >&2
exit 1
