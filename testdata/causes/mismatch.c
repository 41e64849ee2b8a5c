/* A block of one allocator is given back to another one. The program runs with a malloc of its own (LD_PRELOAD), its plugin with libc's.
 *
 *   EXPECT kind= address= says=WORDS|WORDS     words that the message has, with _ for blanks */
#include "../common.h"

#include <dlfcn.h>

static void *volatile kept[64];
static const char *name; /* of the preloaded malloc, as heapcheck has it */

static void say_mismatch(const void *block, const char *of, const char *caller, const char *taker)
{
    struct line line = {{0}, 0};
    put_text(&line, "EXPECT kind=allocator-mismatch");
    put_address(&line, "address", block);
    put_text(&line, " says=bytes_of_");
    put_text(&line, of);
    put_text(&line, "_(|from_");
    put_text(&line, caller);
    put_text(&line, "_and|went_to_");
    put_text(&line, taker);
    put_text(&line, "_(");
    put_end(&line);
}

static __attribute__((noinline)) void give_back(void *block)
{
    free(block);
    kept[60] = block;
}

int main(int count, char **arguments)
{
    need(count == 4, "a case, a plugin and a name");
    void *plugin = dlopen(arguments[2], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    need(plugin != NULL, "a plugin");
    name = arguments[3];
    void *(*make)(size_t) = (void *(*)(size_t))dlsym(plugin, "plugin_make");
    void (*drop)(void *) = (void (*)(void *))dlsym(plugin, "plugin_drop");
    void *(*grow)(void *) = (void *(*)(void *))dlsym(plugin, "plugin_grow");
    void *(*aligned)(void) = (void *(*)(void))dlsym(plugin, "plugin_aligned");
    const char *libc = "glibc's_malloc";
    for (int i = 0; i < 20; i++)
        memset(kept[i] = do_malloc(100), 'a', 100);
    for (int i = 20; i < 40; i++)
        memset(kept[i] = make(100), 'b', 100);
    for (int i = 0; i < 5; i++) {
        do_free(kept[i]);
        drop(kept[20 + i]);
    }
    void *block;
    switch (atoi(arguments[1])) {
    case 0:
        block = kept[30];
        say_mismatch(block, libc, "program", name);
        give_back(block);
        break;
    case 1:
        block = kept[10];
        say_mismatch(block, name, "plugin.so", libc);
        drop(block);
        break;
    case 2:
        block = aligned();
        say_mismatch(block, libc, "program", name);
        give_back(block);
        break;
    case 3:
        block = do_malloc(200);
        memset(block, 'x', 200);
        say_mismatch(block, name, "plugin.so", libc);
        kept[61] = grow(block);
        break;
    case 4: /* each to its own */
        say("HEALTHY");
        give_back(kept[10]);
        drop(kept[30]);
        break;
    }
    abort();
}
