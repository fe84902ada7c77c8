#!/bin/sh
# check.sh DEB NEXT-DEB TARBALL: what the package promises, in a fresh Debian root that a real
# systemd boots: installed, a daemon of a shell taken over, reloaded, restarted, upgraded to
# NEXT-DEB, rebooted, removed and purged, with one service that must keep its pid, and at the reboot
# must get its stop signal. Then README, word for word, in another root (readme.py), which builds
# TARBALL. Needs root, debootstrap and systemd-nspawn; half a minute, and what a build takes. BASE=DIR:
# a root to copy, instead of debootstrap's.
set -eu
[ "$(id -u)" -eq 0 ] || { echo 'check-package: boots a system, so it needs root' >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/var/tmp}/opm-package-XXXXXX")
mounted=
end() {
    [ -z "$mounted" ] || umount "$mounted" || :
    rm -rf --one-file-system "$work"
}
trap end EXIT
trap 'exit 1' HUP INT TERM

root=$work/root
if [ -n "${BASE:-}" ]; then
    cp -a "$BASE" "$root"
else
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,libpam-systemd bookworm \
        "$root" "${MIRROR:-http://deb.debian.org/debian}" >"$work/log" 2>&1 || {
        tail -5 "$work/log" >&2
        exit 1
    }
fi
cp -a "$root" "$work/stranger"
cp "$1" "$root/root/opm.deb"
cp "$2" "$root/root/next.deb"
cat >"$root/root/service" <<'END'
#!/bin/sh
trap 'sleep 1; echo "TERM $$" >>/root/trace; exit 0' TERM
echo "up $$" >>/root/trace
while :; do sleep 0.2; done
END
cat >"$root/root/check" <<'END'
#!/bin/bash
exec >>/root/said 2>&1
export HOME=/root PATH=/usr/bin:/bin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive
# What must hold, or the whole fails with it.
must() {
    "$@" && return
    echo "FAILED: $*"
    systemctl --no-pager status opm opm-services
    systemctl poweroff --force
    exit 1
}
pid() { opm info web --format json | sed -n 's/.*"pid":\([0-9]*\).*/\1/p'; }
same() { [ "$(cat /root/pid)" = "$(pid)" ] && kill -0 "$(pid)"; }
if [ ! -e /root/pid ]; then
    must dpkg -i /root/opm.deb
    must opm start --name web -- /root/service
    must opm save
    must systemd-analyze --man=no verify /usr/lib/systemd/system/opm.service
    must systemctl enable opm opm-services
    pid >/root/pid
    must systemctl start opm opm-services
    must same
    must systemctl reload opm
    must same
    must systemctl restart opm
    must same
    must dpkg -i /root/next.deb
    must same
    must [ "$(readlink "/proc/$(systemctl show -p MainPID --value opm)/exe")" = /usr/bin/opm ]
    must systemctl is-active opm opm-services
    systemctl reboot
else
    must systemctl start opm-services
    # It had its signal, and the time that it took.
    must grep -qx "TERM $(cat /root/pid)" /root/trace
    must [ "$(grep -c '^up' /root/trace)" = 2 ]
    must kill -0 "$(pid)"
    last=$(pid)
    must dpkg -r opm
    must grep -qx "TERM $last" /root/trace
    must [ ! -e /usr/bin/opm ]
    must dpkg -P opm
    must [ -z "$(find /etc/systemd /usr -name 'opm*')" ]
    echo 'all of it holds'
    systemctl poweroff
fi
END
chmod 755 "$root/root/service" "$root/root/check"
cat >"$root/etc/systemd/system/check.service" <<'END'
[Unit]
After=multi-user.target
[Service]
ExecStart=/root/check
# What the check starts is a login's, not this unit's.
KillMode=process
END
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../check.service "$root/etc/systemd/system/multi-user.target.wants/"
# systemd-nspawn wants it on a tmpfs, as it is where systemd runs.
mkdir -p /run/systemd/nspawn
if [ "$(stat -f -c %T /run/systemd/nspawn)" != tmpfs ]; then
    mount -t tmpfs tmpfs /run/systemd/nspawn
    mounted=/run/systemd/nspawn
fi
boot() {
    timeout 120 systemd-nspawn --quiet --boot --directory="$root" --machine="opm-package-$$" \
        --register=no --keep-unit --console=pipe </dev/null >>"$work/console" 2>&1
}
# With --keep-unit a reboot is left to the caller, and asked for with exit code 133.
boot || [ $? -ne 133 ] || boot || :
if ! grep -qx 'all of it holds' "$root/root/said"; then
    cat "$root/root/said" "$work/console" >&2
    exit 1
fi
echo 'check-package: installed, taken over, upgraded, rebooted, removed: all of it holds'
python3 "$(dirname "$0")/readme.py" "$3" "$work/stranger"
