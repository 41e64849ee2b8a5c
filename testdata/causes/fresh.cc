// Programs in styles that heapcheck was not made on: what tools/provenance.py --set fresh measured before any change.
// Output as that of provenance.cc. One case a run; beside: an overrun that nobody meets.
#include "cases.h"

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <pthread.h>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

// ---- never written ----
struct Config {
    int version, flags;
    char *host;
    char *user;
    unsigned ports[6];
};
ALONE static size_t length_of(const Config *config) { return strlen(config->user) + config->version; }
static void u_string_of_config()
{
    Config *old[3];
    for (auto &config : old) {
        config = (Config *)malloc(sizeof(Config));
        memset(config, 0x5c, sizeof(Config));
    }
    for (auto *config : old)
        free(config);
    auto *config = (Config *)malloc(sizeof(Config));
    config->version = 3;
    config->flags = 0;
    config->host = strdup("localhost");
    truth("uninitialised", config, &config->user);
    sink += length_of(config);
}
struct Leaf {
    long key;
    Leaf *left, *right;
    double weight;
};
ALONE static void insert(Leaf **at, long key)
{
    while (*at)
        at = key < (*at)->key ? &(*at)->left : &(*at)->right;
    *at = new Leaf;
    (*at)->key = key;
    hold(*at);
    // Nobody wrote the other members of any node: it dies of the first of them that is not null.
    truth("uninitialised", *at, &(*at)->left);
}
static void u_tree_without_parentheses()
{
    std::vector<double> noise(4, 1.0e300);
    for (int i = 0; i < 6; i++) {
        auto *numbers = new std::vector<unsigned long>(4, 0x4242424242424242ul);
        hold(numbers);
        if (i & 1)
            delete numbers;
    }
    Leaf *root = nullptr;
    insert(&root, 50);
    insert(&root, 20);
    insert(&root, 10);
    _exit(95);
}
struct Slot {
    unsigned used;
    struct Config *config;
    long stamp[2];
};
ALONE static long sum_of_ports(const Slot *slots, unsigned count)
{
    long sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += slots[i].config->ports[0];
    return sum;
}
static void u_last_slot()
{
    static Config config;
    char *line = (char *)malloc(8 * sizeof(Slot));
    memset(line, 'A', 8 * sizeof(Slot));
    hold(line);
    free(line);
    auto *slots = (Slot *)malloc(8 * sizeof(Slot));
    for (int i = 0; i < 7; i++) {
        slots[i].used = 1;
        slots[i].config = &config;
    }
    truth("uninitialised", slots, &slots[7].config);
    sink += sum_of_ports(slots, 8);
}
struct Options {
    const long *limits;
    const char *name;
    int level;
};
ALONE static void fill_options(Options *options, int level)
{
    options->level = level;
    if (level > 5)
        options->name = "high";
}
ALONE static void used_stack()
{
    volatile unsigned long room[64];
    for (auto &word : room)
        word = 0x6b6b6b6b6b6b6b6bul;
}
ALONE static long limit_of(const Options *options) { return options->limits[options->level]; }
ALONE static void u_local_struct()
{
    used_stack();
    Options options;
    fill_options(&options, 2);
    truth("wild", nullptr, &options.limits);
    sink += limit_of(&options);
}

