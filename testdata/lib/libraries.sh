# shellcheck shell=bash
# How a program is linked with each build of tcmalloc. To be sourced. $LIBRARIES holds what is not the system's own.

# The file that a release's programs are linked with.
library_of() {
    case $1 in
    2.10) echo /usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4 ;;
    *) fail "no such release: $1" ;;
    esac
}

# Sets LINK_WORDS, the linker's arguments for a release.
link_words() {
    local library
    library=$(library_of "$1")
    LINK_WORDS=(-Wl,--no-as-needed "$library")
}

# Whether the module that holds tcmalloc is without .symtab.
library_is_stripped() {
    case $1 in
    *-debug | *-symtab | *-static) return 1 ;;
    esac
}
