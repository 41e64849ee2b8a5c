# shellcheck shell=bash disable=SC2054,SC2034 # commas belong to the linker; LINK_WORDS is the caller's
# The builds of gperftools' tcmalloc, and how a program is linked with each. To be sourced by ../libraries.sh.
#
#   2.10 2.10-full               Debian 12's, as installed
#   2.8.1 2.16 2.18.1(-full)     other suites', unpacked; the last two with their own libc
#   2.10-debug                   built here from Debian's source, with -g, not stripped
#   2.10-dwarf4                  the same with DWARF 4 instead of 5
#   2.10-symtab                  that one without DWARF
#   2.10-compressed              that one with its debug sections compressed
#   2.10-debugfile               that one stripped; its debug file is found by build ID under fixtures/debugroot
#   2.10-dwz                     the same, and dwz has moved a part of the debug file to an alternate one
#   2.10-debuglink               that one stripped, with .gnu_debuglink alone; the file lies in .debug beside the library
#   2.10-static(-stripped)       its archive, linked into the program
# Every variant of the one build has a build ID of its own, so that none is taken for another.

built_variants=(2.10-debug 2.10-dwarf4 2.10-symtab 2.10-compressed 2.10-debugfile 2.10-dwz 2.10-debuglink)

# The file that a release's programs are linked with; those of `other` are asked for as other/NAME.
tcmalloc_library_of() {
    local system=/usr/lib/x86_64-linux-gnu
    case $1 in
    2.10 | other/no-tcmalloc) echo $system/libtcmalloc_minimal.so.4 ;;
    2.10-full) echo $system/libtcmalloc.so.4 ;;
    2.18.1-full) echo "$LIBRARIES/2.18.1/root$system/libtcmalloc.so.4" ;;
    2.8.1 | 2.16 | 2.18.1) echo "$LIBRARIES/$1/root$system/libtcmalloc_minimal.so.4" ;;
    2.10-static*) echo "$LIBRARIES/2.10-debug/libtcmalloc_minimal.a" ;;
    2.10-*) echo "$LIBRARIES/$1/libtcmalloc_minimal.so.4" ;;
    other/gperftools-debug) echo $system/libtcmalloc_minimal_debug.so.4 ;;
    *) fail "no such release: $1" ;;
    esac
}

# Sets LINK_WORDS, the linker's arguments for a release.
tcmalloc_link_words() {
    local library directory
    library=$(tcmalloc_library_of "$1")
    directory=$(dirname "$library")
    case $1 in
    other/no-tcmalloc)
        LINK_WORDS=()
        ;;
    2.10-static*)
        LINK_WORDS=(-Wl,-u,malloc "$library" -lstdc++ -lm)
        ;;
    2.16 | 2.18.1*)
        # These want a newer libc than this machine's, so the program starts with theirs.
        LINK_WORDS=(-Wl,--no-as-needed "$library" -Wl,--allow-shlib-undefined -Wl,--disable-new-dtags
            "-Wl,-rpath,$directory" "-Wl,--dynamic-linker,$directory/ld-linux-x86-64.so.2")
        ;;
    *)
        LINK_WORDS=(-Wl,--no-as-needed "$library" -Wl,--disable-new-dtags "-Wl,-rpath,$directory")
        ;;
    esac
}

# Whether the module that holds tcmalloc is without .symtab.
tcmalloc_library_is_stripped() {
    case $1 in
    2.10-debug | 2.10-dwarf4 | 2.10-symtab | 2.10-compressed | 2.10-static) return 1 ;;
    esac
}

