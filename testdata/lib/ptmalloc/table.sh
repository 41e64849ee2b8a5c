# shellcheck shell=bash
# The fixtures of glibc's allocator. To be sourced by ../table.sh.

recipe double-free-self ptmalloc/double-free.c -DSELF
recipe double-free-cycle ptmalloc/double-free.c -DCYCLE
recipe cyclic-list ptmalloc/double-free.c -DAGAIN
recipe double-free-fastbin ptmalloc/double-free.c -DFASTBIN
recipe double-free-cache-and-fastbin ptmalloc/double-free.c -DBOTH
recipe double-free-cache-and-bin ptmalloc/double-free.c -DBINNED
recipe cross-thread ptmalloc/cross-thread.c
recipe cross-thread-taken ptmalloc/cross-thread.c -DTAKEN
recipe inner-free ptmalloc/invalid-free.c -DINNER
recipe stack-free ptmalloc/invalid-free.c -DSTACK
recipe global-free ptmalloc/invalid-free.c -DGLOBAL
recipe overrun-nul ptmalloc/overrun.c -DNUL
recipe overrun-nul-size ptmalloc/overrun.c -DNUL_SIZE
recipe overrun-one ptmalloc/overrun.c -DONE
recipe overrun-text ptmalloc/overrun.c -DTEXT
recipe overrun-text-cached ptmalloc/overrun.c -DTEXT -DCACHED_B
recipe overrun-text-binned ptmalloc/overrun.c -DTEXT -DBINNED_B
recipe overrun-nul-binned ptmalloc/overrun.c -DNUL -DBINNED_B
recipe overrun-text-top ptmalloc/overrun.c -DTEXT -DTOP_B
recipe overrun-force-top ptmalloc/overrun.c -DFORCE -DTOP_B
recipe overrun-wrong-size ptmalloc/overrun.c -DTWO
recipe overrun-overlap ptmalloc/overrun.c -DTWO -DFREED
recipe underrun ptmalloc/underrun.c
recipe underrun-half ptmalloc/underrun.c -DHALF
recipe underrun-through ptmalloc/underrun.c -DTHROUGH
recipe underrun-mmapped ptmalloc/underrun.c -DMMAPPED
recipe underrun-numbers ptmalloc/underrun-numbers.c
recipe underrun-numbers-further ptmalloc/underrun-numbers.c -DFURTHER
recipe overrun-records ptmalloc/records.c
recipe underrun-elements ptmalloc/records.c -DIN_FRONT
recipe count-smashed ptmalloc/metadata.c -DCOUNT
recipe entry-smashed ptmalloc/metadata.c -DENTRY
recipe bin-smashed ptmalloc/metadata.c -DBIN
recipe thread-arena-smashed ptmalloc/metadata.c -DTHREAD
for where in cache fastbin bin large; do
    for what in text zero pointer float second whole; do
        recipe write-after-free-$where-$what ptmalloc/write-after-free.c "-D${where^^}" "-D${what^^}"
    done
