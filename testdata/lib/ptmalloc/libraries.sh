# shellcheck shell=bash disable=SC2054,SC2034 # commas belong to the linker; LINK_WORDS is the caller's
# Debian's builds of glibc, and how a program is linked with each. To be sourced by ../libraries.sh. All are stripped, their
# debug files are those of libc6-dbg.
#
#   glibc-2.36                         this machine's
#   glibc-2.31 glibc-2.41 glibc-2.43   other suites', unpacked; a program starts with that suite's dynamic linker
#   glibc-*-static                     that suite's libc.a, linked into the program, whose symbols say where everything is
#   glibc-*-static-stripped            the same, stripped
#   glibc-*-static-pie                 the same archive in a program that can be anywhere

ptmalloc_releases=(glibc-2.31 glibc-2.36 glibc-2.41 glibc-2.43)

# The root directory of a release's files; empty for this machine's own.
ptmalloc_root_of() {
    case $1 in
    glibc-2.36*) ;;
    *) echo "$LIBRARIES/glibc-$(version_of "$1")/root" ;;
    esac
}

ptmalloc_library_of() {
    local directory
    directory=$(ptmalloc_root_of "$1")/usr/lib/x86_64-linux-gnu
    case $1 in
    *-static*) echo "$directory/libc.a" ;;
    glibc-2.31) echo "${directory/usr\//}/libc.so.6" ;;
    *) echo "$directory/libc.so.6" ;;
    esac
}

ptmalloc_link_words() {
    local root directory
    root=$(ptmalloc_root_of "$1")
    directory=$(dirname "$(ptmalloc_library_of "$1")")
    LINK_WORDS=("-DGLIBC=$(version_of "$1" | cut -d. -f2)")
    [ -z "$root" ] || LINK_WORDS+=("--sysroot=$root" "-B$root/usr/lib/x86_64-linux-gnu" -isystem /usr/include/x86_64-linux-gnu -isystem /usr/include)
    case $1 in
    *-static*)
        LINK_WORDS+=(-DSTATIC)
        # gcc's own archive asks for what 2.31 did not have yet, to unwind with: no program here does.
        [[ $1 != glibc-2.31* ]] || LINK_WORDS+=(-Wl,--defsym=_dl_find_object=0)
        case $1 in
        *-pie) LINK_WORDS+=(-static-pie) ;;
        *) LINK_WORDS+=(-static) ;;
        esac
        ;;
    glibc-2.36) LINK_WORDS+=(-ldl) ;;
    *)
        LINK_WORDS+=(-Wl,--allow-shlib-undefined -Wl,--disable-new-dtags
            "-Wl,-rpath,$directory:$root/usr/lib/x86_64-linux-gnu" "-Wl,--dynamic-linker,$directory/ld-linux-x86-64.so.2" -ldl)
        ;;
    esac
}

ptmalloc_library_is_stripped() {
    case $1 in
    *-static | *-static-pie) return 1 ;;
    esac
}

# The linker scripts and links in the packages name files as they are installed: below the root these names have to lead there.
ptmalloc_build_libraries() {
    local release root link
    for release in "${ptmalloc_releases[@]}"; do
        root=$(ptmalloc_root_of "$release")
        [ -n "$root" ] || continue
        if is_missing "$release"; then continue; fi
        { find "$root/lib64" "$root/usr/lib/x86_64-linux-gnu" -lname '/*' 2>/dev/null || true; } | while read -r link; do
            ln -sfnr "$root$(readlink "$link")" "$link"
        done
        [ -e "$root/lib" ] || ln -s usr/lib "$root/lib"
        [ -e "$root/lib64" ] || ln -s usr/lib64 "$root/lib64"
    done
}
