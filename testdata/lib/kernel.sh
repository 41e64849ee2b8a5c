# shellcheck shell=bash
# Whether the kernel will write cores that we find, and running a program until it has written one. To be sourced.

# A script that dies says where: with `set -e` alone it would end without a word.
set -E
trap 'say_where_it_died "$?" "$BASH_COMMAND" "${BASH_SOURCE[0]}" "$LINENO"' ERR
say_where_it_died() {
    ((BASH_SUBSHELL == 0)) || return 0 # the shell that waits for this one decides whether that was an end
    echo "${3##*/}, line $4: status $1 of: $2" >&"${FAIL_FD:-2}"
}

fail() {
    echo "build-fixtures: $*" >&"${FAIL_FD:-2}"
    exit 1
}

# Stops, with the reason in one line, if no program here could leave a core in its working directory.
kernel_writes_cores() {
    local file=${HEAPCHECK_CORE_PATTERN_FILE:-/proc/sys/kernel/core_pattern} pattern='' limit
    [ -r "$file" ] || fail "$file cannot be read: no telling where cores go"
    read -r pattern <"$file" || true
    [ -n "$pattern" ] || fail "core_pattern is empty: the kernel would write no cores; set it to 'core' to build the fixtures"
    case $pattern in
    '|'*) fail "core_pattern is a pipe ($pattern): cores would go to that program; set it to 'core' to build the fixtures" ;;
    /*) fail "core_pattern is an absolute path ($pattern): cores would not lie where they can be told apart; set it to 'core' to build the fixtures" ;;
    */*) core_directory=${pattern%/*} ;;
    *) core_directory=. ;;
    esac
    case $core_directory in
    *%*) fail "core_pattern names a directory that only the kernel knows ($pattern); set it to 'core' to build the fixtures" ;;
    esac
    limit=$(ulimit -Hc)
    [ "$limit" != 0 ] || fail "the hard limit for core files is 0 (ulimit -Hc): no program can write one"
    [ "$limit" = unlimited ] || ((limit >= 1 << 20)) ||
        fail "the hard limit for core files is $limit KiB (ulimit -Hc): cores would be cut off"
    export core_directory
}

# Stops at once if the disk is too full for the fixtures: compilers in the middle would each say so in their own words.
room_for_fixtures() {
    local needed=9000 present free # MiB, all of them and what they are made with
    present=$(du -sm "$FIXTURES" | cut -f1)
    free=$(df -m --output=avail "$FIXTURES" | tail -n 1)
    ((present + free >= needed)) ||
        fail "the fixtures take $needed MiB, of which $present are there, and the disk has only $((free)) MiB left"
}

# core_of DIRECTORY OUT COMMAND...: runs COMMAND in the empty DIRECTORY and moves the core that it leaves there to OUT.
# Returns the command's own status (128 + signal). The program is the process $BASHPID of the subshell: it is exec'ed.
core_of() {
    local directory=$1 out=$2 status=0
    shift 2
    mkdir -p "$directory/$core_directory"
    (in_core_directory "$directory" "$@") || status=$?
    take_core "$directory" "$out"
    return "$status"
}

in_core_directory() {
    cd "$1" || exit 98
    shift
    ulimit -c "$(ulimit -Hc)"
    echo 0x33 >/proc/self/coredump_filter # the default: whatever the caller has set would be inherited
    exec "$@"
}

take_core() {
    local found
    found=$(find "$1" -type f)
    case $found in
    '') return 0 ;;
    *$'\n'*) fail "more than one file in $1: $found" ;;
    esac
    mv "$found" "$2"
}
