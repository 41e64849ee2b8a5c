/* A library whose malloc is another one than the program's: it is opened with RTLD_DEEPBIND, and finds libc's first. */
#include <stdlib.h>

void *plugin_make(size_t size) { return malloc(size); }
void plugin_drop(void *block) { free(block); }
void *plugin_grow(void *block) { return realloc(block, 5000); }
void *plugin_aligned(void)
{
    void *block = NULL;
    return posix_memalign(&block, 256, 1000) ? NULL : block;
}
