# shellcheck shell=bash
# What the fixtures need from Debian: tools on this machine, and other suites' builds of the allocators, which are unpacked under
# $LIBRARIES/<release>/root and never installed. To be sourced.

needed_packages=(gcc g++ binutils gdb zstd dwz make autoconf automake libtool dpkg-dev
    libc6-dbg libtcmalloc-minimal4 libgoogle-perftools4 libjemalloc2
    gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user gdb-multiarch
    libmimalloc-dev musl-tools
    clang libclang-rt-14-dev libc++-14-dev libc++abi-14-dev valgrind jq)

# Stops, with what to do instead, if this is no Debian 12 on x86-64: the fixtures are made with its libraries.
machine_is_debian_12() {
    local name
    # shellcheck source=/dev/null
    name=$(. "${HEAPCHECK_OS_RELEASE:-/etc/os-release}" && echo "${ID:-} ${VERSION_ID:-}") 2>/dev/null || name=
    [ "$name $(uname -m)" = "debian 12 x86_64" ] ||
        fail "the fixtures need Debian 12 on x86-64, and this is '${name:-unknown}' on $(uname -m): cargo test alone does without; for all, run check.sh in a container, as testdata/Containerfile says"
}

install_packages() {
    local package
    local -a missing=()
    for package in "${needed_packages[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    if ((${#missing[@]})); then
        [ "$(id -u)" = 0 ] || fail "not installed: ${missing[*]} (as root: apt-get install ${missing[*]})"
        echo "packages: installing ${missing[*]}"
        {
            apt-get update -q
            DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
        } >"$FIXTURES/apt.log" 2>&1 || fail "apt-get failed: $(tail -n 3 "$FIXTURES/apt.log")"
    fi
    local version
    version=$(dpkg-query -W -f='${Version}' libtcmalloc-minimal4)
    [[ $version == 2.10-* ]] || fail "needs Debian 12, whose libtcmalloc-minimal4 is 2.10; here it is $version"
}

# The packages of the other suites: release, suites to look in, packages (the first decides about the version).
other_releases=(
    "2.8.1 bullseye libtcmalloc-minimal4"
    "2.16 trixie libtcmalloc-minimal4t64 libc6 libstdc++6 libgcc-s1"
    "glibc-2.31 bullseye libc6 libc6-dev libc6-dbg libgcc-s1 libstdc++6"
    "glibc-2.41 trixie libc6 libc6-dev libc6-dbg libgcc-s1 libstdc++6"
    "glibc-2.43 forky,sid libc6 libc6-dev libc6-dbg libgcc-s1 libstdc++6"
    "2.18.1 forky,sid libtcmalloc-minimal4t64 libgoogle-perftools4t64 libunwind8 liblzma5 libc6 libstdc++6 libgcc-s1"
    "jemalloc-5.2.1 bullseye libjemalloc2"
    "jemalloc-5.3.0-trixie trixie libjemalloc2 libc6 libstdc++6 libgcc-s1"
    "jemalloc-5.3.1 forky,sid libjemalloc2 libc6 libstdc++6 libgcc-s1"
)

# shellcheck disable=SC2016 # apt expands these
# The mirror from which this machine takes Debian itself.
debian_mirror() {
    apt-get indextargets --format '$(SITE) $(ORIGIN) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        awk '$2 == "Debian" && $4 == "main" && !found++ { print $1 }' # to the end: apt must not meet a closed pipe
}

