#!/bin/bash
# Everything that has to hold: installs what the fixtures need, builds them, and runs all checks and tests.
set -Eeuo pipefail
trap 'echo "check.sh, line $LINENO: status $? of: $BASH_COMMAND" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")"

# A machine that builds once has no use for what a second build would be faster with: it is half of the space.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

./build-fixtures.sh
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
cargo test --workspace --locked --no-fail-fast
