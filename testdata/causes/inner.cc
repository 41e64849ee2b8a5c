// A pointer that is inside of a block is freed, and the block shows how it came to be there.
//
//   EXPECT kind= address= says=WORDS|WORDS     words that the message has, with _ for blanks
#include "../common.h"

#include <new>
#include <string>

#define KEEPS __attribute__((noinline, noclone))
static void seen(const void *object) { __asm__ volatile("" : : "r"(object) : "memory"); }

struct Named {
    virtual const char *name() { return "n"; }
    long id = 1;
    ~Named() { seen(this); }
};
struct Counted {
    virtual int count() { return 3; }
    long n = 7;
    ~Counted() { seen(this); }
};
struct Plain {
    long a = 5, b = 6;
    ~Plain() { seen(this); }
};
struct Both : Named, Counted {
    long more[4] = {1, 2, 3, 4};
};
struct Third : Named, Plain {
    long more[4] = {1, 2, 3, 4};
};
struct Deep : Third {
    std::string text = "a long string that lies in a block of its own";
};
struct Item {
    std::string text = "the text of an item, long enough for a block";
    long key = 1;
    ~Item() { seen(this); }
};
struct Shape {
    virtual ~Shape() { seen(this); }
    long key = 3;
};
struct Record {
    long head[3];
    char *buffer;
    long tail[5];
};

static void *volatile kept[40];

static void *pool_get(size_t size)
{
    size_t *header = (size_t *)do_malloc(size + 16);
    header[0] = size;
    header[1] = 0xfeedfacecafebeef;
    return header + 2;
}
KEEPS static void tell(const void *freed, const char *says)
{
    struct line line = {{0}, 0};
    put_text(&line, "EXPECT kind=misaligned-free-entry");
    put_address(&line, "address", freed);
    put_text(&line, " says=");
    put_text(&line, says);
    put_end(&line);
}
template <class T> KEEPS static void drop(T *object) { delete object; }
KEEPS static void drop_memory(void *memory) { do_free(memory); }

int main(int, char **arguments)
{
    for (int i = 0; i < 16; i++)
        memset(kept[i] = do_malloc(96), 1, 96);
    switch (atoi(arguments[1])) {
    case 0: {
        Counted *object = new Both;
        tell(object, "Counted_is_there|of_the_Both_that|destructor_is_not_virtual");
        drop(object);
        break;
    }
    case 1: {
        Plain *object = new Third;
        tell(object, "Plain_is_there|of_the_Third_that|destructor_is_not_virtual");
        drop(object);
        break;
    }
    case 2: {
        Plain *object = new Deep;
        tell(object, "Plain_is_there|of_the_Deep_that");
        drop(object);
        break;
    }
    case 3: {
        Item *items = new Item[5];
        tell(items, "before_it_is_5|as_new[]_keeps");
        drop(items);
        break;
    }
    case 4: {
        Shape *shapes = new Shape[5];
        kept[20] = shapes;
        tell(shapes, "before_it_is_5|number_of");
        drop(shapes);
        break;
    }
    case 5: {
        Record *record = (Record *)calloc(1, sizeof(Record));
        kept[21] = record;
        tell(&record->buffer, "24_bytes_into_the_block");
        drop_memory(&record->buffer);
        break;
    }
    case 6: {
        void *memory = pool_get(100);
        memset(memory, 2, 100);
        tell(memory, "in_front_of_it_is_100|a_header_of_functions");
        drop_memory(memory);
        break;
    }
    case 7: {
        Item *items = new Item[5];
        tell(items, "before_it_is_5|delete_or_free");
        drop_memory(items);
        break;
    }
    }
    abort();
}
