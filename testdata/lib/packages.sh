# shellcheck shell=bash
# What the fixtures need from Debian. To be sourced.

needed_packages=(gcc g++ binutils gdb zstd autoconf automake libtool dpkg-dev
    libtcmalloc-minimal4 libgoogle-perftools4 libgoogle-perftools-dev)

install_packages() {
    local package
    local -a missing=()
    for package in "${needed_packages[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    if ((${#missing[@]})); then
        [ "$(id -u)" = 0 ] || fail "not installed: ${missing[*]} (as root: apt-get install ${missing[*]})"
        echo "packages: installing ${missing[*]}"
        apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null
    fi
}
