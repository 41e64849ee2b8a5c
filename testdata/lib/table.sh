# shellcheck shell=bash
# Which program is built how for which release: each allocator's own table.sh says it, with these words. To be sourced.

declare -A RECIPE
TABLE=()

# recipe NAME SOURCE [FLAGS...]: of the allocator whose table.sh is being read.
recipe() {
    RECIPE["$allocator $1"]="${*:2}"
}

# cell RELEASE RECIPE OPTIMISATION [NAME [HOW]]: one fixture. NAME is the recipe's with -O0 or -O2 if not given.
cell() {
    local release=$1 recipe=$2 optimisation=$3 name=${4:-$2-$3} how=${5:-plain} source flags
    local key
    if is_missing "$release"; then return 0; fi
    key="$(allocator_of "$release") $recipe"
    [ -n "${RECIPE[$key]:-}" ] || fail "no such recipe: $key"
    read -r source flags <<<"${RECIPE[$key]}"
    TABLE+=("$release"$'\t'"$name"$'\t'"$source"$'\t'"-$optimisation${flags:+ $flags}"$'\t'"$how")
}

storms() {
    local release=$1 count=$2 number name
    for ((number = 1; number <= count; number++)); do
        printf -v name 'healthy-threads-%02d' "$number"
        cell "$release" healthy-threads O2 "$name" "storm=$number"
    done
}

# Cells that cannot be, with the reason; written to fixtures/not-applicable. A later part of the table leaves them out.
declare -A NOT_APPLICABLE
not_applicable() {
    NOT_APPLICABLE["$1 $2"]=$3
}

cells() {
    local release=$1 optimisation=$2 recipe
    for recipe in "${@:3}"; do
        [ -n "${NOT_APPLICABLE["$release $recipe"]:-}" ] || cell "$release" "$recipe" "$optimisation"
    done
}

healthy_cells() {
    local recipe
    for recipe in "${@:2}"; do
        cell "$1" "$recipe" O2 "$recipe"
    done
}

for allocator in "${ALLOCATORS[@]}"; do
    # shellcheck source=/dev/null
    . "$TESTDATA/lib/$allocator/table.sh"
done

make_table() {
    local allocator
    for allocator in "${ALLOCATORS[@]}"; do
        "${allocator}_table"
    done
}
