#!/bin/sh
# guest.sh OPM: the first process of a virtual machine whose root is the host's, read-only. Tries
# what opm promises of cgroups, and says of each claim whether it holds.
export PATH=/run/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root
cgroups=/sys/fs/cgroup
unit=$cgroups/opm.service
if [ $$ -eq 1 ]; then
    mount -t tmpfs none /run
    mkdir -p /run/systemd/system /run/bin
    # Before what they are in may be covered.
    cp "$0" /run/guest.sh
    : >/run/bin/opm && mount --bind "$1" /run/bin/opm
    mount -t tmpfs none /tmp
    mount -t tmpfs none /root
    mount -t proc none /proc
    mount -t sysfs none /sys
    mount -t cgroup2 none $cgroups
    exec opm init -- sh /run/guest.sh
fi

# Whether it comes to be within 20 s.
becomes() {
    i=0
    until eval "$1" 2>/dev/null; do
        i=$((i + 1))
        [ $i -lt 200 ] || { echo "never: $1"; return 1; }
        sleep 0.1
    done
}
claim() {
    if said=$($1 2>&1); then echo "claim $1 holds"; else echo "claim $1 fails: $(echo $said)"; fi
}
# Of a service: its pid; and its leaf.
pid() { opm ls --format json | sed 's/},{/}\n{/g' | sed -n "s/.*\"name\":\"$1\",\"pid\":\([0-9]*\),.*/\1/p"; }
leaf() { echo "$cgroups$(sed -n 's/^0:://p' "/proc/$(pid "$1")/cgroup")"; }
is_in() { echo "$2" | grep -qF -- "$1" || { echo "no '$1' in: $2"; return 1; }; }
enter() { echo 0 >"$1/cgroup.procs"; }
delegate() { python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.delegate", b"1")' "$1"; }

refused_where_nothing_is_delegated() {
    said=$(opm start --name web --memory-max 50M -- sleep 1000 2>&1) && return 1
    is_in "web: cannot set memory max 50M: Operation not supported (systemd has not delegated" \
        "$said" && is_in 'no --memory-max' "$(opm doctor)" &&
        [ "$(opm ls --format json)" = '[]' ] && [ ! -e $unit/opm-daemon ]
}

refused_where_systemd_could_not_start_it_again() {
    said=$(opm start --name web --cpu-max 5% -- sleep 1000 2>&1) && return 1
    is_in '(its unit has no DelegateSubgroup=opm-daemon' "$said" && opm daemon stop
}

limits_are_in_force_before_the_exec() {
    opm start --name plain -- sleep 1000 &&
        opm start --name web --memory-max 50M --cpu-max 150% --pids-max 20 \
            -- sh -c 'cat /proc/self/cgroup >/tmp/seen; exec sleep 1000' || return 1
    leaf=$(leaf web)
    is_in "$(basename "$leaf")" "$(cat /tmp/seen)" &&
        is_in 52428800 "$(cat "$leaf/memory.max")" &&
        is_in '150000 100000' "$(cat "$leaf/cpu.max")" && is_in 20 "$(cat "$leaf/pids.max")" &&
        is_in 'memory max' "$(opm info web)" && is_in 'opm.service: cpu memory pids' "$(opm doctor)" &&
        is_in /opm.service/opm-daemon "$(cat "/proc/$(pid plain)/cgroup")"
}

an_incarnation_has_a_leaf_of_its_own() {
    old=$(leaf web)
    opm restart web || return 1
    new=$(leaf web)
    [ "$old" != "$new" ] && [ ! -e "$old" ] && [ -e "$new" ] && opm stop web &&
        [ ! -e "$new" ]
}

too_much_memory_is_named_as_the_reason() {
    opm start --name hungry --memory-max 20M --restart never -- \
        sh -c 'sleep 1000 & dd if=/dev/zero of=/dev/null bs=100M; sleep 1000'
    opm wait hungry --for errored --timeout 30s || return 1
    is_in 'killed: out of memory' "$(opm why hungry)" &&
        is_in '"oom":true' "$(opm events --format json | grep hungry)"
}

more_processes_are_refused() {
    opm start --name forks --pids-max 3 -- \
        sh -c '(for i in 1 2 3; do sleep 1000 & done); exec sleep 1000' || return 1
    leaf=$(leaf forks)
    becomes 'grep -q "^max [1-9]" $leaf/pids.events' && opm stop forks
}

cpu_time_is_bounded() {
    opm start --name busy --cpu-max 5% -- sh -c 'while :; do :; done' || return 1
    leaf=$(leaf busy)
    becomes 'grep -q "^nr_throttled [1-9]" $leaf/cpu.stat' && opm stop busy
}

what_the_kernel_refuses_touches_nothing() {
    opm start web && pid=$(pid web) || return 1
    said=$(opm adjust web --pids-max 99999999 --now 2>&1) && return 1
    is_in 'web: cannot set pids max 99999999: Invalid argument' "$said" &&
        [ "$(pid web)" = "$pid" ] && is_in '"pids_max":20' "$(opm info web --format json)"
}

a_leaf_that_a_dead_daemon_left_is_removed() {
    leaf=$(leaf web) pid=$(pid web)
    kill -9 "$(cat ~/.opm/opm.pid)" && kill -9 "$pid" && becomes '[ ! -e /proc/$pid ]'
    opm wait web --for online && [ "$(pid web)" != "$pid" ] && [ ! -e "$leaf" ]
}

# It bears no mark any more, and an orphan of a dead daemon's comes to nobody: the next can't tell
# by anything but its cgroup.
what_lost_every_mark_is_of_its_leaf() {
    opm start --name sheds --memory-max 50M -- sh -c \
        '(prlimit --locks=7:7 setsid env -i sleep 7777 & echo $! >/tmp/shed); exec sleep 1000'
    becomes '[ -s /tmp/shed ] && grep -q 7777 /proc/$(cat /tmp/shed)/cmdline' || return 1
    shed=$(cat /tmp/shed)
    kill -9 "$(cat ~/.opm/opm.pid)"
    opm restart sheds || return 1
    [ ! -e "/proc/$shed" ] || { echo "$shed lives beside $(pid sheds)"; return 1; }
    opm stop sheds
}

a_daemon_that_a_service_starts_leaves_its_leaf() {
    opm start --name outer --memory-max 200M -- \
        sh -c 'OPM_HOME=/tmp/inner opm daemon start; exec sleep 1000' || return 1
    becomes '[ -s /tmp/inner/opm.pid ]' || return 1
    inner=$(cat /tmp/inner/opm.pid)
    becomes 'grep -q "/opm.service/opm-daemon$" /proc/$inner/cgroup' && opm stop outer &&
        [ -e "/proc/$inner" ] && OPM_HOME=/tmp/inner opm daemon stop
}

a_user_has_limits_where_it_is_delegated() {
    mkdir $cgroups/user && chown 65534 $cgroups/user/cgroup.procs \
        $cgroups/user/cgroup.subtree_control $cgroups/user && delegate $cgroups/user
    mkdir -m 777 /tmp/user
    (
        enter $cgroups/user
        export HOME=/tmp/user
        cd /tmp/user && setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '
            opm start --name web --pids-max 9 --memory-max 50M -- sleep 1000 &&
                cat /proc/$(opm pid web)/cgroup && opm daemon stop --services'
    ) >/tmp/user/said 2>&1
    is_in 0::/user/opm- "$(cat /tmp/user/said)" && [ "$(ls -d $cgroups/user/*/)" = $cgroups/user/opm-daemon/ ]
}

# As engines make one: PID, mount and cgroup namespaces of its own, in which opm is the first.
the_first_process_of_a_container_limits_its_services() {
    box=$cgroups/box
    mkdir $box
    cat >/tmp/box.json <<'IN'
{"services": [{"name": "web", "memory_max": "50M", "pids_max": 9,
    "command": ["sh", "-c", "cat /proc/self/cgroup >/tmp/boxed; exec sleep 1000"]}]}
IN
    cat >/tmp/box.sh <<'IN'
mount -t proc none /proc && umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup &&
    OPM_HOME=/tmp/box exec opm run /tmp/box.json
IN
    unshare --pid --fork sh -c "echo 0 >$box/cgroup.procs
        exec unshare --mount --cgroup sh /tmp/box.sh" >/tmp/box.said 2>&1 &
    becomes '[ -s /tmp/boxed ]' || { cat /tmp/box.said; return 1; }
    leaf=$box$(sed -n 's/^0:://p' /tmp/boxed)
    is_in $box/opm- "$leaf" && is_in 9 "$(cat "$leaf/pids.max")" &&
        is_in 52428800 "$(cat "$leaf/memory.max")" || return 1
    kill -TERM "$(cat $box/opm-daemon/cgroup.procs)"
    wait $! && [ "$(ls -d $box/*/)" = $box/opm-daemon/ ] && rmdir $box/opm-daemon $box
}

nothing_is_left() {
    opm daemon stop --services
    [ "$(ls -d $unit/*/)" = $unit/opm-daemon/ ]
}

cd /root || exit
mkdir $unit && echo '+cpu +memory +pids' >$cgroups/cgroup.subtree_control
enter $unit
claim refused_where_nothing_is_delegated
delegate $unit
claim refused_where_systemd_could_not_start_it_again
mkdir $unit/opm-daemon && enter $unit/opm-daemon
for name in limits_are_in_force_before_the_exec an_incarnation_has_a_leaf_of_its_own \
    too_much_memory_is_named_as_the_reason more_processes_are_refused cpu_time_is_bounded \
    what_the_kernel_refuses_touches_nothing a_leaf_that_a_dead_daemon_left_is_removed \
    what_lost_every_mark_is_of_its_leaf a_daemon_that_a_service_starts_leaves_its_leaf \
    a_user_has_limits_where_it_is_delegated \
    the_first_process_of_a_container_limits_its_services nothing_is_left; do
    claim $name
done
cat /proc/uptime
busybox poweroff -f
