// Deep C++ stacks with inlined functions, templates, lambdas and an exception that nobody catches: deep MODE.
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#include <unistd.h>

namespace deep {
template <typename T, int N>
struct Box {
    static inline int depth(const T &text) {
        if (N > 3) std::abort();
        return N + (text == T() ? 1 : 2);
    }
};
namespace {
struct Local {
    template <class F>
    int apply(F function) const {
        return function(3) + 1;
    }
};
inline int helper(int x) {
    return Box<std::string, 5>::depth(std::to_string(x));
}
}  // namespace
class Base {
  public:
    virtual ~Base() {}
    virtual int run(int x) const = 0;
};
class Derived final : public Base {
  public:
    int run(int x) const override {
        Local local;
        auto function = [x](int y) { return helper(x + y); };
        return local.apply(function);
    }
};
struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};
}  // namespace deep

[[gnu::noinline]] int call(std::function<int(int)> function) {
    return function(7) + 1;
}

[[gnu::cold]] void unlikely(int x) {
    if (x) std::abort();
}

template <class Iterator>
void sort_with(Iterator begin, Iterator end) {
    std::sort(begin, end, [](int x, int y) {
        if (x == 13) unlikely(1);
        return x < y;
    });
}

int main(int count, char **arguments) {
    std::string mode = count > 1 ? arguments[1] : "lambda";
    std::unique_ptr<deep::Base> base(new deep::Derived);
    if (mode == "lambda") return call([&](int x) { return base->run(x); });
    if (mode == "sort") {
        std::vector<int> numbers{5, 3, 13, 1, 2, 8, 9, 4};
        sort_with(numbers.begin(), numbers.end());
        return numbers[0];
    }
    if (mode == "throw") {
        std::map<std::string, int> map;
        return map.at("x");
    }
    if (mode == "throw-text") throw "a mere text";
    if (mode == "throw-number") throw -42;
    if (mode == "throw-class") throw deep::Box<int, 7>();
    if (mode == "throw-own") throw deep::Refused("no");
    if (mode == "thread") {
        std::thread thread([&] {
            sleep(1); // the main thread waits by then, and is not anywhere on its way there
            call([&](int x) { return base->run(x); });
        });
        thread.join();
    }
    return 0;
}