done
recipe write-after-free-large-third ptmalloc/write-after-free.c -DLARGE -DTHIRD
for what in tcache2 fasttop prev top_freed unaligned small_size munmap realloc next_size next_size_fast consolidate double_linked \
    unsorted smallbin tcache_link top; do
    recipe detected-${what//_/-} ptmalloc/detected.c "-D${what^^}"
done
for what in alloca wide literal number text realloc cookie base merged huge handler; do
    recipe refused-$what ptmalloc/refused.c "-D${what^^}"
done
for what in either nulls; do
    recipe refused-$what ptmalloc/two-ways.c "-D${what^^}"
done
recipe healthy-either ptmalloc/two-ways.c -DTAKEN
recipe later-wild ptmalloc/later.c -DWILD
recipe later-wild-raised ptmalloc/later.c -DWILD -DRAISED=0
recipe later-wild-raised-at-once ptmalloc/later.c -DWILD -DRAISED=SA_NODEFER
recipe later-wild-raised-informed ptmalloc/later.c '-DWILD -DRAISED=SA_NODEFER|SA_SIGINFO'
recipe later-returned ptmalloc/later.c -DRETURNED
for what in stats large aligned never trimmed exited arenas cached_lists enomem sbrk no_brk handler fork fork_storm; do
    recipe healthy-${what//_/-} ptmalloc/healthy.c "-D${what^^}"
done
recipe healthy-altstack ptmalloc/healthy.c -DHANDLER -DALTSTACK
recipe healthy-without-cache ptmalloc/healthy.c -DSTATS -DWITHOUT_CACHE
recipe perturbed ptmalloc/contents.c -DPERTURBED
recipe checked ptmalloc/contents.c -DCHECKED
recipe large-freed-twice ptmalloc/large.c -DTWICE
recipe top-smashed ptmalloc/large.c -DTOP
for what in followed told old_top zeros cleared pattern several settings through; do
    recipe story-${what//_/-} ptmalloc/stories.c "-D${what^^}"
done
recipe healthy-empty ptmalloc/stories.c -DEMPTY
recipe healthy-filled ptmalloc/stories.c -DFILLED
recipe healthy-killed ptmalloc/killed.c
for what in member link call walk left again; do
    recipe dangling-$what dangling.c "-D${what^^}"
done
for what in nothing earlier given_up; do
    recipe healthy-dangling-${what//_/-} dangling.c "-D${what^^}"
done
recipe holders-c holders.c
recipe holders-cxx holders.cc
recipe leaks leaks.c
recipe leaks-no-pie leaks.c -no-pie
recipe usage usage.c
recipe types types.cc
recipe types-no-pie types.cc -no-pie
for how in global member called empty sent zeroed returned wild own deep text table before freed; do
    recipe explains-$how ptmalloc/explains.c "-D${how^^}"
done
for what in pure unset unset_bin thread turns large; do
    recipe why-${what//_/-} why.cc "-D${what^^}"
done
for what in pure_made text guard called cut far literal; do
    recipe healthy-why-${what//_/-} why.cc "-D${what^^}"
done
recipe healthy-cxx ptmalloc/healthy-cxx.cc
recipe healthy-threads healthy-threads.c
# Where glibc's malloc serves nobody.
recipe other-mimalloc other.c '-DOTHER="mimalloc\040because=mimalloc"' -Wl,--no-as-needed -lmimalloc
recipe other-asan other.c '-DOTHER="asan\040because=AddressSanitizer"' -fsanitize=address
recipe other-musl other.c '-DOTHER="musl\040because=musl"' -specs=/usr/lib/x86_64-linux-musl/musl-gcc.specs
recipe other-private private.c '-DOTHER="private\040because=known"' -fno-builtin-malloc

ptmalloc_damaged=(double-free-self double-free-cycle cyclic-list double-free-fastbin double-free-cache-and-fastbin
    double-free-cache-and-bin cross-thread cross-thread-taken inner-free stack-free global-free overrun-nul overrun-nul-size
    overrun-one overrun-text overrun-text-cached overrun-text-binned overrun-nul-binned overrun-text-top overrun-force-top
    overrun-wrong-size overrun-overlap underrun underrun-half underrun-through underrun-mmapped count-smashed entry-smashed bin-smashed
    write-after-free-{cache,fastbin,bin,large}-text write-after-free-cache-{zero,pointer,float,second,whole}
    write-after-free-fastbin-pointer write-after-free-bin-{zero,pointer,second,whole} write-after-free-large-{second,third,whole}
    detected-{tcache2,fasttop,prev,top-freed,unaligned,small-size,munmap,realloc,next-size,next-size-fast,consolidate}
    detected-{double-linked,unsorted,smallbin,tcache-link,top} later-wild later-returned large-freed-twice top-smashed perturbed)
# In a second thread's arena as well.
ptmalloc_threaded=(double-free-cycle double-free-fastbin double-free-cache-and-bin cross-thread inner-free stack-free overrun-nul
    overrun-text overrun-text-cached overrun-text-binned overrun-force-top overrun-wrong-size underrun
    write-after-free-{cache,fastbin,bin,large}-text detected-{tcache2,fasttop,prev,next-size,top} thread-arena-smashed)
ptmalloc_healthy=(healthy-stats healthy-large healthy-aligned healthy-never healthy-trimmed healthy-exited healthy-arenas
    healthy-cached-lists healthy-enomem healthy-sbrk healthy-no-brk healthy-fork healthy-killed
    healthy-cxx)
# What programs linked with the archive show.
ptmalloc_static=(double-free-cycle cross-thread overrun-text write-after-free-cache-text detected-tcache2)

for recipe in double-free-fastbin double-free-cache-and-fastbin write-after-free-fastbin-{text,pointer} detected-fasttop \
    detected-next-size-fast; do
    not_applicable glibc-2.43 $recipe "this release has no fast bins"
done

for recipe in dangling-{member,link,walk}; do
    not_applicable glibc-2.31 $recipe "links are plain and the key is the address of the cache: what is read is memory that is there"
done
for release in glibc-2.36 glibc-2.41 glibc-2.43; do
    not_applicable $release later-returned "links are encoded: malloc notices, which is detected-tcache-link"
done

# threaded_cells RELEASE RECIPE...: the same in a second thread's arena.
threaded_cells() {
    local release=$1 recipe
    for recipe in "${@:2}"; do
        [ -n "${NOT_APPLICABLE["$release $recipe"]:-}" ] && continue
        RECIPE["ptmalloc $recipe-threaded"]="${RECIPE["ptmalloc $recipe"]} -DTHREADED"
        cell "$release" "$recipe-threaded" O2
    done
}

# tuned RELEASE RECIPE NAME TUNABLES: a healthy program whose malloc is tuned
tuned() {
    cell "$1" "$2" O2 "$3" "env=GLIBC_TUNABLES=glibc.malloc.${4//:/:glibc.malloc.}"
}

# What differs between releases in how they are tuned; a mechanism that releases share is shown on one or two.
ptmalloc_tuned() {
    local all=hugetlb=2:perturb=7:arena_max=2:tcache_count=3:top_pad=65536:mmap_max=3 release
    local checked=env=MALLOC_CHECK_=3,env=LD_PRELOAD=libc_malloc_debug.so.0
    for release in glibc-2.36 glibc-2.43; do
        tuned "$release" healthy-stats healthy-hugetlb-pages hugetlb=2
        tuned "$release" healthy-arenas healthy-hugetlb-arenas hugetlb=2
        tuned "$release" healthy-arenas healthy-tuned "$all"
        tuned "$release" healthy-sbrk healthy-tuned-sbrk "$all"
    done
    # The copy of its tunables is taken from brk, so the heap does not begin a page.
    tuned glibc-2.31 healthy-no-brk healthy-tuned-no-brk arena_max=1
    tuned glibc-2.41 healthy-arenas healthy-perturbed-arenas perturb=255
    tuned glibc-2.41 healthy-large healthy-small-mappings mmap_threshold=4096:top_pad=0:trim_threshold=1000
    tuned glibc-2.41 healthy-cached-lists healthy-fast mxfast=160:tcache_unsorted_limit=3
    # Caches of blocks with mappings of their own.
    tuned glibc-2.43 healthy-large healthy-huge-cache tcache_count=60000:tcache_max=4194304
    # The debugging library does nothing unless it is told to: libc's malloc does the work.
    for release in glibc-2.36 glibc-2.43; do
        cell "$release" healthy-arenas O2 healthy-malloc-debug env=LD_PRELOAD=libc_malloc_debug.so.0
    done
    cell glibc-2.36 overrun-text O2 overrun-text-malloc-debug env=LD_PRELOAD=libc_malloc_debug.so.0
    # Its arena is not made whole for fork's child.
    cell glibc-2.36 healthy-fork O2 healthy-malloc-check-fork "$checked"
    cell glibc-2.43 healthy-fork-storm O2 healthy-malloc-check-fork-storm "$checked"
}

# Damage of which the nearest story is the wrong one: what releases share is shown on two.
ptmalloc_stories() {
    local release
    for release in "${ptmalloc_releases[@]}"; do
        cells "$release" O2 story-followed story-told
    done
    cells glibc-2.31 O2 story-old-top story-zeros story-settings
    cells glibc-2.36 O2 story-zeros story-cleared story-pattern story-several story-through overrun-records underrun-elements
    cells glibc-2.36 O0 story-old-top story-pattern
    cells glibc-2.43 O2 story-old-top story-cleared story-settings
    healthy_cells glibc-2.36 healthy-empty healthy-filled
    # The debugging library hands calls on unless it is asked to check them: two copies of malloc, one heap.
    for release in glibc-2.36 glibc-2.41 glibc-2.43; do
        cell "$release" healthy-stats O2 healthy-debug-preload env=LD_PRELOAD=libc_malloc_debug.so.0
    done
}

ptmalloc_table() {
    local release number debug
    ptmalloc_tuned
    cells glibc-2.36 O2 other-mimalloc other-private
    cell glibc-2.36 other-asan O2 other-asan-O2 env=ASAN_OPTIONS=disable_coredump=0
    cell glibc-2.36 other-musl O2 other-musl-O2 static=-static,strip
    ptmalloc_stories
    cells glibc-2.36 O0 leaks leaks-no-pie holders-c holders-cxx
    cells glibc-2.36 O2 leaks leaks-no-pie holders-c holders-cxx
    cells glibc-2.43 O2 leaks usage
    cells glibc-2.36 O2 usage
    cells glibc-2.36 O0 types explains-{member,text,freed}
    cells glibc-2.36 O2 types-no-pie explains-{global,member,called,empty,sent,zeroed,returned,wild,own,deep,text,table,before,freed}
    cell glibc-2.36 types O2 types-stripped strip
    cells glibc-2.36 O0 why-{pure,unset,thread}
    cells glibc-2.36 O2 why-{pure,unset,unset-bin,thread,turns,large}
    cells glibc-2.43 O2 why-{unset,unset-bin}
    healthy_cells glibc-2.36 healthy-why-{pure-made,text,guard,called,cut,far,literal}
    for release in glibc-2.36 glibc-2.43; do
        cells "$release" O2 later-wild-raised later-wild-raised-at-once later-wild-raised-informed
    done
    cells glibc-2.36 O0 refused-{alloca,wide,text}
    cells glibc-2.36 O2 refused-{base,literal,realloc,either,nulls} underrun-numbers underrun-numbers-further
    cells glibc-2.36 O0 refused-either
    healthy_cells glibc-2.36 healthy-either
    for release in "${ptmalloc_releases[@]}"; do
        cells "$release" O2 "${ptmalloc_damaged[@]}"
        cells "$release" O0 dangling-member dangling-call
        cells "$release" O2 dangling-{member,link,call,walk,left}
        healthy_cells "$release" healthy-dangling-{nothing,earlier,given-up}
        [ "$release" = glibc-2.31 ] || cells "$release" O2 dangling-again
        cells "$release" O2 refused-{alloca,wide,number,text,cookie,merged,huge}
        # Of 2.43 the interrupted function is not always known to be malloc.
        [ "$release" = glibc-2.43 ] || cells "$release" O2 refused-handler
        threaded_cells "$release" "${ptmalloc_threaded[@]}"
        healthy_cells "$release" "${ptmalloc_healthy[@]}"
        cell "$release" healthy-without-cache O2 healthy-without-cache env=GLIBC_TUNABLES=glibc.malloc.tcache_count=0
        cell "$release" healthy-stats O2 healthy-big-cache env=GLIBC_TUNABLES=glibc.malloc.tcache_count=100:glibc.malloc.tcache_max=600
        cell "$release" healthy-stats O2 healthy-perturbed env=MALLOC_PERTURB_=165
        cell "$release" healthy-stats O2 healthy-hugetlb env=GLIBC_TUNABLES=glibc.malloc.hugetlb=1
        cell "$release" healthy-arenas O2 healthy-arena-max env=GLIBC_TUNABLES=glibc.malloc.arena_max=2
        case $release in
        glibc-2.31) debug=env=MALLOC_CHECK_=3 ;;
        *) debug=env=MALLOC_CHECK_=3,env=LD_PRELOAD=libc_malloc_debug.so.0 ;;
        esac
        cell "$release" healthy-exited O2 healthy-malloc-check "$debug"
        cell "$release" checked O2 checked-O2 "$debug"
        for number in 1 2; do
            cell "$release" healthy-handler O2 "healthy-handler-0$number"
            cell "$release" healthy-altstack O2 "healthy-altstack-0$number"
            cell "$release" healthy-fork-storm O2 "healthy-fork-storm-0$number"
        done
        storms "$release" 5
        cells "$release-static" O2 "${ptmalloc_static[@]}"
        cells "$release-static-stripped" O2 "${ptmalloc_static[@]}"
        cells "$release-static-pie" O2 double-free-cycle overrun-text
        cell "$release-static" healthy-stats O2 healthy-stats
        cell "$release-static-pie" healthy-stats O2 healthy-stats
        cell "$release-static-stripped" healthy-stats O2 healthy-stats
    done
}
