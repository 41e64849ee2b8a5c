// Objects of many types in blocks, each said before the program dies:
//
//   TYPE case= address= name= [was=yes] [none=yes] [lost=yes] [needs=names|code|size]
//
// `none`: nothing tells what the block holds, and nothing may be said. `lost`: nobody points at it any more. What it needs to be
// told: `names`, the program's file (without it a class has no name); `size`, debug information.
#include "common.h"

#include <malloc.h>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace shapes {
struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
    int id = 1;
};
struct Named {
    virtual ~Named() = default;
    virtual const char *name() const { return "?"; }
    const char *text = "named";
};
struct Circle : Shape {
    double radius = 2;
    double area() const override { return radius * radius * 3; }
};
// A second base, which stands at +16.
struct Label : Shape, Named {
    char more[40] = "label";
    double area() const override { return 0; }
    const char *name() const override { return more; }
};
template <class Key, class Value> struct Table : Named {
    Key key{};
    Value value{};
    const char *name() const override { return "table"; }
};
} // namespace shapes

namespace {
struct Hidden : shapes::Named {
    long secret = 7;
    const char *name() const override { return "hidden"; }
};
} // namespace

// Bases that an object has once: virtual ones.
struct Stream {
    virtual ~Stream() = default;
    long position = 0;
};
struct Input : virtual Stream {
    virtual int read() { return 0; }
};
struct Output : virtual Stream {
    virtual int write() { return 1; }
};
struct File : Input, Output {
    int read() override { return 2; }
    char path[64] = "/tmp/x";
};

// No destructor of its own: an array of it has no count.
struct Plain {
    virtual int number() const { return 4; }
    long value = 9;
};

// A function table that is C's: no class.
struct Operations {
    void *nothing[2];
    int (*open)();
    int (*close)();
};
static int do_nothing() { return 0; }
static const Operations operations = {{nullptr, nullptr}, do_nothing, do_nothing};
struct Device {
    int (*const *calls)();
    long number;
};

static void *volatile held[64];
static int holds;

static void tell(const char *what, const volatile void *address, const char *name, const char *more)
{
    struct line line = {{0}, 0};
    put_text(&line, "TYPE case=");
    put_text(&line, what);
    put_address(&line, "address", address);
    if (name) {
        put_text(&line, " name=");
        for (const char *letter = name; *letter; letter++) {
            const char one[2] = {*letter == ' ' ? '_' : *letter, 0};
            put_text(&line, one);
        }
    }
    if (more) {
        put_text(&line, " ");
        put_text(&line, more);
    }
    put_end(&line);
}

template <class T> static T *keep(T *made)
{
    held[holds++] = dynamic_cast<void *>(made);
    return made;
}

static __attribute__((noinline, noclone)) void make()
{
    using namespace shapes;
    tell("single", keep(new Circle), "shapes::Circle", "needs=names");
    tell("two-bases", keep(new Label), "shapes::Label", "needs=names");
    tell("template", keep(new Table<int, std::string>), "shapes::Table<int, std::string>", "needs=names");
    tell("template-pointer", keep(new Table<char *, long>), "shapes::Table<char*, long>", "needs=names");
    tell("hidden", keep(new Hidden), "(anonymous namespace)::Hidden", "needs=names");
    tell("virtual-bases", keep(new File), "File", "needs=names");
    // Held by its second base only.
    Named *base = new Label;
    held[holds++] = base;
    tell("by-second-base", dynamic_cast<void *>(base), "shapes::Label", "needs=names");

    Label *labels = new Label[5];
    held[holds++] = labels;
    tell("array", reinterpret_cast<char *>(labels) - 8, "shapes::Label[5]", "needs=names");
    Plain *plains = new Plain[6];
    held[holds++] = plains;
    tell("array-without-count", plains, "Plain[6]", "needs=size");

    // In its holder's words alone.
    static std::shared_ptr<Circle> shared = std::make_shared<Circle>();
    tell("make-shared", reinterpret_cast<char *>(shared.get()) - 16, "std::_Sp_counted_ptr_inplace<shapes::Circle>", "needs=names");
    static std::exception_ptr thrown = std::make_exception_ptr(std::runtime_error("kept"));

    // What is no object of a class.
    char *text = static_cast<char *>(do_malloc(64));
    memset(text, 0, malloc_usable_size(text));
    strcpy(text, "no class at all");
    held[holds++] = text;
    tell("text", text, nullptr, "none=yes");
    Device *device = static_cast<Device *>(do_malloc(64));
    memset(static_cast<void *>(device), 0, 64);
    device->calls = &operations.open;
    held[holds++] = device;
    tell("c-functions", device, nullptr, "none=yes");
    Circle **pointers = new Circle *[8]();
    held[holds++] = pointers;
    tell("pointers", pointers, nullptr, "none=yes");
    // The class's name, and not the class.
    const void **infos = static_cast<const void **>(do_malloc(48));
    memset(static_cast<void *>(infos), 0, 48);
    infos[0] = &typeid(Circle);
    held[holds++] = infos;
    tell("type-info", infos, nullptr, "none=yes");
}

// Lost: objects that nobody points at.
static __attribute__((noinline, noclone)) void lose()
{
    for (int i = 0; i < 20; i++) {
        tell("lost-circle", new shapes::Circle, "shapes::Circle", "lost=yes needs=names");
        tell("lost-label", new shapes::Label, "shapes::Label", "lost=yes needs=names");
    }
}

// Freed: what they were. glibc and tcmalloc write over the first word, jemalloc leaves it.
static __attribute__((noinline, noclone)) void let_go()
{
    using namespace shapes;
    Label *label = keep(new Label);
    Circle *circle = keep(new Circle);
    Label *destroyed = keep(new Label);
    tell("freed-two-bases", label, "shapes::Label", "was=yes needs=names");
    tell("freed-single", circle, "shapes::Circle", "was=maybe needs=names");
    // A destructor leaves its own class's table, unless the compiler left the store out.
    tell("destroyed", destroyed, "shapes::Label", "was=maybe or=shapes::Shape needs=names");
    ::operator delete(label);
    ::operator delete(circle);
    delete destroyed;
    for (int i = 0; i < 3; i++)
        held[--holds] = nullptr;
}

static __attribute__((noinline, noclone)) void wipe()
{
    volatile char room[8192];
    for (size_t i = 0; i < sizeof room; i++)
        room[i] = 0;
}

int main()
{
    need(malloc_usable_size(do_malloc(8)) >= 8, "malloc fails");
    make();
    lose();
    let_go();
    wipe();
    need(holds < 60, "too many are held");
    say("HEALTHY");
    die_by_abort();
}
