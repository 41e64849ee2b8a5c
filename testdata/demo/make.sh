#!/bin/bash
# shellcheck source-path=SCRIPTDIR
# Makes the demo anew: the program `double-free` and its core `double-free.core.zst`, both of which are in the
# repository so that heapcheck can be seen at work without building fixtures. Needs gcc, zstd and Debian 12's
# libtcmalloc-minimal4. A different machine gives a different core: commit both files together.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../lib/kernel.sh
kernel_writes_cores

work=$(mktemp -d /tmp/chat.XXXX)
trap 'rm -rf "$work"' EXIT
# No machine path may get into the binary or the core: the program runs as ./double-free.
gcc -std=gnu11 -O1 -g -fdebug-prefix-map="$PWD"=. -Wl,--build-id -o "$work/double-free" demo.c \
    -Wl,--no-as-needed -l:libtcmalloc_minimal.so.4
mkdir "$work/run"
core_of "$work/run" "$work/core" env -i "$work/double-free" 2>/dev/null || true
[ -s "$work/core" ] || { echo "demo: no core was written" >&2; exit 1; }
zstd -q -19 --force "$work/core" -o double-free.core.zst
cp "$work/double-free" double-free
ls -l double-free double-free.core.zst