// ---- freed ----
struct Message {
    Message *next;
    char *body;
    int length;
};
ALONE static long drain(Message *head)
{
    long bytes = 0;
    for (Message *at = head; at; at = at->next) {
        bytes += at->length + (at->body ? at->body[0] : 0);
        if (at->length < 0)
            break;
        free(at->body);
        free(at);
    }
    return bytes;
}
static void f_loop_frees_its_node()
{
    Message *head = nullptr;
    for (int i = 0; i < 6; i++) {
        auto *one = (Message *)malloc(sizeof(Message));
        *one = {head, strdup("text of a message"), i};
        head = one;
    }
    truth("freed", head, &head->next);
    sink += drain(head);
    _exit(95);
}
struct Entry {
    const char *key;
    long value;
    Entry *next;
};
struct Hash {
    Entry *buckets[16];
};
static unsigned bucket_of(const char *key)
{
    unsigned hash = 5381;
    while (*key)
        hash = hash * 33 + *key++;
    return hash & 15;
}
ALONE static Entry *lookup(Hash *hash, const char *key)
{
    for (Entry *entry = hash->buckets[bucket_of(key)]; entry; entry = entry->next)
        if (strcmp(entry->key, key) == 0)
            return entry;
    return nullptr;
}
static void f_entry_left_in_bucket()
{
    auto *hash = (Hash *)calloc(1, sizeof(Hash));
    hold(hash);
    Entry *last = nullptr, *first = nullptr;
    for (const char *key : {"alpha", "beta", "gamma", "delta"}) {
        auto *entry = (Entry *)malloc(sizeof(Entry));
        *entry = {strdup(key), 1, hash->buckets[bucket_of(key)]};
        hash->buckets[bucket_of(key)] = entry;
        first = first ? first : entry;
        last = entry;
    }
    free(first);
    free((void *)last->key);
    free(last);
    truth("freed", last, &last->key);
    Entry *found = lookup(hash, "delta");
    sink += found ? found->value : 0;
    _exit(95);
}
struct Widget {
    long id;
    std::string title;
};
ALONE static long id_of(const std::vector<Widget *>::iterator &at) { return (*at)->id; }
static void f_iterator_after_push_back()
{
    std::vector<Widget *> widgets;
    std::vector<long> *others[3];
    for (auto &other : others)
        other = new std::vector<long>(4, 7);
    for (int i = 0; i < 4; i++)
        widgets.push_back(new Widget{i, "a widget with a long title"});
    auto at = widgets.begin();
    for (auto *other : others)
        delete other;
    const void *was = &*at;
    widgets.push_back(new Widget{9, "one more"});
    truth("freed", was, was);
    sink += id_of(at);
    _exit(95);
}
ALONE static std::string_view path_of(int number)
{
    std::string text = "/srv/objects/of/a/long/path/" + std::to_string(number);
    hold((void *)text.data());
    return text;
}
static long *const columns[256] = {};
ALONE static long column_of(std::string_view text) { return *columns[(unsigned char)text[0]]; }
static void f_view_of_dead_string()
{
    std::string_view text = path_of(1234567);
    std::string again = "/srv/objects/of/a/shorter/path/x";
    truth("freed", text.data());
    sink += column_of(text);
    _exit(95);
}
struct Observer {
    virtual ~Observer() {}
    virtual void changed(int what) { seen += what; }
    long seen = 0;
};
struct Logger : Observer {
    std::string line = "logged by nobody, in a block of its own";
    void changed(int what) override { seen += line.size() + what; }
};
struct Subject {
    std::vector<Observer *> observers;
    ALONE void notify(int what)
    {
        for (auto *observer : observers)
            observer->changed(what);
    }
};
static void f_observer_deleted()
{
    auto *subject = new Subject;
    hold(subject);
    Observer *loggers[4];
    for (auto &logger : loggers)
        subject->observers.push_back(logger = new Logger);
    delete loggers[3];
    delete loggers[1];
    truth("freed", loggers[1], loggers[1]);
    subject->notify(3);
    _exit(95);
}
struct Image {
    const unsigned *pixels;
    int width, height;
};
ALONE static unsigned pixel(const Image *image, int x, int y) { return image->pixels[y * image->width + x]; }
static void f_get_after_reset()
{
    static const unsigned black[64] = {};
    auto first = std::make_unique<Image>(Image{black, 8, 8});
    auto second = std::make_unique<Image>(Image{black, 8, 8});
    Image *raw = second.get();
    first.reset();
    second.reset();
    truth("freed", raw, &raw->pixels);
    sink += pixel(raw, 1, 1);
    _exit(95);
}
struct Row {
    long *cells;
    long count;
};
ALONE static long first_cell(const Row *rows) { return rows[0].cells[0] + rows[0].count; }
static void f_pointer_before_realloc()
{
    static long cells[4];
    auto *rows = (Row *)malloc(4 * sizeof(Row));
    void *wall = malloc(4 * sizeof(Row));
    auto *other = (Row *)malloc(4 * sizeof(Row));
    for (int i = 0; i < 4; i++)
        rows[i] = {cells, 4};
    free(other);
    hold(wall);
    Row *old = rows;
    rows = (Row *)realloc(rows, 4000 * sizeof(Row));
    hold(rows);
    truth("freed", old, &old[0].cells);
    sink += first_cell(old);
    _exit(95);
}
static void f_erase_in_loop()
{
    std::unordered_map<long, Widget *> all;
    for (long i = 0; i < 20; i++)
        all[i * 7] = new Widget{i, "x"};
    const void *node = nullptr;
    auto at = all.begin();
    std::advance(at, 4);
    node = *(void **)&at;
    auto before = all.begin();
    all.erase(before);
    all.erase(at);
    truth("freed", node, node);
    for (; at != all.end(); ++at)
        sink += at->second->id;
    _exit(95);
}
struct Work {
    long (*step)(Work *);
    std::atomic<int> state;
    char input[100];
};
static std::atomic<int> turn;
ALONE static long run_step(Work *work) { return work->step(work); }
static void *worker(void *argument)
{
    while (turn.load() != 1)
        sched_yield();
    sink += run_step((Work *)argument);
    _exit(95);
}
static void f_thread_pool()
{
    auto *work = (Work *)calloc(1, sizeof(Work)), *other = (Work *)calloc(1, sizeof(Work));
    work->step = [](Work *it) -> long { return it->input[0]; };
    pthread_t thread;
    pthread_create(&thread, nullptr, worker, work);
    free(other);
    free(work);
    truth("freed", work, work);
    turn.store(1);
    pthread_join(thread, nullptr);
}

