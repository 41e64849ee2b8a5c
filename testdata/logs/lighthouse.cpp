/* The names that C++ has: methods, namespaces, templates, lambdas; `lighthouse BUG...` commits what it is asked for. */
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

static volatile int lamps;
static volatile char *pier;

namespace signals {
static void snuff(char *wick) { pier = wick; delete[] wick; lamps++; }       // internal: gcc's tools print it bare
namespace {
struct Lens { char glass[32]; void polish(char *at) { at[4] = 'p'; lamps++; } };
}
template <class T> struct Mirror {
    T *face;
    __attribute__((noinline)) void turn(int n) { face[n] = T(1); lamps++; }
};
class Keeper {
  public:
    void sleep(char *wick) { Lens lens; snuff(wick); lens.polish(wick); lamps++; }
    void forget(int n) { std::vector<int> *v = new std::vector<int>(n); pier = (char *)v; pier = nullptr; lamps++; }
};
}
template <class F> static void at_night(F work) { work(); lamps++; }

static void mirror() {
    std::unique_ptr<int[]> face(new int[8]);
    signals::Mirror<int> m{face.get()};
    m.turn(8);
    lamps++;
}
static void keeper() { signals::Keeper k; k.sleep(new char[24]); lamps++; }
static void dream() { signals::Keeper k; k.forget(100); k.forget(100); lamps++; }
static void lambda() {
    at_night([] { char *p = new char[10]; pier = p; pier[10] = 1; lamps++; delete[] p; });
    std::function<void(int)> f = [](int n) { char *p = new char[20]; pier = p; pier[20] = char(n); lamps++; delete[] p; };
    f(3);
    lamps++;
}
static void mismatch() { std::string *s = new std::string("a light that is seen from afar, in any weather"); pier = (char *)s; char *p = new char[7]; free(p); delete s; lamps++; }
static int total;
static void crew() {
    std::thread a([] { for (int i = 0; i < 20; i++) total++; }), b([] { for (int i = 0; i < 20; i++) total++; });
    a.join();
    b.join();
    lamps++;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "mirror")) mirror();
        if (!strcmp(argv[i], "keeper")) keeper();
        if (!strcmp(argv[i], "dream")) dream();
        if (!strcmp(argv[i], "lambda")) lambda();
        if (!strcmp(argv[i], "mismatch")) mismatch();
        if (!strcmp(argv[i], "crew")) crew();
    }
    return 0;
}
