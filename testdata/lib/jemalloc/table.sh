# shellcheck shell=bash
# The fixtures of jemalloc. To be sourced by ../table.sh.

# conf OPTIONS: the flag that sets jemalloc up so.
conf() {
    printf -- '-DCONF="%s"' "$1"
}
sampling="prof:true,prof_active:true,lg_prof_sample:0"

recipe double-free jemalloc/double-free.c
recipe double-free-spaced jemalloc/double-free.c -DSPACED
recipe double-free-threads jemalloc/double-free.c -DTHREADS
recipe double-free-arenas jemalloc/double-free.c -DARENA
recipe double-free-slab jemalloc/double-free.c -DSLAB
recipe double-free-returned jemalloc/double-free.c -DRETURNED
recipe double-free-no-cache jemalloc/double-free.c -DRETURNED "$(conf tcache:false)"
recipe double-free-large jemalloc/double-free.c -DSIZE=20480
recipe double-free-extent jemalloc/double-free.c -DSIZE=20480 -DEXTENT
recipe double-free-huge jemalloc/double-free-huge.c
recipe misaligned-free jemalloc/bad-free.c -DINNER=8
recipe misaligned-free-320 jemalloc/bad-free.c -DSIZE=320 -DINNER=64
recipe misaligned-free-large jemalloc/bad-free.c -DSIZE=20480 -DINNER=128
recipe wrong-size jemalloc/bad-free.c -DWRONG=640
recipe wrong-size-large jemalloc/bad-free.c -DSIZE=20480 -DWRONG=64
recipe foreign-global jemalloc/bad-free.c -DGLOBAL
recipe foreign-stack jemalloc/bad-free.c -DSTACK
recipe foreign-mapped jemalloc/bad-free.c -DMAPPED
recipe bitmap-smashed jemalloc/metadata.c -DBITMAP
recipe count-smashed jemalloc/metadata.c -DCOUNT
recipe start-smashed jemalloc/metadata.c -DSTART
recipe length-smashed jemalloc/metadata.c -DLENGTH
recipe entry-smashed jemalloc/metadata.c -DENTRY
recipe write-after-free jemalloc/junk.c -DFREED "$(conf junk:true)"
recipe write-after-free-slab jemalloc/junk.c -DSLAB "$(conf junk:true)"
recipe overrun-junk jemalloc/junk.c -DOVERRUN "$(conf junk:true)"
recipe write-after-free-full jemalloc/junk.c -DFREED -DFULL
recipe overrun-tail jemalloc/junk.c -DTAIL "$(conf "junk:true,$sampling")"
recipe overrun-redzone jemalloc/junk.c -DREDZONE "$(conf "$sampling")"
recipe wild-free jemalloc/wild-free.c -DSTACK
recipe wild-free-number jemalloc/wild-free.c -DNUMBER
recipe wild-free-text jemalloc/wild-free.c -DTEXT
recipe wild-free-realloc jemalloc/wild-free.c -DREALLOC
recipe wild-free-page jemalloc/wild-free.c -DPAGE
recipe sampled jemalloc/sampled.c "$(conf "$sampling")"
for what in member walk left; do
    recipe dangling-$what dangling.c -include jemalloc/jemalloc.h "-D${what^^}" "$(conf junk:true)"
done
recipe dangling-intact dangling.c -include jemalloc/jemalloc.h -DLEFT
recipe leaks leaks.c
recipe types types.cc
recipe leaks-no-pie leaks.c -no-pie
recipe usage usage.c
recipe healthy-dangling-nothing dangling.c -include jemalloc/jemalloc.h -DNOTHING "$(conf junk:true)"
recipe healthy-threads healthy-threads.c -include jemalloc/jemalloc.h
recipe healthy-stats jemalloc/healthy-stats.c
recipe healthy-gcore jemalloc/healthy-stats.c -DGCORE
for variant in large never purged exited waiting arenas tcaches aligned filled moved enomem handler fork fork-storm; do
    name=${variant^^}
    recipe "healthy-$variant" jemalloc/healthy.c "-D${name//-/_}"
