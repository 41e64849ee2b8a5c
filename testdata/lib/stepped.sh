# shellcheck shell=bash
# The programs that tools/stepper steps: fixtures/stepped/<release>, testdata/stepped.c with each release's allocator. To be sourced.

stepped_releases=(2.8.1 2.10 2.16 2.18.1 glibc-2.31 glibc-2.36 glibc-2.41 glibc-2.43 jemalloc-5.2.1 jemalloc-5.3.0 jemalloc-5.3.0-trixie jemalloc-5.3.1)

build_stepped() {
    local root=$FIXTURES/stepped release stamp
    stamp=$(cat "$TESTDATA/stepped.c" "$TESTDATA/lib/stepped.sh" "$TESTDATA/lib/libraries.sh" "$TESTDATA"/lib/*/libraries.sh | sha256sum)
    stamp+=" without ${!MISSING_RELEASES[*]}"
    if [ "$(cat "$root/.stamp" 2>/dev/null)" = "$stamp" ]; then return 0; fi
    rm -rf "$root"
    mkdir -p "$root"
    for release in "${stepped_releases[@]}"; do
        if is_missing "$release"; then continue; fi
        LINK_WORDS=()
        link_words "$release"
        gcc -std=gnu11 -Wall -Wextra -Werror -g -O2 -o "$root/$release" "$TESTDATA/stepped.c" -pthread "${LINK_WORDS[@]}" ||
            fail "stepped.c does not compile for $release"
    done
    echo "$stamp" >"$root/.stamp"
}
