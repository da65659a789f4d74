#include <memory>
#include <thread>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/prng.h>
#include <weir/runtime/mailbox.h>

using weir::runtime::Mailbox;

TEST_CASE("a mailbox holds what its capacity says, in order, and says when it is full") {
  Mailbox<int, 4> box;
  int posted = 0;
  int received = 0;
  for (int round = 0; round < 100; ++round) {
    while (box.try_post(posted)) ++posted;
    CHECK(posted - received == 4);
    const uint32_t most = static_cast<uint32_t>(1 + round % 5);
    const uint32_t count = box.drain([&](int value) { CHECK(value == received++); }, most);
    CHECK(count == std::min<uint32_t>(most, 4));
  }
  box.drain([&](int value) { CHECK(value == received++); });
  CHECK(received == posted);
  CHECK(box.drain([](int) { FAIL("empty"); }) == 0);
}

TEST_CASE("a mailbox moves what it carries and keeps nothing behind") {
  Mailbox<std::shared_ptr<int>, 8> box;
  const auto value = std::make_shared<int>(1);
  REQUIRE(box.try_post(value));
  CHECK(value.use_count() == 2);
  box.drain([&](std::shared_ptr<int> got) { CHECK(got.get() == value.get()); });
  CHECK(value.use_count() == 1);
}

TEST_CASE("posting while draining is in order: what came meanwhile waits for the next drain") {
  Mailbox<int, 4> box;
  REQUIRE(box.try_post(1));
  std::vector<int> got;
  CHECK(box.drain([&](int value) {
    got.push_back(value);
    CHECK(box.try_post(value + 1));
  }) == 1);
  CHECK(got == std::vector<int>{1});
  CHECK(box.drain([&](int value) { got.push_back(value); }) == 1);
  CHECK(got == std::vector<int>{1, 2});
}

TEST_CASE("two threads: everything arrives once and in order", "[threads]") {
  constexpr uint64_t kCount = 200'000;
  struct Message {
    uint64_t number = 0;
    std::unique_ptr<uint64_t> check;
  };
  Mailbox<Message, 16> box;
  std::thread sender([&] {
    for (uint64_t i = 0; i < kCount;) {
      if (box.try_post({i, i % 64 == 0 ? std::make_unique<uint64_t>(i) : nullptr})) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  uint64_t expected = 0;
  uint64_t faults = 0;
  weir::base::Prng random(3);
  while (expected < kCount) {
    const uint32_t count = box.drain(
        [&](Message&& message) {
          if (message.number != expected) ++faults;
          if ((expected % 64 == 0) != (message.check != nullptr)) ++faults;
          if (message.check && *message.check != expected) ++faults;
          ++expected;
        },
        1 + static_cast<uint32_t>(random.below(16)));
    if (count == 0) std::this_thread::yield();
  }
  sender.join();
  CHECK(faults == 0);
}
