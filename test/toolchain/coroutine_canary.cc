// The forms of coroutine code that this program uses, each with a count of what is constructed,
// destroyed and awaited. g++ 12 gets several of them wrong without a word: co_await in a condition
// never completes, temporaries of aggregates in an awaited call are destroyed twice. The Task here
// is the smallest that suspends for real; the program's own has tests of its own.
#include <coroutine>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/result.h>

namespace {

using weir::base::Errc;
using weir::base::Result;

std::deque<std::coroutine_handle<>> ready;  // the trampoline: nothing resumes inside another

template <class T>
struct [[nodiscard]] Task {
  struct promise_type {
    T value{};
    std::coroutine_handle<> waiter;
    Task get_return_object() {
      return Task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    auto final_suspend() noexcept {
      if (waiter) ready.push_back(waiter);
      return std::suspend_always{};
    }
    void return_value(T v) { value = std::move(v); }
    void unhandled_exception() { std::terminate(); }
  };

  explicit Task(std::coroutine_handle<promise_type> h) : handle(h) {}
  Task(Task&& other) noexcept : handle(std::exchange(other.handle, nullptr)) {}
  ~Task() {
    if (handle) handle.destroy();
  }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) noexcept {
    handle.promise().waiter = waiter;
    ready.push_back(handle);
  }
  T await_resume() { return std::move(handle.promise().value); }

  std::coroutine_handle<promise_type> handle;
};

struct Yield {  // one trip through the run queue
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) const { ready.push_back(h); }
  void await_resume() const noexcept {}
};

template <class T>
T run(Task<T> task) {
  ready.push_back(task.handle);
  for (int turns = 0; !ready.empty(); ++turns) {
    REQUIRE(turns < 10'000);  // a condition that never completes
    const auto next = ready.front();
    ready.pop_front();
    next.resume();
  }
  REQUIRE(task.handle.done());
  return std::move(task.handle.promise().value);
}

// Counts its own lives; `name` is on the heap, so that a second destruction shows under ASan too.
struct Counted {
  static inline int alive = 0;
  std::string name;
  explicit Counted(std::string n) : name(std::move(n)) { ++alive; }
  Counted(const Counted& other) : name(other.name) { ++alive; }
  Counted(Counted&& other) noexcept : name(std::move(other.name)) { ++alive; }
  ~Counted() { --alive; }
};

struct Options {  // an aggregate, as our options structs are
  Counted label{"default label, long enough for the heap"};
  uint32_t limit = 0;
};

Task<bool> count_down(int& left) {
  co_await Yield{};
  co_return --left > 0;
}

Task<int> number(int value) {
  co_await Yield{};
  co_return value;
}

Task<std::string> describe(Options options, Counted extra) {
  co_await Yield{};
  co_return options.label.name + "/" + std::to_string(options.limit) + "/" + extra.name;
}

Task<Result<int>> half(int value) {
  co_await Yield{};
  if (value % 2 != 0) co_return std::unexpected(weir::base::Error{.code = Errc::kInvalid});
  co_return value / 2;
}

Task<int> empty_loop_body(int left) {
  while (co_await count_down(left)) {
  }
  co_return left;
}

Task<int> conditions(int value) {
  int seen = 0;
  if (co_await number(value) > 1 && co_await number(value) < 5) seen += 1;
  if (co_await number(value) > 100 || co_await number(value) == 3) seen += 10;
  seen += (co_await number(value) == 3 ? co_await number(100) : co_await number(1'000));
  switch (co_await number(value)) {
    case 3: seen += co_await number(10'000); break;
    default: break;
  }
  for (int i = 0; i < co_await number(value); ++i) seen += co_await number(100'000);
  do {
    seen += 1'000'000;
  } while (co_await number(0) != 0);
  co_return seen;
}

Task<std::string> temporaries() {
  const std::string name = "caller's name, long enough for the heap";
  std::string text = co_await describe({.label = Counted(name), .limit = 7}, Counted("one"));
  text += "|" + co_await describe(Options{}, Counted(name + "!"));
  const Options kept{.label = Counted("kept, and long enough for the heap"), .limit = 9};
  text += "|" + co_await describe(kept, kept.label);
  co_return text;
}

Task<Result<int>> early_exit(int value, std::vector<std::string>& order) {
  struct Mark {
    std::vector<std::string>& order;
    const char* name;
    ~Mark() { order.emplace_back(name); }
  };
  const Mark outer{order, "outer"};
  WEIR_CO_TRY(const int first, co_await half(value));
  const Mark inner{order, "inner"};
  WEIR_CO_TRY(const int second, co_await half(first));
  co_return second;
}

Task<int> over_elements(std::vector<Counted> items) {
  int letters = 0;
  for (const Counted& item : items) {
    const Counted copy = item;
    letters += co_await number(static_cast<int>(copy.name.size()));
  }
  co_return letters;
}

Task<int> deep(int depth) {
  if (depth == 0) co_return 0;
  const Counted here("frame " + std::to_string(depth) + ", long enough for the heap");
  co_return 1 + co_await deep(depth - 1);
}

}  // namespace

TEST_CASE("co_await as the condition of a loop with an empty body") {
  REQUIRE(run(empty_loop_body(5)) == 0);
}

TEST_CASE("co_await in conditions, operands, ternaries, switches and loops") {
  REQUIRE(run(conditions(3)) == 1 + 10 + 100 + 10'000 + 300'000 + 1'000'000);
}

TEST_CASE("temporaries in an awaited call live until its end and die once") {
  REQUIRE(run(temporaries()) ==
          "caller's name, long enough for the heap/7/one"
          "|default label, long enough for the heap/0/caller's name, long enough for the heap!"
          "|kept, and long enough for the heap/9/kept, and long enough for the heap");
  REQUIRE(Counted::alive == 0);
}

TEST_CASE("an early exit destroys what was constructed, in order, once") {
  std::vector<std::string> order;
  REQUIRE(run(early_exit(12, order)).value() == 3);
  REQUIRE(order == std::vector<std::string>{"inner", "outer"});
  order.clear();
  REQUIRE(run(early_exit(6, order)).error().code == Errc::kInvalid);
  REQUIRE(order == std::vector<std::string>{"inner", "outer"});
  order.clear();
  REQUIRE(run(early_exit(7, order)).error().code == Errc::kInvalid);
  REQUIRE(order == std::vector<std::string>{"outer"});
}

TEST_CASE("locals and parameters across suspensions in a loop") {
  REQUIRE(run(over_elements({Counted("a"), Counted("four"), Counted("sixsix")})) == 11);
  REQUIRE(Counted::alive == 0);
}

TEST_CASE("deep calls need no stack and leave nothing behind") {
  REQUIRE(run(deep(4'000)) == 4'000);
  REQUIRE(Counted::alive == 0);
}

TEST_CASE("a task that never started is destroyed with its parameters") {
  {
    const Task<std::string> task =
        describe({.label = Counted("never used"), .limit = 1}, Counted("x"));
    REQUIRE(Counted::alive > 0);
  }
  REQUIRE(Counted::alive == 0);
}