# Builds 2.10 once, and makes the variants from it.
tcmalloc_build_libraries() {
    local recipe variant
    recipe=$(sha256sum <"$TESTDATA/lib/tcmalloc/libraries.sh")
    [ "$(cat "$LIBRARIES/built" 2>/dev/null)" = "$recipe" ] && return 0
    if [ ! -e "$LIBRARIES/build/dwarf4" ] || [ ! -e "$LIBRARIES/build/done" ]; then
        fetch_source google-perftools 2.10-1
        echo "libraries: building gperftools 2.10 with debug information"
        build_source >"$LIBRARIES/build.log" 2>&1 || fail "gperftools does not build: see $LIBRARIES/build.log"
        rm -rf "$LIBRARIES/source"
    fi
    echo "libraries: making the variants"
    rm -rf "$FIXTURES/debugroot" "$FIXTURES/debuglinkroot"
    for variant in "${built_variants[@]}"; do
        rm -rf "${LIBRARIES:?}/$variant"
        mkdir -p "$LIBRARIES/$variant"
        make_variant "$variant" "$LIBRARIES/$variant/libtcmalloc_minimal.so.4"
    done
    cp "$LIBRARIES/build/libtcmalloc_minimal.a" "$LIBRARIES/2.10-debug/"
    echo "$recipe" >"$LIBRARIES/built"
}

# In a shell of its own: `set -e` has no effect below `||`.
build_source() {
    bash -euo pipefail <<'END'
cd "$LIBRARIES"/source/google-perftools-2.10
./autogen.sh
./configure CFLAGS='-g -O2' CXXFLAGS='-g -O2' --disable-libunwind --disable-dependency-tracking
make -j2 libtcmalloc_minimal.la libtcmalloc.la
rm -rf "$LIBRARIES/build"
mkdir "$LIBRARIES/build"
cp -L .libs/libtcmalloc_minimal.so.4 .libs/libtcmalloc_minimal.a .libs/libtcmalloc.so.4 "$LIBRARIES/build/"
make clean
make -j2 libtcmalloc_minimal.la CFLAGS='-g -gdwarf-4 -O2' CXXFLAGS='-g -gdwarf-4 -O2'
mkdir "$LIBRARIES/build/dwarf4"
cp -L .libs/libtcmalloc_minimal.so.4 "$LIBRARIES/build/dwarf4/"
touch "$LIBRARIES/build/done"
END
}

make_variant() {
    local variant=$1 library=$2 debug directory
    case $variant in
    2.10-dwarf4) cp "$LIBRARIES/build/dwarf4/libtcmalloc_minimal.so.4" "$library" ;;
    *) cp "$LIBRARIES/build/libtcmalloc_minimal.so.4" "$library" ;;
    esac
    change_build_id "$library" "$variant"
    case $variant in
    2.10-debug | 2.10-dwarf4) ;;
    2.10-symtab) strip -g "$library" ;;
    2.10-compressed) objcopy --compress-debug-sections=zlib "$library" ;;
    2.10-debugfile)
        debug=$(place_debug_file "$FIXTURES/debugroot" "$library")
        objcopy --only-keep-debug "$library" "$debug"
        strip "$library"
        ;;
    2.10-dwz)
        debug=$(place_debug_file "$FIXTURES/debugroot" "$library")
        objcopy --only-keep-debug "$library" "$debug"
        # dwz needs two files to find something common.
        objcopy --only-keep-debug "$LIBRARIES/build/libtcmalloc.so.4" "$LIBRARIES/second.debug"
        mkdir -p "$FIXTURES/debugroot/.dwz"
        dwz -q -m "$FIXTURES/debugroot/.dwz/gperftools" -M ../../.dwz/gperftools "$debug" "$LIBRARIES/second.debug"
        rm "$LIBRARIES/second.debug"
        strip "$library"
        ;;
    2.10-debuglink)
        directory=$(dirname "$library")
        debug=$directory/.debug/libtcmalloc_minimal.so.4.debug
        mkdir "$directory/.debug"
        objcopy --only-keep-debug "$library" "$debug"
        strip "$library"
        objcopy --add-gnu-debuglink="$debug" "$library"
        # The same below a root of debug files, as under /usr/lib/debug.
        mkdir -p "$FIXTURES/debuglinkroot$directory"
        ln "$debug" "$FIXTURES/debuglinkroot$directory/"
        ;;
    esac
}
