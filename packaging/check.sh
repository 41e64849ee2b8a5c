#!/bin/bash
# Uses what is shipped as a stranger would: packaging/check.sh [GLIBC_PROGRAM], after release.sh and deb.sh; needs root for chroot.
# The program in a folder with nothing else; the same JSON as a build with glibc, and of the aarch64 program under qemu where both are here; the
# package installed, run, removed.
set -Eeuo pipefail
trap 'echo "packaging/check.sh, line $LINENO: status $? of: $BASH_COMMAND" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")/.."

program=$PWD/target/shipped/heapcheck-x86_64-unknown-linux-musl
glibc=${1:-target/release/heapcheck}
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT

finds_the_double_free() { # root program
    local status=0
    chroot "$1" "$2" /double-free.core.zst /double-free >"$room/report" || status=$?
    [ "$status" = 1 ] && grep -q 'double-free, certain' "$room/report"
}

# A container from scratch has this and no more.
mkdir -p "$room/scratch/var/tmp"
cp "$program" "$room/scratch/heapcheck"
cp testdata/demo/double-free.core.zst testdata/demo/double-free "$room/scratch"
finds_the_double_free "$room/scratch" /heapcheck
chroot "$room/scratch" /heapcheck --format html --output /report.html /double-free.core.zst || [ $? = 1 ]
grep -q 'CRITICAL' "$room/scratch/report.html"
echo "alone in a folder: finds the double free, writes the page"

# The cores of the repository, unpacked: xz leaves holes.
cp -r tests/cores "$room/cores"
find "$room/cores" -name '*.xz' -exec xz -d {} +
cores=0
compare() { # name-of-run program arguments...
    local status=0
    "${@:2}" >"$room/$1.json" || status=$?
    echo "status $status" >>"$room/$1.json"
}
arm=target/shipped/heapcheck-aarch64-unknown-linux-musl
emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)
[ -e "$arm" ] || emulator=
while IFS= read -r core; do
    binary=$(dirname "$core")/binary
    for way in check stacks leaks; do
        arguments=("$way" --format json --no-default-paths --sysroot "$room/cores/root" "$core")
        [ ! -e "$binary" ] || arguments+=("$binary")
        compare shipped "$program" "${arguments[@]}"
        compare glibc "$glibc" "${arguments[@]}"
        cmp "$room/shipped.json" "$room/glibc.json" || { echo "$core: $way differs" >&2 && exit 1; }
        [ -n "$emulator" ] || continue
        compare arm "$emulator" "$arm" "${arguments[@]}"
        cmp "$room/shipped.json" "$room/arm.json" || { echo "$core: $way differs on aarch64" >&2 && exit 1; }
    done
    cores=$((cores + 1))
done < <(find "$room/cores" -name core | sort)
[ "$cores" -gt 40 ]
echo "$cores cores: the same JSON and status as $glibc, of check, stacks and leaks"
if [ -n "$emulator" ]; then echo "$cores cores: the same of $arm under $emulator"; fi

package=$(echo target/shipped/heapcheck_*_amd64.deb)
root=$room/root
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/tmp" "$root/tmp"
: >"$root/var/lib/dpkg/status"
dpkg --root="$root" --force-not-root --log=/dev/null --install "$package" >/dev/null
cp testdata/demo/double-free.core.zst testdata/demo/double-free "$root"
finds_the_double_free "$root" /usr/bin/heapcheck
for file in share/man/man1/heapcheck.1.gz share/man/man1/heapcheck-leaks.1.gz share/bash-completion/completions/heapcheck share/zsh/vendor-completions/_heapcheck \
    share/fish/vendor_completions.d/heapcheck.fish share/doc/heapcheck/copyright; do
    [ -s "$root/usr/$file" ]
done
dpkg --root="$root" --log=/dev/null --purge heapcheck >/dev/null
[ ! -e "$root/usr" ] || [ -z "$(find "$root/usr" -type f -o -type l)" ]
echo "$package: installed, run, removed without a trace"
if command -v lintian >/dev/null; then
    lintian --fail-on error --suppress-tags initial-upload-closes-no-bugs,bogus-mail-host,bogus-mail-host-in-debian-changelog "$package"
    echo "$package: lintian has no error"
fi
