#!/bin/bash
# Makes a Debian package of what release.sh built: packaging/deb.sh [TARGET]
set -Eeuo pipefail
trap 'echo "deb.sh, line $LINENO: status $? of: $BASH_COMMAND" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${1:-x86_64-unknown-linux-musl}
case $target in
x86_64-*) architecture=amd64 ;;
aarch64-*) architecture=arm64 ;;
*) echo "deb.sh: Debian has no name for $target here" >&2 && exit 1 ;;
esac
out=target/shipped
program=$out/heapcheck-$target
[ -e "$program" ] && [ -d "$out/pages" ] || { echo "deb.sh: there is no $program: packaging/release.sh $target" >&2 && exit 1; }
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
install -D -m 755 "$program" "$root/usr/bin/heapcheck"
document=$root/usr/share/doc/heapcheck
install -D -m 644 packaging/copyright "$document/copyright"
printf 'heapcheck (%s) unstable; urgency=low\n\n  * See https://example.invalid/heapcheck or CHANGELOG.md of the source.\n\n -- The heapcheck authors <heapcheck@example.invalid>  %s\n' \
    "$version" "$(date -R -u -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$document/changelog.gz"
for page in "$out"/pages/man1/*.1; do
    mkdir -p "$root/usr/share/man/man1"
    gzip -9n <"$page" >"$root/usr/share/man/man1/$(basename "$page").gz"
done
install -D -m 644 "$out/pages/completions/heapcheck.bash" "$root/usr/share/bash-completion/completions/heapcheck"
install -D -m 644 "$out/pages/completions/_heapcheck" "$root/usr/share/zsh/vendor-completions/_heapcheck"
install -D -m 644 "$out/pages/completions/heapcheck.fish" "$root/usr/share/fish/vendor_completions.d/heapcheck.fish"
install -D -m 644 packaging/systemd/heapcheck-cores.service "$root/usr/lib/systemd/system/heapcheck-cores.service"
install -D -m 644 packaging/systemd/heapcheck-cores.path "$root/usr/lib/systemd/system/heapcheck-cores.path"
find "$root/usr" -type f ! -path '*/bin/*' -exec chmod 644 {} +
mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<END
Package: heapcheck
Version: $version
Section: devel
Priority: optional
Architecture: $architecture
Installed-Size: $(du -k -s "$root/usr" | cut -f1)
Maintainer: The heapcheck authors <heapcheck@example.invalid>
Description: post-mortem heap analyzer
 Reads a core file of a dead process, walks the structures of its allocator
 (glibc, tcmalloc, jemalloc), and says whether the heap is damaged, which
 block it is, what kind of error did that, and which words in memory prove it.
END
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
find "$root" -print0 | xargs -0 touch -h -d "@$SOURCE_DATE_EPOCH"
package=$out/heapcheck_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package: $(stat -c %s "$package") bytes"
