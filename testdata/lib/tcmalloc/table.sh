# shellcheck shell=bash
# The fixtures of gperftools' tcmalloc, and the allocators that are not read. To be sourced by ../table.sh.

recipe double-free tcmalloc/double-free.c
recipe double-free-pristine tcmalloc/double-free.c -DPRISTINE
recipe double-free-wrapped tcmalloc/double-free.c -DWRAPPED
recipe double-free-used tcmalloc/double-free.c -DWRAPPED -DUSED
recipe misaligned-free tcmalloc/misaligned-free.c
recipe misaligned-free-48 tcmalloc/misaligned-free.c -DSIZE=48 -DINSIDE=16
recipe overrun-nul tcmalloc/overrun.c
recipe overrun-nul-208 tcmalloc/overrun.c -DSIZE=208 -DCOUNT=10
recipe overrun-nul-cache tcmalloc/overrun.c -DCOUNT=4 -DEARLY
recipe overrun-text tcmalloc/overrun.c -DTEXT
recipe overrun-one tcmalloc/overrun.c -DONE
recipe overrun-early tcmalloc/overrun.c -DEARLY
recipe overrun-zeros tcmalloc/overrun.c -DEARLY -DZEROS
recipe overrun-cut tcmalloc/overrun-cut.c
recipe overrun-followed tcmalloc/overrun-followed.c
recipe led-on tcmalloc/led-on.c
recipe cross-thread tcmalloc/cross-thread.c
recipe cross-thread-main tcmalloc/cross-thread.c -DMAIN_FIRST
recipe write-after-free tcmalloc/write-after-free.c
recipe write-after-free-text tcmalloc/write-after-free.c -DPATTERN_TEXT
recipe write-after-free-pointer tcmalloc/write-after-free.c -DPATTERN_POINTER
recipe write-after-free-float tcmalloc/write-after-free.c -DPATTERN_FLOAT
recipe write-after-free-zero tcmalloc/write-after-free.c -DPATTERN_ZERO
recipe write-after-free-returned tcmalloc/write-after-free.c -DPATTERN_WHOLE
recipe overrun-text-long tcmalloc/overrun.c -DTEXT '-DNAME="Herr\040Doktor\040Anton\040Balthasar\040Maria\040Freiherr\040von\040und\040zu\040Hohenstein"'
recipe double-free-cycle tcmalloc/double-free-lists.c -DCYCLE
recipe cyclic-list tcmalloc/double-free-lists.c -DCYCLE -DTAKEN
recipe double-free-crossing tcmalloc/double-free-lists.c -DCROSSING
recipe double-free-central tcmalloc/double-free-lists.c -DCENTRAL
recipe double-free-cache-and-central tcmalloc/double-free-lists.c -DCACHE_AND_CENTRAL
recipe double-free-span-returned tcmalloc/double-free-returned.c
recipe double-free-large tcmalloc/double-free-large.c
recipe double-free-large-early tcmalloc/double-free-large.c -DEARLY
recipe double-free-large-joined tcmalloc/large-freed-again.c -DJOINED
recipe double-free-large-set tcmalloc/large-freed-again.c
recipe followed-link tcmalloc/followed-link.c
recipe followed-link-text tcmalloc/followed-link.c -DTEXT
recipe misaligned-free-loop tcmalloc/loop-misaligned-free.c
recipe overrun-array tcmalloc/array-overrun.c
recipe double-free-gcore tcmalloc/double-free.c -DPRISTINE -DGCORE
recipe wrong-size-delete tcmalloc/wrong-size-delete.c
recipe length-smashed tcmalloc/metadata.c -DLENGTH
recipe span-smashed tcmalloc/metadata.c -DSPAN
recipe link-bases tcmalloc/link-bases.c
recipe two-heaps tcmalloc/two-heaps.c
recipe healthy-stats tcmalloc/healthy-stats.c
recipe healthy-threads healthy-threads.c
recipe healthy-gcore tcmalloc/healthy-stats.c -DGCORE
recipe healthy-large tcmalloc/healthy.c -DLARGE
recipe healthy-never tcmalloc/healthy.c -DNEVER
recipe healthy-released tcmalloc/healthy.c -DRELEASED
recipe healthy-exited-threads tcmalloc/healthy.c -DEXITED
recipe healthy-enomem tcmalloc/healthy.c -DENOMEM
recipe healthy-fork-child tcmalloc/healthy.c -DFORK
recipe healthy-fork-storm tcmalloc/healthy.c -DFORK_STORM
recipe healthy-sbrk tcmalloc/healthy.c -DSBRK
recipe healthy-handler tcmalloc/healthy.c -DHANDLER
recipe healthy-altstack tcmalloc/healthy.c -DHANDLER -DALTSTACK
for what in stack argument number realloc twice inner foreign; do
    recipe refused-$what tcmalloc/refused.c "-D${what^^}"
    recipe refused-$what-traps tcmalloc/refused.c "-D${what^^} -DTRAPS"
done
for what in stack static written; do
    recipe sized-delete-$what tcmalloc/sized-delete.c "-D${what^^}"
done
for what in filled smaller; do
    recipe inner-pointers-$what tcmalloc/inner-pointers.c "-D${what^^}"
