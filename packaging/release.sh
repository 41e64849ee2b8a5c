#!/bin/bash
# Builds what is shipped: packaging/release.sh [--twice] [TARGET...]
# For each target (x86_64-unknown-linux-musl where none is named) target/shipped/ gets the program, static and stripped, its symbols beside it, and an
# archive with manual and completions. The same commit gives the same bytes; --twice builds again elsewhere and compares.
set -Eeuo pipefail
trap 'echo "release.sh, line $LINENO: status $? of: $BASH_COMMAND" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")/.."
MOST_BYTES=10000000

fail() { trap - ERR; echo "release.sh: $*" >&2; exit 1; }

twice=
[ "${1:-}" != --twice ] || { twice=1; shift; }
targets=("$@")
[ $# -gt 0 ] || targets=(x86_64-unknown-linux-musl)
out=target/shipped
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)

if [ -z "${HEAPCHECK_COMMIT:-}" ]; then
    [ -z "$(git status --porcelain --untracked-files=no)" ] || fail "there are changes that are not committed: the program would name a commit that it is not"
    HEAPCHECK_COMMIT=$(git log -1 --format='%h %cs' --abbrev=9)
fi
export HEAPCHECK_COMMIT
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export CARGO_INCREMENTAL=0
unset RUSTC_WORKSPACE_WRAPPER

# No path of the building machine is in the program.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
flags="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$(rustc --print sysroot)=/rust"

# What a target needs beside Rust: its C compiler (for zstd and mimalloc), and tools that know its files.
tools_of() {
    case $1 in
    x86_64-unknown-linux-musl)
        compiler=musl-gcc package=musl-tools tools='' c_flags='' ;;
    aarch64-unknown-linux-musl)
        # The program is linked by Rust's own linker and musl; the compiler's C library is not.
        compiler=aarch64-linux-gnu-gcc package=gcc-aarch64-linux-gnu tools=aarch64-linux-gnu- c_flags='-mno-outline-atomics -U_FORTIFY_SOURCE'
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld ;;
    *) fail "$1 is none of the targets: x86_64-unknown-linux-musl, aarch64-unknown-linux-musl" ;;
    esac
    [ -d "$(rustc --print target-libdir --target "$1" 2>/dev/null)" ] || fail "Rust has no standard library for $1 here: rustup target add $1"
    command -v "$compiler" >/dev/null || fail "there is no $compiler here: apt install $package"
}

# Builds into a folder; gives nothing but the folder's files.
build() { # target folder
    local name=${1//-/_}
    (
        export "CC_$name=$compiler" "CFLAGS_$name=$c_flags -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$PWD/$2=/build"
        # Crates that write files for others have the folder's name in them.
        export RUSTFLAGS="$flags --remap-path-prefix=$PWD/$2=/build --remap-path-prefix=$PWD=/heapcheck"
        cargo build --quiet --locked --profile dist --target "$1" --target-dir "$2" -p heapcheck -p pages
    )
}

# Strips a program; its symbols go beside it, named by what the program says.
strip_program() { # from to
    "${tools}objcopy" --only-keep-debug "$1" "$2.debug"
    "${tools}strip" --strip-all -o "$2" "$1"
    (cd "$(dirname "$2")" && "${tools}objcopy" --add-gnu-debuglink="$(basename "$2").debug" "$(basename "$2")")
}

mkdir -p "$out"
for target in "${targets[@]}"; do
    tools_of "$target"
    built=target/dist-build
    build "$target" "$built"
    program=$out/heapcheck-$target
    strip_program "$built/$target/dist/heapcheck" "$program"
    if [ -n "$twice" ]; then
        again=$(mktemp -d "$PWD/target/dist-again.XXXXXX")
        build "$target" "${again#"$PWD"/}"
        strip_program "$again/$target/dist/heapcheck" "$again/heapcheck-$target"
        cmp "$program" "$again/heapcheck-$target" || fail "two builds of $target differ"
        cmp "$program.debug" "$again/heapcheck-$target.debug" || fail "the symbols of two builds of $target differ"
        rm -r "$again"
        echo "$target: two builds in two folders gave the same bytes"
    fi
    [ "$(stat -c %s "$program")" -lt "$MOST_BYTES" ] || fail "$program has $(stat -c %s "$program") bytes, more than $MOST_BYTES"
    ! readelf -lW "$program" | grep -q INTERP || fail "$program is not static"

    # The manual and the completions are the same for all; a program for another processor cannot write them here.
    if [ ! -e "$out/pages/man1" ] || [ "${target%%-*}" = "$(uname -m)" ]; then
        writer=$built/$target/dist/pages
        [ "${target%%-*}" = "$(uname -m)" ] || fail "build the target of this machine first: it writes the manual"
        rm -rf "$out/pages" && "$writer" "$out/pages"
    fi
    folder=heapcheck-$version-$target
    rm -rf "${out:?}/$folder" && mkdir -p "$out/$folder"
    cp "$program" "$out/$folder/heapcheck"
    cp -r "$out/pages/." README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$out/$folder/"
    tar -C "$out" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -cf - "$folder" | gzip -9n >"$out/$folder.tar.gz"
    rm -r "${out:?}/$folder"
    echo "$target: $(stat -c %s "$program") bytes, $("./$program" --version 2>/dev/null || echo "heapcheck $version, not run here")"
done
(cd "$out" && sha256sum -- heapcheck-* >SHA256SUMS)
