#!/bin/sh
# New seeds until the time is over: a run of the simulator, then kills on the real kernel.
# The first failure ends it; the seed to replay it is in the output.
set -eu
minutes=${1:?usage: chaos.sh MINUTES}
cargo=${CARGO:-cargo}
until=$(($(date +%s) + minutes * 60))
rounds=0
while [ "$(date +%s)" -lt "$until" ]; do
    seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
    echo "chaos: seed $seed (replay: make sim SEED=$seed; OPM_REAL_SEED=$seed make real)"
    OPM_SIM_SEED=$seed "$cargo" test --quiet --test sim
    OPM_REAL_SEED=$seed "$cargo" test --quiet --test real -- --nocapture death
    rounds=$((rounds + 1))
done
echo "chaos: $rounds rounds in $minutes minutes, no failure"
