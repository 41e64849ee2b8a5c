#!/bin/sh
# A gate for a build: fails if the logs of this run hold a bug that the baseline has not.
#
#   examples/ci-gate.sh BASELINE.ndjson LOG...
#
# The baseline is what `heapcheck import LOG... -o BASELINE.ndjson` wrote of the last release. What people decided (mutes with a reason
# and an end) is in heapcheck.triage.toml beside it. Exit status: 0 nothing new, 1 a new bug or a mute that has ended, 2 not read.
# HEAPCHECK_BIN names the program. (HEAPCHECK alone belongs to gperftools: what is linked with it ends when it does not know the word.)
set -eu
heapcheck=${HEAPCHECK_BIN:-heapcheck}
baseline=$1
shift
run=$(mktemp)
trap 'rm -f "$run"' EXIT
"$heapcheck" import --kv version="${VERSION:-unknown}" --output "$run" "$@"
"$heapcheck" triage new --baseline "$baseline" "$run"
