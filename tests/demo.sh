#!/bin/sh
# The law on a stage, in some ten seconds: a service is killed, and its next incarnation starts only
# after the kernel has confirmed the end of the last; the daemon is killed, and the next one
# takes over what runs. Needs nothing but sh; leaves nothing behind.
set -eu
opm=${1:?usage: demo.sh OPM}
case $opm in /*) ;; *) opm=$PWD/$opm ;; esac
OPM_HOME=$(mktemp -d "${TMPDIR:-/tmp}/opm-demo.XXXXXX")
export OPM_HOME
unset OPM_WITHOUT
follower=

clean_up() {
    trap - EXIT INT TERM HUP
    [ -z "$follower" ] || kill "$follower" 2>/dev/null || true
    # Also after a failure half way: a daemon, and what it started, must not outlive the demo.
    "$opm" daemon stop --services >/dev/null 2>&1 || true
    rm -rf "$OPM_HOME"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { printf '\n# %s\n' "$*"; }
fail() {
    echo "demo: $*" >&2
    exit 1
}
run() {
    printf '$ opm'
    for word in "$@"; do
        case $word in *[!A-Za-z0-9./=-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    echo
    "$opm" "$@"
}
# A zombie that somebody has yet to reap is no life.
lives() { sed -n 's/^State:[^A-Z]*//p' "/proc/$1/status" 2>/dev/null | grep -q '^[^Z]'; }
pid_of() { "$opm" info "$1" --format json | sed -n 's/^\[{[^}]*"pid":\([0-9]*\).*/\1/p'; }
# Waits until `$1` is true, 5 s at most.
until_true() {
    tries=0
    until eval "$1"; do
        tries=$((tries + 1))
        [ "$tries" -le 250 ] || fail "timed out waiting: $1"
        sleep 0.02
    done
}

cd "$OPM_HOME"
say "two services: a leader with a child, and one alone"
run start --name web --min-uptime 0s -- sh -c 'sleep 1000 & wait'
run start --name worker --min-uptime 0s -- sh -c 'while :; do sleep 1000; done'
run ls
: >events.txt
"$opm" events --follow >events.txt &
follower=$!
until_true 'grep -q "spawned.*worker" events.txt'
seen=$(wc -l <events.txt)

web=$(pid_of web)
say "web's leader is killed: kill -9 $web"
kill -9 "$web"
until_true 'tail -n +$((seen + 1)) events.txt | grep -q "spawned.*web"'
say "its child is ended too, and only when the tree is confirmed gone comes the next"
echo "# (worker's is generation 2: each number is given once, whatever the service):"
tail -n +$((seen + 1)) events.txt
order=$(tail -n +$((seen + 1)) events.txt | awk '$3 == "web" { print $2 }' | head -3 | tr '\n' ' ')
[ "$order" = "exited drained spawned " ] || fail "the order of events was: $order"

web=$(pid_of web)
worker=$(pid_of worker)
daemon=$(cat "$OPM_HOME/opm.pid")
say "the daemon is killed: kill -9 $daemon; the next one finds web (pid $web), worker (pid $worker)"
kill -9 "$daemon"
until_true '! lives "$daemon"'
wait "$follower" 2>/dev/null || true
follower=
run daemon start
run events
[ "$(pid_of web)" = "$web" ] || fail "web is pid $(pid_of web) now"
[ "$(pid_of worker)" = "$worker" ] || fail "worker is pid $(pid_of worker) now"
say "both are the same processes as before"
run ls

if command -v python3 >/dev/null; then
    say "four instances on one socket, reloaded and restarted under requests"
    cat >web.py <<'END'
import os, select, signal, socket, sys
if sys.argv[1] == "serve":
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(1))
    server = socket.socket(fileno=3)
    server.setblocking(False)
    while not over:
        if select.select([server], [], [], 0.1)[0]:
            try:
                client = server.accept()[0]
            except BlockingIOError:
                continue
            client.sendall(b"%d" % os.getpid())
            client.close()
    sys.exit()
sent = answered = refused = 0
while not os.path.exists("enough"):
    sent += 1
    try:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect("web.sock")
        answered += client.recv(64) != b""
        client.close()
        if answered == 1:
            open("asked", "w").close()
    except ConnectionRefusedError:
        refused += 1
    except OSError as error:
        print(error)
print(f"sent {sent}, answered {answered}, refused {refused}")
END
    run start --name py -i 4 --listen "unix:$OPM_HOME/web.sock" -- python3 web.py serve
    python3 web.py ask >requests.txt &
    asker=$!
    until_true '[ -e asked ]'
    run reload py
    run restart py
    run restart py-0
    : >enough
    wait "$asker"
    cat requests.txt
    awk '{ exit !($2 > 0 && $2 == $4 && $6 == "0") }' FS='[ ,]+' requests.txt ||
        fail "a request was lost"
fi

say "everything stops, and the reply means that it is true"
run daemon stop --services
for pid in "$web" "$worker"; do
    if lives "$pid"; then fail "pid $pid still lives"; fi
done
say "nothing is left"
