/* What the programs for jemalloc share, and no others: its own interface, which has a prefix in some builds (PREFIXED), and its
 * statistics. CONF is what MALLOC_CONF would be. */
#ifndef JEMALLOC_H
#define JEMALLOC_H

#include <stdint.h>
#include <stdlib.h>

#ifdef PREFIXED
#define malloc je_malloc
#define realloc je_realloc
#define free je_free
#define mallctl je_mallctl
#define mallctlbymib je_mallctlbymib
#define mallctlnametomib je_mallctlnametomib
#define mallocx je_mallocx
#define dallocx je_dallocx
#define sdallocx je_sdallocx
#define malloc_conf je_malloc_conf
#endif

void *malloc(size_t);
void *realloc(void *, size_t);
void free(void *);
int mallctl(const char *name, void *old, size_t *old_length, void *new, size_t new_length);
int mallctlbymib(const size_t *mib, size_t length, void *old, size_t *old_length, void *new, size_t new_length);
int mallctlnametomib(const char *name, size_t *mib, size_t *length);
void *mallocx(size_t size, int flags);
void dallocx(void *, int flags);
void sdallocx(void *, size_t size, int flags);

#ifdef CONF
const char *malloc_conf = CONF;
#endif

/* Flags of mallocx and dallocx. */
#define IN_ARENA(index) (((int)(index) + 1) << 20)
#define NO_TCACHE ((0 + 1) << 8) /* tcache index -1, stored plus 2 */
#define ALL_ARENAS 4096

#include "common.h"

static void (*volatile do_sdallocx)(void *, size_t, int) UNUSED = sdallocx;

/* Gives back to the slabs whatever this thread has cached; without a cache there is nothing to do. */
static UNUSED void flush(void)
{
    char enabled = 0;
    size_t length = sizeof enabled;
    need(mallctl("thread.tcache.enabled", &enabled, &length, NULL, 0) == 0, "no telling whether there is a cache");
    need(!enabled || mallctl("thread.tcache.flush", NULL, NULL, NULL, 0) == 0, "no flush");
}

static UNUSED size_t number_of(const char *name)
{
    size_t value = 0, length = sizeof value;
    need(mallctl(name, &value, &length, NULL, 0) == 0, name);
    return value;
}

/* stats.arenas.<index>.<what>, its second number being `bin` if there are two; 0 for what this release does not have. */
static UNUSED uint64_t arena_number(size_t index, const char *what, size_t bin)
{
    char name[80] = "stats.arenas.0.";
    size_t mib[7], count = 7, value = 0, length = sizeof value;
    strcat(name, what);
    need(mallctlnametomib(name, mib, &count) == 0, name);
    mib[2] = index;
    if (count > 5)
        mib[4] = bin;
    need(mallctlbymib(mib, count, &value, &length, NULL, 0) == 0, name);
    return value;
}

/* Statistics are a snapshot, taken here. */
static UNUSED void refresh(void)
{
    uint64_t epoch = 1;
    size_t length = sizeof epoch;
    need(mallctl("epoch", &epoch, &length, &epoch, length) == 0, "no epoch");
}

static UNUSED int has_stats(void)
{
    char stats = 0;
    size_t length = sizeof stats;
    need(mallctl("config.stats", &stats, &length, NULL, 0) == 0, "config.stats");
    return stats;
}


static UNUSED int is_version(const char *wanted)
{
    const char *version = NULL;
    size_t length = sizeof version;
    need(mallctl("version", &version, &length, NULL, 0) == 0, "no version");
    return strncmp(version, wanted, strlen(wanted)) == 0;
}

static UNUSED void put_arena(struct line *line, size_t index)
{
    const uint64_t page = 4096;
    put_count(line, "allocated", arena_number(index, "small.allocated", 0) + arena_number(index, "large.allocated", 0));
    if (!is_version("5.2")) /* which leaves large blocks out of this */
        put_count(line, "cached", arena_number(index, "tcache_bytes", 0));
    put_count(line, "dirty", arena_number(index, "pdirty", 0) * page);
    put_count(line, "muzzy", arena_number(index, "pmuzzy", 0) * page);
    put_count(line, "retained", arena_number(index, "retained", 0));
}

/* STAT and a line for each arena that is there; to be called when nothing is allocated or freed any more. */
static UNUSED void say_allocated_bytes(void)
{
    struct line line = {{0}, 0};
    if (!has_stats())
        return;
    refresh();
    put_text(&line, "STAT");
    put_arena(&line, ALL_ARENAS);
    put_end(&line);
    unsigned arenas = 0;
    size_t length = sizeof arenas;
    need(mallctl("arenas.narenas", &arenas, &length, NULL, 0) == 0, "arenas.narenas");
    for (unsigned index = 0; index < arenas; index++) {
        char initialized = 0;
        size_t mib[3], count = 3;
        length = sizeof initialized;
        need(mallctlnametomib("arena.0.initialized", mib, &count) == 0, "arena.0.initialized");
        mib[1] = index;
        if (mallctlbymib(mib, count, &initialized, &length, NULL, 0) != 0 || !initialized)
            continue;
        put_text(&line, "ARENA");
        put_count(&line, "index", index);
        put_arena(&line, index);
        put_end(&line);
    }
}

#endif