done
recipe healthy-inner-pointers tcmalloc/inner-pointers.c -DPROPER
recipe sized-delete-later tcmalloc/later-death.c -DVARIABLE
recipe overrun-zeros-rest tcmalloc/later-death.c -DZEROS
recipe sampled tcmalloc/sampled.c
recipe leaks leaks.c
recipe types types.cc
recipe leaks-no-pie leaks.c -no-pie
recipe usage usage.c
recipe dangling-call dangling.c -DCALL
recipe dangling-left dangling.c -DLEFT
recipe healthy-dangling-nothing dangling.c -DNOTHING
recipe healthy-dangling-earlier dangling.c -DEARLIER
recipe gperftools-debug other.c '-DOTHER="gperftools-debug"'
recipe no-tcmalloc other.c '-DOTHER="none"'

# The four errors that every release must show, and what else each release gets.
main_errors=(double-free misaligned-free overrun-nul cross-thread)
every_release=(double-free-central double-free-cycle double-free-cache-and-central double-free-span-returned misaligned-free-48
    overrun-text write-after-free wrong-size-delete)
following=(followed-link misaligned-free-loop overrun-array)
damaged=("${main_errors[@]}" "${every_release[@]}" "${following[@]}" double-free-pristine double-free-wrapped double-free-crossing cyclic-list
    double-free-large double-free-large-early overrun-nul-208 overrun-nul-cache overrun-text-long overrun-one overrun-early
    cross-thread-main write-after-free-text write-after-free-pointer write-after-free-float write-after-free-zero
    length-smashed span-smashed double-free-large-joined double-free-large-set followed-link-text)
healthy=(healthy-stats healthy-large healthy-never healthy-released healthy-exited-threads healthy-enomem healthy-fork-child
    healthy-sbrk)

for release in 2.16 2.18.1; do
    not_applicable $release double-free-large "the second free notices and aborts, leaving no damage"
    not_applicable $release double-free-large-early "the second free notices and aborts, leaving no damage"
done

tcmalloc_table() {
    local release number recipe
    # Debian's own build is what is met in practice: all programs, both ways.
    cells 2.10 O0 "${damaged[@]}"
    cells 2.10 O2 "${damaged[@]}"
    healthy_cells 2.10 "${healthy[@]}"
    cell 2.10 double-free O2 double-free-stripped strip
    cell 2.10 double-free-gcore O2 double-free-gcore gcore
    cell 2.10 healthy-gcore O2 healthy-gcore gcore
    cell 2.10 two-heaps O2 two-heaps plugin
    cell 2.10 link-bases O0 link-bases-O0 module
    cell 2.10 link-bases O2 link-bases-O2 module
    for number in 1 2 3; do
        cell 2.10 healthy-fork-storm O2 "healthy-fork-storm-0$number"
        cell 2.10 healthy-handler O2 "healthy-handler-0$number"
        cell 2.10 healthy-altstack O2 "healthy-altstack-0$number"
        cell 2.18.1 healthy-altstack O2 "healthy-altstack-0$number"
    done
    storms 2.10 "${HEAPCHECK_HEALTHY_CORES:-20}"

    cells 2.10 O0 leaks leaks-no-pie
    cells 2.10 O2 leaks leaks-no-pie types usage
    cells 2.18.1 O2 usage overrun-zeros overrun-cut write-after-free-returned
    cells 2.10 O2 overrun-zeros overrun-cut overrun-followed write-after-free-returned double-free-used led-on
    for release in 2.10 2.18.1; do
        cells $release O0 dangling-call
        cells $release O2 dangling-call dangling-left
        healthy_cells $release healthy-dangling-nothing healthy-dangling-earlier
    done
    for release in 2.8.1 2.16 2.18.1; do
        cells $release O2 "${main_errors[@]}" "${every_release[@]}" "${following[@]}" double-free-large
        cells $release O0 "${main_errors[@]}"
        healthy_cells $release "${healthy[@]}"
        cell $release healthy-fork-storm O2 healthy-fork-storm-01
        storms $release 5
    done

    # What releases from 2.16 on refuse by an instruction that is none, and what only they refuse.
    cells 2.8.1 O2 refused-{stack,realloc}
    cells 2.10 O0 refused-stack
    cells 2.10 O2 refused-{stack,argument,number,realloc,foreign}
    for release in 2.16 2.18.1; do
        cells $release O2 refused-{stack,realloc,twice,inner}-traps
    done

    for release in 2.10 2.18.1; do
        cells $release O2 sized-delete-{stack,static,written}
    done
    cells 2.10 O0 sized-delete-stack sized-delete-later
    cells 2.10 O2 inner-pointers-{filled,smaller} sized-delete-later overrun-zeros-rest
    healthy_cells 2.10 healthy-inner-pointers

    for release in 2.10-debug 2.10-symtab 2.10-debugfile 2.10-static 2.10-static-stripped; do
        cells $release O2 "${main_errors[@]}" "${every_release[@]}"
        healthy_cells $release healthy-stats healthy-large
    done
    for recipe in double-free cross-thread healthy-stats; do
        cell 2.10-static "$recipe" O2 "$recipe-whole" static=-static
        cell 2.10-static "$recipe" O2 "$recipe-pie" static=-static-pie
    done
    for release in 2.10-dwarf4 2.10-compressed 2.10-dwz 2.10-debuglink; do
        cells $release O0 "${main_errors[@]}"
        healthy_cells $release healthy-stats
    done

    cell 2.10-full sampled O2 sampled env=TCMALLOC_SAMPLE_PARAMETER=65536
    cell 2.18.1-full sampled O2 sampled env=TCMALLOC_SAMPLE_PARAMETER=65536
    cells 2.10-full O2 "${main_errors[@]}"
    cells 2.18.1-full O2 "${main_errors[@]}"

    cell other gperftools-debug O2 gperftools-debug
    cell other no-tcmalloc O2 no-tcmalloc
}
