#!/bin/sh
# New seeds until the time is over: runs of the simulator, then kills on the real kernel.
# The first failure ends it; the output says how to replay it.
set -eu
minutes=${1:?usage: chaos.sh MINUTES}
cargo=${CARGO:-cargo}
until=$(($(date +%s) + minutes * 60))
rounds=0
while [ "$(date +%s)" -lt "$until" ]; do
    seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
    echo "chaos: simulator from seed $seed on; kills with OPM_REAL_SEED=$seed"
    FIRST=$seed SEEDS=500 "$cargo" test --quiet --test sim the_law_holds
    OPM_REAL_SEED=$seed "$cargo" test --quiet --test real death
    rounds=$((rounds + 1))
done
echo "chaos: $rounds rounds in $minutes minutes, no failure"
