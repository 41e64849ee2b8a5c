/* What the programs for gperftools' allocator share, and no others. */
#ifndef TCMALLOC_H
#define TCMALLOC_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of gperftools' C interface (gperftools/malloc_extension_c.h), which is the same in every release. */
int MallocExtension_GetNumericProperty(const char *property, size_t *value);
void MallocExtension_ReleaseFreeMemory(void);

#ifdef __cplusplus
}
#endif

/* To be called when nothing is allocated or freed any more. */
static UNUSED void say_allocated_bytes(void)
{
    size_t bytes = 0;
    need(MallocExtension_GetNumericProperty("generic.current_allocated_bytes", &bytes), "no such property");
    struct line line = {{0}, 0};
    put_text(&line, "STAT");
    put_count(&line, "current_allocated_bytes", bytes);
    put_end(&line);
}

#endif