done
recipe healthy-prof jemalloc/healthy.c -DWAITING -DSAMPLING "$(conf prof:true,lg_prof_sample:12)"
recipe page64k other.c '-DOTHER="jemalloc\040because=page"'
recipe healthy-altstack jemalloc/healthy.c -DHANDLER -DALTSTACK
# Options by which jemalloc works otherwise: name, options.
jemalloc_options=(
    "one-arena narenas:1"
    "no-cache tcache:false"
    "background background_thread:true"
    "no-decay dirty_decay_ms:0"
    "muzzy dirty_decay_ms:0,muzzy_decay_ms:-1"
    "no-retain retain:false"
    "thp thp:always,metadata_thp:always"
    "percpu percpu_arena:percpu"
    "brk dss:primary"
    "junk junk:true"
    "hpa hpa:true"
)
for variant in "${jemalloc_options[@]}"; do
    recipe "healthy-${variant%% *}" jemalloc/healthy-stats.c "$(conf "${variant#* }")"
    recipe "healthy-${variant%% *}-waiting" jemalloc/healthy.c -DWAITING "$(conf "${variant#* }")"
done
for variant in double-free double-free-threads wrong-layout healthy-stats healthy-threads; do
    recipe "rust-$variant" jemalloc/rust/main.rs
done

jemalloc_main=(double-free double-free-threads double-free-slab double-free-returned misaligned-free wrong-size)
jemalloc_damaged=("${jemalloc_main[@]}" double-free-spaced double-free-arenas double-free-no-cache double-free-large double-free-extent
    double-free-huge misaligned-free-320 misaligned-free-large wrong-size-large foreign-global foreign-stack foreign-mapped
    bitmap-smashed count-smashed start-smashed length-smashed entry-smashed write-after-free write-after-free-slab overrun-junk
    wild-free wild-free-page wild-free-number wild-free-text wild-free-realloc)
jemalloc_healthy=(healthy-stats healthy-large healthy-never healthy-purged healthy-exited healthy-waiting healthy-arenas
    healthy-tcaches healthy-aligned healthy-enomem healthy-fork)
not_applicable jemalloc-5.2.1 wrong-size "sdallocx looks the class up, so the block gets where it belongs"

# Where filling is told by the options alone: in a program that writes all its blocks to their ends, without what new
# blocks are filled with, and where realloc moves blocks that are then not filled.
jemalloc_junk_cells() {
    local junk
    for junk in true free; do
        cell "$1" write-after-free-full O2 "write-after-free-junk-$junk" "env=MALLOC_CONF=junk:$junk"
        cell "$1" healthy-moved O2 "healthy-moved-junk-$junk" "env=MALLOC_CONF=junk:$junk"
    done
}

jemalloc_table() {
    local release number recipe variant
    for release in jemalloc-5.2.1 jemalloc-5.3.0 jemalloc-5.3.0-trixie jemalloc-5.3.1; do
        jemalloc_junk_cells $release
    done
    cells jemalloc-5.3.0 O0 "${jemalloc_damaged[@]}" overrun-tail
    cells jemalloc-5.3.0 O2 "${jemalloc_damaged[@]}" overrun-tail
    healthy_cells jemalloc-5.3.0 "${jemalloc_healthy[@]}" sampled
    cell jemalloc-5.3.0 double-free O2 double-free-stripped strip
    cell jemalloc-5.3.0 healthy-gcore O2 healthy-gcore gcore
    for variant in "${jemalloc_options[@]}"; do
        healthy_cells jemalloc-5.3.0 "healthy-${variant%% *}" "healthy-${variant%% *}-waiting"
    done
    for number in 1 2 3; do
        for recipe in healthy-fork-storm healthy-handler healthy-altstack; do
            cell jemalloc-5.3.0 $recipe O2 "$recipe-0$number"
        done
    done
    healthy_cells jemalloc-5.3.0 healthy-prof healthy-filled healthy-dangling-nothing
    cells jemalloc-5.3.0 O0 leaks leaks-no-pie dangling-member
    cells jemalloc-5.3.0 O2 leaks leaks-no-pie types usage
    cells jemalloc-5.3.0 O2 dangling-{member,walk,left,intact}
    storms jemalloc-5.3.0 "${HEAPCHECK_HEALTHY_CORES:-20}"

    for release in jemalloc-5.2.1 jemalloc-5.3.0-trixie jemalloc-5.3.1; do
        cells $release O2 "${jemalloc_damaged[@]}"
        healthy_cells $release "${jemalloc_healthy[@]}" sampled healthy-one-arena healthy-no-cache healthy-background healthy-percpu
        cell $release healthy-fork-storm O2 healthy-fork-storm-01
        storms $release 8
    done
    for release in jemalloc-5.3.0-debug jemalloc-5.3.0-symtab jemalloc-5.3.0-nostats jemalloc-5.3.0-redis jemalloc-5.3.0-redis-stripped; do
        cells $release O2 "${jemalloc_main[@]}" foreign-global bitmap-smashed overrun-junk
        healthy_cells $release healthy-stats healthy-large healthy-waiting
        storms $release 3
    done
    cells jemalloc-5.3.0-safety O2 "${jemalloc_main[@]}" overrun-tail overrun-redzone
    healthy_cells jemalloc-5.3.0-safety healthy-stats sampled
    cell jemalloc-5.3.0-page64k page64k O2 page64k
    for release in jemalloc-5.3.0-rust jemalloc-5.3.0-rust-stripped jemalloc-5.3.1-rust jemalloc-5.3.1-rust-stripped; do
        for recipe in double-free double-free-threads wrong-layout healthy-stats; do
            cell $release rust-$recipe O2 $recipe argument=$recipe
        done
        for number in 1 2 3; do
            cell $release rust-healthy-threads O2 "healthy-threads-0$number" "argument=healthy-threads,storm=$number"
        done
    done
}