private_apt=
# An apt of our own: the machine's mirror, keys and options, but other suites and its own state.
prepare_private_apt() {
    [ -z "$private_apt" ] || return 0
    private_apt=yes
    local mirror directory=$FIXTURES/apt suite
    mirror=$(debian_mirror)
    if [ -z "$mirror" ] && [ "$(id -u)" = 0 ]; then # empty until apt-get update has run once
        apt-get update -q >"$FIXTURES/apt.log" 2>&1 || fail "apt-get update failed: $(tail -n 3 "$FIXTURES/apt.log")"
        mirror=$(debian_mirror)
    fi
    [ -n "$mirror" ] || fail "apt knows no Debian mirror yet (as root: apt-get update)"
    mkdir -p "$directory"/lists/partial "$directory"/cache/archives/partial
    : >"$directory/status"
    # Packages and sources only: all that apt would fetch by default is more than twice as much.
    for suite in bullseye trixie forky sid; do
        echo "deb [arch=amd64 target=Packages] $mirror $suite main"
    done >"$directory/sources.list"
    echo "deb-src [target=Sources] $mirror bookworm main" >>"$directory/sources.list"
    cat >"$directory/apt.conf" <<END
Dir::State "$directory";
Dir::State::lists "$directory/lists";
Dir::State::status "$directory/status";
Dir::Cache "$directory/cache";
Dir::Etc::sourcelist "$directory/sources.list";
Dir::Etc::sourceparts "-";
APT::Sandbox::User "root";
Acquire::Languages "none";
END
    export APT_CONFIG=$directory/apt.conf
    echo "packages: reading the lists of the other suites"
    # A suite that is gone is missed below, by the releases that come from it.
    apt-get update -q >"$FIXTURES/apt.log" 2>&1 || echo "packages: not all suites could be read: $(grep -m 1 '^[EW]:' "$FIXTURES/apt.log" || true)"
}

# Releases that this machine cannot have today. A suite that has moved on costs the fixtures of its releases, not the run.
declare -A MISSING_RELEASES

# without_release RELEASE WHY
without_release() {
    MISSING_RELEASES[$1]=$2
    rm -rf "${LIBRARIES:?}/$1"
    echo "packages: $1 is left out, with all of its fixtures: $2"
}

# is_missing RELEASE: whether it, or the release that it is another build of, is left out. What Cargo builds needs no suite.
is_missing() {
    local missing
    for missing in "${!MISSING_RELEASES[@]}"; do
        case $1 in
        *-rust | *-rust-stripped) ;;
        "$missing" | "$missing"-*) return 0 ;;
        esac
    done
    return 1
}

fetch_releases() {
    local line release suites suite package version
    local -a packages
    for line in "${other_releases[@]}"; do
        read -r release suites packages <<<"$line"
        read -ra packages <<<"$packages"
        [ -e "$LIBRARIES/$release/done" ] && [ "$(cat "$LIBRARIES/$release/done")" = "$line" ] && continue
        prepare_private_apt
        rm -rf "${LIBRARIES:?}/$release"
        mkdir -p "$LIBRARIES/$release/debs" "$LIBRARIES/$release/root"
        for suite in ${suites//,/ }; do
            version=$(apt-cache madison "${packages[0]}" | awk -v suite="$suite/main" -F' *[|] *' '$3 ~ suite && !found++ { print $2 }')
            [[ $version == "$(version_of "$release")"-* ]] && break
        done
        if [[ $version != "$(version_of "$release")"-* ]]; then
            without_release "$release" "it is not in Debian's $suites any more (there is ${version:-none})"
            continue
        fi
        echo "packages: fetching $release ($version) and what it runs on from $suite"
        if ! (cd "$LIBRARIES/$release/debs" && apt-get download -q "${packages[@]/%//$suite}") >"$FIXTURES/apt.log" 2>&1; then
            without_release "$release" "apt-get download failed: $(tail -n 1 "$FIXTURES/apt.log")"
            continue
        fi
        for package in "$LIBRARIES/$release"/debs/*.deb; do
            dpkg-deb -x "$package" "$LIBRARIES/$release/root"
        done
        rm -r "$LIBRARIES/$release/debs"
        echo "$line" >"$LIBRARIES/$release/done"
    done
}

# fetch_source PACKAGE VERSION: Debian 12's source, for builds with debug information and other options, into $LIBRARIES/source.
fetch_source() {
    prepare_private_apt
    rm -rf "$LIBRARIES/source"
    mkdir -p "$LIBRARIES/source"
    (cd "$LIBRARIES/source" && apt-get source -q "$1=$2") >"$FIXTURES/apt.log" 2>&1 ||
        fail "apt-get source failed: $(tail -n 3 "$FIXTURES/apt.log")"
}

forget_private_apt() {
    rm -rf "$FIXTURES/apt" # a hundred megabytes of lists
    unset APT_CONFIG
    private_apt=
}
