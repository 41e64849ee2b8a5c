# shellcheck shell=bash source-path=SCRIPTDIR
# The builds of the allocators, and how a program is linked with each. To be sourced. A release's name says whose it is:
# `glibc-2.36`, `jemalloc-5.3.0`, and a version alone is gperftools'; what follows a second dash is the kind of build.
# $LIBRARIES/<release>/ holds what is not the system's own. Each allocator's folder here has a libraries.sh of its own with
#   <allocator>_library_of RELEASE            prints the file that holds the allocator
#   <allocator>_link_words RELEASE            sets LINK_WORDS, the linker's arguments
#   <allocator>_library_is_stripped RELEASE   whether the module that holds the allocator is without .symtab
#   <allocator>_build_libraries               makes what is made here (build-fixtures.sh calls it)
# and a table.sh with <allocator>_table, which adds its fixtures.

here_lib=$(dirname "${BASH_SOURCE[0]}")
ALLOCATORS=(tcmalloc ptmalloc jemalloc)

# allocator_of RELEASE: the folder of an allocator.
allocator_of() {
    case $1 in
    glibc-*) echo ptmalloc ;;
    jemalloc-*) echo jemalloc ;;
    *) echo tcmalloc ;;
    esac
}

# version_of RELEASE: `2.36` of glibc-2.36-static.
version_of() {
    local version=${1#glibc-}
    version=${version#jemalloc-}
    echo "${version%%-*}"
}

# change_build_id FILE NAME: gives FILE a build ID made from NAME.
change_build_id() {
    local note=$LIBRARIES/note
    objcopy --dump-section .note.gnu.build-id="$note" "$1"
    # The last 20 bytes are the ID.
    {
        head -c -20 "$note"
        printf '%s' "$2" | sha1sum | cut -c1-40 | unhex
    } >"$note.new"
    objcopy --update-section .note.gnu.build-id="$note.new" "$1"
    rm "$note" "$note.new"
}

# Hexadecimal to bytes.
unhex() {
    local hex
    read -r hex
    # shellcheck disable=SC2059,SC2001
    printf "$(sed 's/../\\x&/g' <<<"$hex")"
}

build_id_of() {
    readelf -n "$1" | awk '/Build ID:/ && !found++ { print $3 }'
}

# place_debug_file ROOT FILE: the debug file of FILE goes below ROOT/.build-id; says where.
place_debug_file() {
    local id
    id=$(build_id_of "$2")
    mkdir -p "$1/.build-id/${id:0:2}"
    echo "$1/.build-id/${id:0:2}/${id:2}.debug"
}

for allocator in "${ALLOCATORS[@]}"; do
    # shellcheck source=/dev/null
    . "$here_lib/$allocator/libraries.sh"
done

# The file that a release's programs are linked with; those of `other` are asked for as other/NAME.
library_of() {
    "$(allocator_of "$1")_library_of" "$1"
}

# Sets LINK_WORDS, the compiler's arguments for a release.
link_words() {
    "$(allocator_of "$1")_link_words" "$1"
}

library_is_stripped() {
    "$(allocator_of "$1")_library_is_stripped" "$1"
}

build_libraries() {
    local allocator
    for allocator in "${ALLOCATORS[@]}"; do
        "${allocator}_build_libraries"
    done
}
