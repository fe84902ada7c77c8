#!/bin/busybox sh
# The first process of a machine that `tests/arch/check.sh` boots: opm and busybox are all it has.
# Says `claim NAME holds` of each claim, and DONE.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root OPM_HOME=/tmp/home
mkdir -p /proc /sys /tmp /root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
printf 'root:x:0:0:root:/root:/bin/sh\n' > /etc/passwd
printf 'root:x:0:\n' > /etc/group

SERVICES=30

claim() {
    name=$1
    shift
    if "$@"; then echo "claim $name holds"; else echo "claim $name FAILS: $*"; fi
}

# What each sleeps for, and its pid: a line for each.
sleepers() {
    ps -o pid,args | awk '$2 == "sleep" { print $3, $1 }' | sort
}

each_once() {
    [ "$(sleepers | wc -l)" = $SERVICES ] &&
        [ "$(sleepers | cut -d ' ' -f 1 | uniq | wc -l)" = $SERVICES ]
}

# Within 30 s: emulation is slow.
within() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || return 1
        sleep 0.1
    done
}

online() {
    [ "$(opm ls --json --no-usage | grep -o '"status": *"online"' | wc -l)" = $SERVICES ]
}

settled() {
    within online && each_once
}

in_use() {
    opm doctor | grep -q "^ok *$1: in use"
}

number=0
{
    printf '{"services": ['
    while [ $number -lt $SERVICES ]; do
        [ $number = 0 ] || printf ', '
        printf '{"name": "s%d", "command": ["sleep", "%d"]}' $number $((100000 + number))
        number=$((number + 1))
    done
    printf ']}'
} > /tmp/services.json

opm start /tmp/services.json > /dev/null
claim each_service_runs_once settled
for tier in shared-memory shared-table clone3 time-namespace pidfd-inode; do
    claim "$(echo $tier | tr - _)_is_in_use" in_use $tier
done

killall -9 sleep
claim what_is_killed_is_replaced_once settled

round=0
while [ $round -lt 20 ]; do
    daemon=$(opm daemon status --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
    killall -q -9 sleep &
    kill -9 "$daemon"
    opm ls > /dev/null
    round=$((round + 1))
done
claim deaths_beside_those_of_the_daemon_leave_one_of_each settled

before=$(sleepers)
kill -9 "$(opm daemon status --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')"
opm ls > /dev/null
claim the_next_daemon_adopts_the_same_processes [ "$before" = "$(sleepers)" ]
opm daemon upgrade > /dev/null
claim an_upgrade_leaves_them_alone [ "$before" = "$(sleepers)" ]

opm restart all > /dev/null
claim all_are_restarted settled
claim none_is_as_it_was [ "$before" != "$(sleepers)" ]

opm init -s -- sh -c 'exit 7'
claim init_passes_on_the_code [ $? = 7 ]

opm start --name small --pids-max 7 -- sleep 200000 > /dev/null
leaf=$(sed -n 's/^0:://p' "/proc/$(sleepers | sed -n 's/^200000 //p')/cgroup")
claim limits_are_in_force [ "$(cat "/sys/fs/cgroup$leaf/pids.max")" = 7 ]

opm daemon stop --services > /dev/null
claim nothing_is_left [ -z "$(sleepers)" ]
echo DONE
poweroff -f