// ---- written past an end ----
struct Handler {
    void (*run)(long);
    long argument;
    char name[16];
};
static void nothing(long) {}
ALONE static void dispatch(Handler *handler) { handler->run(handler->argument); }
static void o_function_of_neighbour()
{
    void *one, *two;
    pair(sizeof(Handler), &one, &two);
    *(Handler *)one = {nothing, 1, "first"};
    *(Handler *)two = {nothing, 2, "second"};
    hold(one);
    hold(two);
    truth("overrun", one, two);
    strcpy(((Handler *)one)->name, "a name that is longer than anybody thought it could be");
    dispatch((Handler *)two);
    _exit(95);
}
struct Animal {
    virtual ~Animal() {}
    virtual int legs() const { return 4; }
    char noise[40];
};
ALONE static int legs_of(const Animal *animal) { return animal->legs(); }
static void o_table_of_neighbour()
{
    void *one, *two;
    pair(sizeof(Animal), &one, &two);
    auto *buffer = (unsigned short *)one;
    auto *animal = new (two) Animal;
    hold(one);
    hold(two);
    truth("overrun", one, two);
    for (unsigned i = 0; i < (sizeof(Animal) + 24) / 2; i++)
        buffer[i] = 0x30 + i % 10;
    sink += legs_of(animal);
    _exit(95);
}
ALONE static void fill_rows(Row **rows, int count, Row *row)
{
    for (int i = 0; i <= count; i++)
        rows[i] = row;
}
static void o_one_row_too_many()
{
    void *one, *two;
    pair(56, &one, &two);
    auto *animal = new (two) Animal;
    hold(one);
    hold(two);
    auto *row = new Row{nullptr, 9};
    hold(row);
    truth("overrun", one, two);
    fill_rows((Row **)one, 7, row);
    sink += legs_of(animal);
    free(two);
    _exit(95);
}
struct Packet {
    unsigned length;
    unsigned char data[44];
};
ALONE static void receive(Packet *packet, const unsigned char *from, unsigned length)
{
    packet->length = length;
    for (unsigned i = 0; i < length; i++)
        packet->data[i] = from[i] ^ 0x5a;
}
static void o_packet_of_noise()
{
    void *one, *two;
    pair(72, &one, &two);
    auto *next = (Handler *)two;
    *next = {nothing, 2, "victim"};
    hold(one);
    hold(two);
    unsigned char noise[96];
    unsigned state = 12345;
    for (auto &byte : noise)
        byte = (state = state * 1103515245 + 12345) >> 16;
    truth("overrun", one, two);
    receive((Packet *)one, noise, 88);
    dispatch(next);
    _exit(95);
}

