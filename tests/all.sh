#!/bin/sh
# all.sh CARGO: every test. What fails is tried once more, alone: on two noisy cores a test that
# waits for a real server can run out of patience, which says nothing. It is named either way.
# Never tried again is what saw two incarnations of a service, or a crash of the tests, or more
# than RETRIES_MAX failures.
set -u
cargo=$1
RETRIES_MAX=6

log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 1' HUP INT TERM
code=$({ { $cargo test --no-fail-fast --lib --tests 2>&1; echo $? >&3; } | tee "$log" >&4; } \
    3>&1) 4>&1
[ "$code" -eq 0 ] && exit 0

# A line for each: `--test real` and the test's name.
failed=$(awk '
    $1 == "Running" && $2 == "unittests" { target = "--lib" }
    $1 == "Running" && $2 ~ /^tests\// { split($2, path, /[\/.]/); target = "--test " path[2] }
    /^test [^ ]+ \.\.\. FAILED$/ { print target, $2 }
' "$log" | sort -u)
count=$(printf '%s' "$failed" | grep -c .)
if [ "$count" -eq 0 ] || [ "$count" -gt "$RETRIES_MAX" ]; then
    echo "tests: $count failed" >&2
    exit 1
fi
if grep -q 'two incarnations at once\|met a living predecessor' "$log"; then
    echo 'tests: the law is broken' >&2
    exit 1
fi
# Cargo names each target that failed: one without a failed test has crashed.
for target in $(sed -n 's/^    `--\(.*\)`$/\1/p' "$log" | tr ' ' '='); do
    name=--$(echo "$target" | tr '=' ' ')
    if ! printf '%s\n' "$failed" | grep -q -- "^$name "; then
        echo "tests: $name ended without a word" >&2
        exit 1
    fi
done
printf '%s\n' "$failed" | while read -r line; do
    test=${line##* }
    # shellcheck disable=SC2086 # two words
    $cargo test ${line% *} -- --exact "$test" </dev/null || exit 1
    echo "tests: $test failed at first, and passed alone" >&2
done
