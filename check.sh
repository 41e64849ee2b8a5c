#!/bin/bash
# Everything that has to hold: installs what the fixtures need, builds them, and runs all checks and tests.
# `check.sh quick` is for the working day: the same checks on what is built already, and of the readings of fixtures every eighth.
set -Eeuo pipefail
trap 'echo "check.sh, line $LINENO: status $? of: $BASH_COMMAND" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")"

case ${1:-} in
'' | quick) ;;
*) echo "usage: check.sh [quick]" >&2 && exit 2 ;;
esac
for tool in cargo:rustup.rs rustfmt:"rustup component add rustfmt" clippy-driver:"rustup component add clippy"; do
    command -v "${tool%%:*}" >/dev/null || { echo "check.sh: there is no ${tool%%:*} here (${tool#*:})" >&2 && exit 1; }
done
if [ "${1:-}" = quick ] && [ ! -e fixtures/index ]; then
    echo "check.sh: no fixtures are built: ./check.sh builds them, cargo test does without" >&2 && exit 1
fi

# A machine that builds once has no use for what a second build would be faster with: it is half of the space.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0
# Clippy is the compiler here: what it looks at is what the tests run, and nothing is built for it alone.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver
features=(--features "heapcheck/fixtures postmortem/fixtures scoreboard/fixtures stepper/fixtures")

# Builds all targets, and documents all crates; a warning is an error.
compile() {
    local log
    log=$(mktemp)
    cargo test --workspace --all-targets --locked "${features[@]}" --no-run >"$log" 2>&1 || { cat "$log" >&2 && return 1; }
    if grep -q -A 12 '^warning' "$log"; then
        grep -A 12 '^warning' "$log" >&2
        return 1
    fi
    rm "$log"
    RUSTDOCFLAGS='-D warnings' cargo doc -q --workspace --no-deps --locked
}

cargo fmt --all --check
if [ "${1:-}" = quick ]; then
    compile
    export HEAPCHECK_EVERY=${HEAPCHECK_EVERY:-8}
    cargo test -q --locked --no-fail-fast --features "heapcheck/fixtures postmortem/fixtures"
    exit
fi

# The compiler takes what the making of fixtures leaves of the processors: much of that is waiting.
(renice -n 10 "$BASHPID" >/dev/null && compile) &
compiled=$!
env -u RUSTC_WORKSPACE_WRAPPER ./build-fixtures.sh || { kill "$compiled" && exit 1; }
wait "$compiled"
cargo test --workspace --locked --no-fail-fast "${features[@]}"