// ---- the program's own words ----
struct Contact {
    char name[16];
    Widget *widget;
    long more;
};
ALONE static long widget_of(const Contact *contact) { return contact->widget->id; }
static void w_name_over_member()
{
    auto *contact = (Contact *)calloc(1, sizeof(Contact));
    contact->widget = new Widget{1, "w"};
    strcpy(contact->name, "Bartholomew the Great");
    contact->name[20] = 'q';
    strcpy(contact->name + 16, "e Great");
    truth("wild", contact, &contact->widget);
    sink += widget_of(contact);
}
struct File {
    unsigned char magic[4];
    unsigned count;
    unsigned offsets[14];
};
ALONE static long at_offset(const File *file, const long *table) { return table[file->offsets[2]]; }
static void w_other_byte_order()
{
    auto *file = (File *)malloc(sizeof(File));
    auto *table = (long *)malloc(100 * sizeof(long));
    for (unsigned i = 0; i < 14; i++)
        file->offsets[i] = __builtin_bswap32(i * 3);
    hold(file);
    hold(table);
    truth("wild", table, &file->offsets[2]);
    sink += at_offset(file, table);
}
static std::function<long()> later;
ALONE static void capture()
{
    long local[4] = {1, 2, 3, 4};
    long *pointer = local;
    later = [&pointer] { return *pointer; };
    sink += later();
}
ALONE static void other_stack()
{
    volatile long room[40];
    for (auto &word : room)
        word = 0x123456789;
}
static void w_captured_local()
{
    capture();
    other_stack();
    truth("wild", nullptr);
    sink += later();
    _exit(95);
}
struct Device {
    char name[32];
    long registers[500];
};
ALONE static long status(const Device *device) { return device->registers[300]; }
static Device *find_device(const char *name)
{
    static std::map<std::string, Device *> all;
    return all[name];
}
static void n_large_offset()
{
    truth("null", nullptr);
    sink += status(find_device("tty9"));
}
struct Document {
    Widget *selected = nullptr;
    std::list<Widget> widgets;
};
ALONE static size_t title_of(const Document *document) { return document->selected->title.size(); }
static void n_member_of_class()
{
    auto *document = new Document;
    document->widgets.push_back({1, "one"});
    hold(document);
    truth("null", document, &document->selected);
    sink += title_of(document);
}

// ---- freed twice ----
struct Texture {
    char name[24];
    void *pixels;
};
ALONE static void drop(Texture *texture)
{
    free(texture->pixels);
    delete texture;
}
static void r_two_owners()
{
    auto *one = new Texture{"stone", malloc(100)}, *two = new Texture{"grass", nullptr};
    two->pixels = one->pixels; // A copy by members.
    void *shared = one->pixels;
    drop(one);
    truth("refused", shared);
    drop(two);
    for (int i = 0; i < 4; i++)
        hold(memset(malloc(100), 0x7f, 100));
    _exit(95);
}
static void r_raw_delete_of_shared()
{
    auto shared = std::make_unique<Widget>();
    std::unique_ptr<Widget> again(shared.get());
    const void *widget = shared.get();
    again.reset();
    truth("freed", widget, (const char *)widget + 8); // The text is freed again, by a pointer that the allocator wrote over.
    shared.reset();
    _exit(95);
}
static void r_later_after_write()
{
    // The key of glibc's cache is written over, so that the second free goes through: two owners of one block.
    auto *first = (Handler *)malloc(sizeof(Handler));
    for (int i = 0; i < 2; i++)
        hold(malloc(sizeof(Handler)));
    free(first);
    first->run = nullptr;
    first->argument = 7;
    free(first);
    auto *handler = (Handler *)malloc(sizeof(Handler));
    *handler = {nothing, 2, "handler"};
    auto *numbers = (long *)malloc(sizeof(Handler));
    for (int i = 0; i < 4; i++)
        numbers[i] = 0x1111111111111111 * (i + 1);
    hold(handler);
    hold(numbers);
    truth("aliased", handler, handler);
    dispatch(handler);
    _exit(95);
}
static const Case cases[] = {
    CASE(u_string_of_config), CASE(u_tree_without_parentheses), CASE(u_last_slot), CASE(u_local_struct), CASE(f_loop_frees_its_node),
    CASE(f_entry_left_in_bucket), CASE(f_iterator_after_push_back), CASE(f_view_of_dead_string), CASE(f_observer_deleted),
    CASE(f_get_after_reset), CASE(f_pointer_before_realloc), CASE(f_erase_in_loop), CASE(f_thread_pool), CASE(o_function_of_neighbour),
    CASE(o_table_of_neighbour), CASE(o_one_row_too_many), CASE(o_packet_of_noise), CASE(w_name_over_member), CASE(w_other_byte_order),
    CASE(w_captured_local), CASE(n_large_offset), CASE(n_member_of_class), CASE(r_two_owners), CASE(r_raw_delete_of_shared),
    CASE(r_later_after_write),
};
int main(int count, char **arguments)
{
    return run_case(cases, sizeof cases / sizeof cases[0], count, arguments);
}
