#!/bin/bash
# Makes fuzz/corpus/<target> from tests/cores: without seeds a fuzzer would have to find out what an ELF file is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cores=../tests/cores
mkdir -p corpus/{corefile,file,dwarf,unwind,tcmalloc,ptmalloc,jemalloc,logs}
logs=../crates/reports/tests
cp "$logs"/logs/* "$logs"/forms/* corpus/logs/
# A reader of logs begins with those of its tools.
set -f
for seed in json:'casr*,heapcheck.json' valgrind-xml:'*xml*,*protocol*' sanitizer:'?san-*,??san-*' valgrind-text:'valgrind*text*,helgrind*,drd*' drmemory:'drmemory*' \
    profile:'*tcmalloc.log,jemalloc*' gperftools:'heapcheck-gperftools*' mtrace:'*mtrace*' memleak:'memleak*' libmemleak:'libmemleak*'; do
    reader=${seed%%:*}
    mkdir -p "parsers/corpus/$reader"
    for pattern in $(tr , ' ' <<<"${seed#*:}"); do
        find "$logs/logs" "$logs/forms" -name "$pattern" -exec cp {} "parsers/corpus/$reader/" \;
    done
    [ -n "$(ls "parsers/corpus/$reader")" ] || { echo "seeds.sh: no log for $reader" >&2 && exit 1; }
done
set +f
for core in "$cores"/*/*/core.xz; do
    name=$(dirname "${core#"$cores"/}")
    xz -dc "$core" | head -c 16384 >"corpus/corefile/${name//\//-}" || true
done
for binary in "$cores"/2.10/*/binary.xz "$cores"/stacks/*/binary.xz; do
    name=$(dirname "${binary#"$cores"/}")
    xz -dc "$binary" >"corpus/file/${name//\//-}"
done
work=$(mktemp)
trap 'rm -f "$work" "$work".*' EXIT
le16() { printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8)))"; }
for name in cases-O2-store deep-O2-lambda; do
    xz -dc "$cores/stacks/$name/binary.xz" >"$work"
    for section in info abbrev line str line_str ranges rnglists aranges addr; do
        : >"$work.section"
        objcopy -O binary --only-section=.debug_$section --set-section-flags .debug_$section=alloc "$work" "$work.section" 2>/dev/null || true
        size=$(stat -c %s "$work.section")
        ((size < 65536)) || size=65535
        le16 "$size"
        head -c "$size" "$work.section"
    done >"corpus/dwarf/$name"
done
for target in unwind tcmalloc ptmalloc jemalloc; do
    head -c 256 "corpus/corefile/2.10-healthy-stats" >"corpus/$target/seed"
done
