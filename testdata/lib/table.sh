# shellcheck shell=bash
# Which program is built how for which release. To be sourced.

declare -A RECIPE
TABLE=()

# recipe NAME SOURCE [FLAGS...]
recipe() {
    RECIPE[$1]="${*:2}"
}

# cell RELEASE RECIPE OPTIMISATION [NAME [HOW]]: one fixture. NAME is the recipe's with -O0 or -O2 if not given.
cell() {
    local release=$1 recipe=$2 optimisation=$3 name=${4:-$2-$3} how=${5:-plain} source flags
    [ -n "${RECIPE[$recipe]:-}" ] || fail "no such recipe: $recipe"
    read -r source flags <<<"${RECIPE[$recipe]}"
    TABLE+=("$release"$'\t'"$name"$'\t'"$source"$'\t'"-$optimisation${flags:+ $flags}"$'\t'"$how")
}

storms() {
    local release=$1 count=$2 number name
    for ((number = 1; number <= count; number++)); do
        printf -v name 'healthy-threads-%02d' "$number"
        cell "$release" healthy-threads O2 "$name" "storm=$number"
    done
}

recipe double-free double-free.c
recipe double-free-pristine double-free.c -DPRISTINE
recipe double-free-wrapped double-free.c -DWRAPPED
recipe misaligned-free misaligned-free.c
recipe misaligned-free-48 misaligned-free.c -DSIZE=48 -DINSIDE=16
recipe overrun-nul overrun.c
recipe overrun-nul-208 overrun.c -DSIZE=208 -DCOUNT=10
recipe overrun-nul-cache overrun.c -DCOUNT=4 -DEARLY
recipe overrun-text overrun.c -DTEXT
recipe overrun-one overrun.c -DONE
recipe overrun-early overrun.c -DEARLY
recipe cross-thread cross-thread.c
recipe cross-thread-main cross-thread.c -DMAIN_FIRST
recipe write-after-free write-after-free.c
recipe write-after-free-text write-after-free.c -DPATTERN_TEXT
recipe write-after-free-pointer write-after-free.c -DPATTERN_POINTER
recipe write-after-free-float write-after-free.c -DPATTERN_FLOAT
recipe write-after-free-zero write-after-free.c -DPATTERN_ZERO
recipe healthy-stats healthy-stats.c
recipe healthy-threads healthy-threads.c

damaged=(double-free double-free-pristine double-free-wrapped misaligned-free misaligned-free-48 overrun-nul overrun-nul-208
    overrun-nul-cache overrun-text overrun-one overrun-early cross-thread cross-thread-main write-after-free
    write-after-free-text write-after-free-pointer write-after-free-float write-after-free-zero)

make_table() {
    local recipe
    for recipe in "${damaged[@]}"; do
        cell 2.10 "$recipe" O0
        cell 2.10 "$recipe" O2
    done
    cell 2.10 double-free O2 double-free-stripped strip
    cell 2.10 healthy-stats O2 healthy-stats
    storms 2.10 "${HEAPCHECK_HEALTHY_CORES:-20}"
}
