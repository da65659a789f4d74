// Task and TaskGroup: values, nesting, suspension in depth, and what dies when.
#include <array>
#include <memory>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/result.h>
#include <weir/runtime/task.h>
#include <weir/runtime/task_group.h>

#include "death.h"
#include "engine.h"

using namespace weir;
using runtime::Task;
using runtime::TaskGroup;
using runtime::test::Engine;

namespace {

// A place where coroutines wait until the test lets them go on.
struct Gate {
  struct Awaiter {
    Gate& gate;
    bool await_ready() const noexcept { return gate.open; }
    void await_suspend(std::coroutine_handle<> handle) const { gate.waiting.push_back(handle); }
    void await_resume() const noexcept {}
  };
  Awaiter pass() noexcept { return {*this}; }
  void let_all_go(runtime::Reactor& reactor) {
    for (const auto handle : std::exchange(waiting, {})) reactor.ready(handle);
  }
  bool open = false;
  std::vector<std::coroutine_handle<>> waiting;
};

// Counts its living copies.
struct Counted {
  explicit Counted(int& alive) noexcept : alive_(&alive) { ++*alive_; }
  Counted(Counted&& other) noexcept : alive_(other.alive_) { ++*alive_; }
  Counted(const Counted&) = delete;
  ~Counted() { --*alive_; }
  int* alive_;
};

Task<int> add(int a, int b) { co_return a + b; }
Task<std::unique_ptr<int>> boxed(int value) { co_return std::make_unique<int>(value); }
Task<base::Result<std::string>> text_or_error(bool good) {
  if (!good) co_return base::fail(base::Errc::kClosed);
  co_return std::string("good");
}
Task<int> after_gate(Gate& gate, int value) {
  co_await gate.pass();
  co_return value;
}

Task<> collect_values(std::vector<int>& out, std::string& text, base::Errc& error) {
  out.push_back(co_await add(2, 3));
  const std::unique_ptr<int> box = co_await boxed(7);
  out.push_back(*box);
  const auto good = co_await text_or_error(true);
  if (good) text = *good;
  const auto bad = co_await text_or_error(false);
  if (!bad) error = bad.error().code;
}

Task<int> nest(Gate& gate, int depth, bool suspend) {
  if (depth == 0) {
    if (suspend) co_await gate.pass();
    co_return 0;
  }
  co_return 1 + co_await nest(gate, depth - 1, suspend);
}

Task<> store(Task<int> task, int& out) { out = co_await std::move(task); }

Task<int> loop_of_ready_tasks(int count) {
  int sum = 0;
  for (int i = 0; i < count; ++i) sum += co_await add(i, 1) - i;
  co_return sum;
}

Task<> hold(Counted, Gate& gate) { co_await gate.pass(); }

Task<> join_then_note(TaskGroup& group, std::vector<std::string>& events) {
  co_await group.join();
  events.push_back("joined");
}

Task<> note_after(Gate& gate, std::vector<std::string>& events, std::string name) {
  co_await gate.pass();
  events.push_back(name);
}

}  // namespace

TEST_CASE("a task hands over its value, move-only or not") {
  Engine engine;
  std::vector<int> values;
  std::string text;
  base::Errc error = base::Errc::kOk;
  REQUIRE(engine.run(collect_values(values, text, error)));
  CHECK(values == std::vector<int>{5, 7});
  CHECK(text == "good");
  CHECK(error == base::Errc::kClosed);
}

TEST_CASE("a task is lazy: nothing runs before it is awaited, and an unstarted one may go") {
  int alive = 0;
  Gate gate;
  {
    Task<> task = hold(Counted(alive), gate);
    CHECK(alive == 1);  // the parameter, in the frame
    CHECK(gate.waiting.empty());
  }
  CHECK(alive == 0);
  {
    Task<> task = hold(Counted(alive), gate);
    Task<> moved = std::move(task);
    CHECK(alive == 1);
  }
  CHECK(alive == 0);
}

TEST_CASE("a task that was started must not be destroyed before it is done") {
  REQUIRE(runtime::test::aborts([] {
    Gate gate;
    int alive = 0;
    Task<> task = hold(Counted(alive), gate);
    auto awaiter = std::move(task).operator co_await();
    awaiter.await_suspend(std::noop_coroutine());
  }));
}

TEST_CASE("many levels come back without a deep stack, at once or after a suspension") {
  Engine engine;
  Gate gate;
  int ready = 0;
  REQUIRE(engine.run(store(nest(gate, 200, false), ready)));
  CHECK(ready == 200);

  int later = 0;
  engine.tasks.spawn(store(nest(gate, 1000, true), later));
  engine.settle(2);
  REQUIRE(gate.waiting.size() == 1);
  CHECK(later == 0);
  gate.let_all_go(*engine);
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(later == 1000);
}

TEST_CASE("a loop over tasks that never suspend keeps the stack flat") {
  Engine engine;
  int sum = 0;
  REQUIRE(engine.run(store(loop_of_ready_tasks(200'000), sum)));
  CHECK(sum == 200'000);
}

TEST_CASE("two chains that end in the same turn each resume their own parent") {
  Engine engine;
  Gate gate;
  std::array<int, 8> results{};
  for (int i = 0; i < 8; ++i) {
    engine.tasks.spawn(store(after_gate(gate, 100 + i), results[static_cast<size_t>(i)]));
  }
  engine.settle(1);
  REQUIRE(gate.waiting.size() == 8);
  gate.let_all_go(*engine);
  engine.settle(1);
  for (int i = 0; i < 8; ++i) CHECK(results[static_cast<size_t>(i)] == 100 + i);
  CHECK(engine.tasks.running() == 0);
}

TEST_CASE("spawn runs nothing in the caller's stack") {
  Engine engine;
  int out = 0;
  engine.tasks.spawn(store(add(1, 1), out));
  CHECK(out == 0);
  CHECK(engine.tasks.running() == 1);
  engine->turn(false);
  CHECK(out == 2);
  CHECK(engine.tasks.running() == 0);
}

TEST_CASE("join waits for the last child, children's frames are gone by then") {
  Engine engine;
  Gate first;
  Gate second;
  std::vector<std::string> events;
  TaskGroup children;
  children.spawn(note_after(first, events, "a"));
  children.spawn(note_after(second, events, "b"));
  int alive = 0;
  children.spawn(hold(Counted(alive), second));
  engine.tasks.spawn(join_then_note(children, events));
  engine.settle(2);
  CHECK(children.running() == 3);
  CHECK(alive == 1);
  first.let_all_go(*engine);
  engine.settle(2);
  CHECK(events == std::vector<std::string>{"a"});
  second.let_all_go(*engine);
  REQUIRE(engine.run_until([&] { return engine.tasks.running() == 0; }));
  CHECK(events == std::vector<std::string>{"a", "b", "joined"});
  CHECK(children.running() == 0);
  CHECK(alive == 0);
}

TEST_CASE("joining a group without children does not suspend") {
  Engine engine;
  TaskGroup none;
  std::vector<std::string> events;
  engine.tasks.spawn(join_then_note(none, events));
  engine->turn(false);
  CHECK(events == std::vector<std::string>{"joined"});
}

TEST_CASE("a group must outlive its children") {
  Engine engine;
  REQUIRE(runtime::test::aborts([] {
    Gate gate;
    int alive = 0;
    TaskGroup group;
    group.spawn(hold(Counted(alive), gate));
  }));
}
