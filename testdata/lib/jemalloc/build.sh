#!/bin/bash
# shellcheck source-path=SCRIPTDIR disable=SC2086
# build.sh RECIPE JOBS KIND: builds one jemalloc 5.3.0 from $LIBRARIES/source, into $LIBRARIES/jemalloc-5.3.0-KIND; `debug` makes
# -symtab as well. RECIPE is what stands in `done` afterwards.
set -euo pipefail
recipe=$1 jobs=$2 kind=$3
. "$(dirname "${BASH_SOURCE[0]}")/../kernel.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../libraries.sh"
target=$LIBRARIES/jemalloc-5.3.0-$kind
work=$LIBRARIES/jemalloc-build/$kind
names=$LIBRARIES/jemalloc-names.h
header=include/jemalloc/internal/private_namespace.h

words=(--with-lg-hugepage=21 --with-lg-vaddr=48 --disable-cxx --with-version=VERSION CFLAGS=-O2)
library=lib/libjemalloc.so.2
# Configure adds -g3 by itself, whose macros double the time.
case $kind in
debug) words+=(--with-lg-page=12 EXTRA_CFLAGS=-g2) ;;
nostats) words+=(--with-lg-page=12 EXTRA_CFLAGS=-g0 --disable-stats) ;;
safety) words+=(--with-lg-page=12 EXTRA_CFLAGS=-g0 --enable-opt-safety-checks --enable-prof) ;;
page64k) words+=(--with-lg-page=16 EXTRA_CFLAGS=-g0) ;;
redis)
    words+=(--with-lg-page=12 EXTRA_CFLAGS=-g2 --with-lg-quantum=3 --disable-cache-oblivious --with-jemalloc-prefix=je_)
    library=lib/libjemalloc_pic.a
    ;;
*) fail "no such build of jemalloc: $kind" ;;
esac

build() {
    rm -rf "$work" "$target"
    mkdir -p "$LIBRARIES/jemalloc-build" "$target"
    cp -r "$LIBRARIES/source/jemalloc-5.3.0" "$work"
    cd "$work"
    autoconf
    ./configure "${words[@]}"
    if [ "$kind" = debug ]; then
        make "-j$jobs" "$library"
        cp "$header" "$names"
    else
        # To learn which names want a prefix, jemalloc would be compiled a second time; they are the same in all builds.
        cp "$names" "$header"
        make "-j$jobs" -o "$header" "$library"
    fi
    cp "$library" "$target/$(basename "${library/_pic/}")"
}

set +e # which has no effect below `||`
(
    set -e
    build
) >"$LIBRARIES/jemalloc-$kind.log" 2>&1
status=$?
set -e
[ $status = 0 ] || fail "jemalloc-5.3.0-$kind: see $LIBRARIES/jemalloc-$kind.log"
library=$target/$(basename "${library/_pic/}")
case $kind in
debug)
    change_build_id "$library" "jemalloc-$kind"
    rm -rf "$LIBRARIES/jemalloc-5.3.0-symtab"
    mkdir "$LIBRARIES/jemalloc-5.3.0-symtab"
    strip -g -o "$LIBRARIES/jemalloc-5.3.0-symtab/libjemalloc.so.2" "$library"
    change_build_id "$LIBRARIES/jemalloc-5.3.0-symtab/libjemalloc.so.2" jemalloc-symtab
    ;;
nostats | safety | page64k) strip "$library" ;;
esac
rm -rf "$work"
echo "$recipe" >"$target/done"
