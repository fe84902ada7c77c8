#!/bin/sh
# check.sh TARGET_DIR ARCH: opm on another architecture (aarch64, riscv64).
#
# Builds it, runs its unit tests under qemu-user, and boots a machine of its kind on which nothing
# but opm and busybox runs (guest.sh). Takes four minutes. Wants rustup's std of that architecture,
# a cross compiler, qemu-user and qemu-system. KERNEL=PATH, BUSYBOX=PATH: what is booted, a static
# busybox among it; else what the package sources of this machine have of that architecture.
set -eu
target_dir=$1
arch=$2
here=$(cd "$(dirname "$0")" && pwd)
case $arch in
aarch64) target=aarch64-unknown-linux-gnu debian=arm64 kernels='linux-image-6\..*-cloud-arm64' \
    machine='-cpu cortex-a72' console=ttyAMA0 ;;
riscv64) target=riscv64gc-unknown-linux-gnu debian=riscv64 kernels='linux-image-6\..*-riscv64' \
    machine='' console=ttyS0 ;;
*) echo "check.sh: $arch: aarch64 or riscv64" >&2; exit 2 ;;
esac
for program in "$arch-linux-gnu-gcc" "qemu-$arch" "qemu-system-$arch"; do
    command -v "$program" > /dev/null || {
        echo "check.sh: $program is missing (packages gcc-$arch-linux-gnu, qemu-user," \
            "qemu-system-arm, qemu-system-misc)" >&2
        exit 1
    }
done
dir=$target_dir/arch/$arch
mkdir -p "$dir"
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
name=$(echo "$target" | tr a-z- A-Z_)
export "CARGO_TARGET_${name}_LINKER=$arch-linux-gnu-gcc"
export "CARGO_TARGET_${name}_RUNNER=qemu-$arch -L /usr/$arch-linux-gnu"
export CARGO_TARGET_DIR="$dir"

# qemu-user makes up a /proc/self/stat of its own, which has no start time.
cargo test --target "$target" --lib -- --skip the_start_time_is_read_as_the_daemon_reads_it
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
    cargo build --release --target "$target" --bin opm

# The package manager's view of that architecture, beside this machine's own.
of_arch() {
    program=$1
    shift
    "$program" -q -o APT::Architecture=$debian -o APT::Architectures=$debian \
        -o Dir::State="$dir/state" -o Dir::State::status="$dir/status" \
        -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root "$@"
}

fetch() (
    cd "$dir"
    mkdir -p "state/lists/partial" "cache/archives/partial"
    : > status
    of_arch apt-get update > /dev/null
    kernel=$(of_arch apt-cache search --names-only "^$kernels\$" | cut -d ' ' -f 1 | sort -V | tail -n 1)
    [ -n "$kernel" ] || return 1
    rm -rf root ./*.deb
    of_arch apt-get download "$kernel" busybox-static > /dev/null
    for package in ./*.deb; do
        dpkg-deb -x "$package" root
    done
)

if [ -z "${KERNEL:-}" ] || [ -z "${BUSYBOX:-}" ]; then
    if ! fetch; then
        echo "$arch: built, and its unit tests pass; not booted, for the package sources have no" \
            "kernel of it (KERNEL=PATH BUSYBOX=PATH)"
        exit 0
    fi
    KERNEL=$(echo "$dir"/root/boot/vmlinu*)
    BUSYBOX=$(find "$dir/root" -path '*bin/busybox' -type f | head -n 1)
fi
python3 "$here/archive.py" "$dir/initramfs" init="$here/guest.sh" bin/busybox="$BUSYBOX" \
    bin/opm="$dir/$target/release/opm"
# shellcheck disable=SC2086
timeout 600 "qemu-system-$arch" -M virt $machine -smp 2 -m 2048 -nographic -no-reboot \
    -kernel "$KERNEL" -initrd "$dir/initramfs" -append "console=$console quiet panic=1" \
    < /dev/null | tr -d '\r' > "$dir/said"
grep '^claim' "$dir/said" || true
if grep -q '^DONE$' "$dir/said" && ! grep '^claim' "$dir/said" | grep -qv ' holds$'; then
    echo "$arch: $(grep -c '^claim' "$dir/said") claims hold"
else
    tail -n 40 "$dir/said" >&2
    exit 1
fi
