// How generations reach cores and when they are freed: the bookkeeping alone, then with threads
// that pin while control publishes and reclaims.
#include <algorithm>
#include <atomic>
#include <deque>
#include <thread>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/prng.h>
#include <weir/proxy/generation.h>

using namespace weir;
using namespace weir::proxy;

namespace {

std::unique_ptr<const Generation> generation(uint64_t epoch) {
  auto made = std::make_unique<Generation>();
  made->epoch = epoch;
  made->settings.max_requests_per_connection = epoch * 7;
  made->settings.via = "a name too long for the string to keep inside: " + std::to_string(epoch);
  return made;
}

bool consistent(const Generation& made) {
  return made.settings.max_requests_per_connection == made.epoch * 7 &&
         made.settings.via.ends_with(": " + std::to_string(made.epoch));
}

}  // namespace

TEST_CASE("a reader picks up what was published, and says so once") {
  GenerationCell cell(1);
  cell.publish(generation(1));
  GenerationReader reader(cell, 0);
  CHECK(reader.quiesce());
  CHECK_FALSE(reader.quiesce());
  CHECK(reader.current().epoch == 1);
  cell.publish(generation(2));
  CHECK(reader.current().epoch == 1);  // not before it looks
  CHECK(reader.quiesce());
  CHECK(reader.current().epoch == 2);
  CHECK(reader.alive() == 1);
}

TEST_CASE("nothing is freed before every core has started") {
  GenerationCell cell(2);
  cell.publish(generation(1));
  cell.publish(generation(2));
  CHECK(cell.reclaim() == 2);
  GenerationReader first(cell, 0);
  first.quiesce();
  CHECK(cell.reclaim() == 2);
  CHECK(cell.oldest().core == 1);
  CHECK(cell.oldest().epoch == 0);
  GenerationReader second(cell, 1);
  second.quiesce();
  CHECK(cell.reclaim() == 1);
}

TEST_CASE("a pin keeps its generation and the younger ones, the core says whose fault it is") {
  GenerationCell cell(2);
  cell.publish(generation(1));
  GenerationReader lazy(cell, 0);
  GenerationReader other(cell, 1);
  lazy.quiesce();
  other.quiesce();
  auto pin = lazy.pin();
  CHECK(pin->epoch == 1);
  for (uint64_t epoch = 2; epoch <= 5; ++epoch) {
    cell.publish(generation(epoch));
    lazy.quiesce();
    other.quiesce();
    CHECK(cell.reclaim() == epoch);
    CHECK(cell.oldest().epoch == 1);
    CHECK(cell.oldest().core == 0);
  }
  CHECK(consistent(*pin));
  auto second = lazy.pin();
  CHECK(second->epoch == 5);
  pin.reset();
  CHECK(cell.reclaim() == 5);  // known between turns only
  CHECK_FALSE(lazy.quiesce());
  CHECK(cell.reclaim() == 1);
  CHECK(lazy.alive() == 1);
  CHECK(consistent(*second));
}

TEST_CASE("a generation between two pinned ones goes when the older goes") {
  GenerationCell cell(1);
  cell.publish(generation(1));
  GenerationReader reader(cell, 0);
  reader.quiesce();
  auto first = reader.pin();
  cell.publish(generation(2));
  reader.quiesce();
  auto second = reader.pin();
  cell.publish(generation(3));
  reader.quiesce();
  second.reset();
  reader.quiesce();
  CHECK(reader.alive() == 3);
  CHECK(cell.reclaim() == 3);
  first.reset();
  reader.quiesce();
  CHECK(reader.alive() == 1);
  CHECK(cell.reclaim() == 1);
}

TEST_CASE("pins move, and let go once") {
  GenerationCell cell(1);
  cell.publish(generation(1));
  GenerationReader reader(cell, 0);
  reader.quiesce();
  GenerationReader::Pin pin = reader.pin();
  GenerationReader::Pin moved(std::move(pin));
  CHECK_FALSE(pin);
  CHECK(moved);
  auto third = reader.pin();
  third = std::move(moved);
  auto& same = third;
  third = std::move(same);
  CHECK(third);
  cell.publish(generation(2));
  reader.quiesce();
  CHECK(reader.alive() == 2);
  third.reset();
  third.reset();
  reader.quiesce();
  CHECK(reader.alive() == 1);
}

TEST_CASE("a core that skips generations holds none of those it never saw") {
  GenerationCell cell(1);
  cell.publish(generation(1));
  GenerationReader reader(cell, 0);
  reader.quiesce();
  auto pin = reader.pin();
  for (uint64_t epoch = 2; epoch <= 9; ++epoch) cell.publish(generation(epoch));
  reader.quiesce();
  CHECK(reader.alive() == 2);
  CHECK(cell.reclaim() == 9);  // one number tells the oldest: the rest waits
  pin.reset();
  reader.quiesce();
  CHECK(cell.reclaim() == 1);
}

TEST_CASE("cores pin and let go while control publishes and reclaims", "[threads]") {
  constexpr uint32_t kCores = 3;
  constexpr uint64_t kEpochs = 1500;
  GenerationCell cell(kCores);
  cell.publish(generation(1));
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> faults{0};
  std::vector<std::thread> cores;
  for (uint32_t core = 0; core < kCores; ++core) {
    cores.emplace_back([&, core] {
      GenerationReader reader(cell, core);
      base::Prng random(core + 1);
      std::deque<GenerationReader::Pin> pins;
      uint64_t seen = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        reader.quiesce();
        if (reader.current().epoch < seen) faults.fetch_add(1);
        seen = reader.current().epoch;
        if (pins.size() < 20 && random.chance(60)) pins.push_back(reader.pin());
        for (const auto& pin : pins) {
          if (!consistent(*pin)) faults.fetch_add(1);
        }
        if (!pins.empty() && random.chance(60)) {
          if (random.chance(50)) {
            pins.pop_front();
          } else {
            pins.pop_back();
          }
        }
        if (random.chance(5)) pins.clear();
      }
      pins.clear();
      reader.quiesce();
    });
  }
  size_t most = 0;
  for (uint64_t epoch = 2; epoch <= kEpochs; ++epoch) {
    cell.publish(generation(epoch));
    most = std::max(most, cell.reclaim());
    if (epoch % 8 == 0) std::this_thread::yield();
  }
  stop.store(true);
  for (std::thread& core : cores) core.join();
  CHECK(faults.load() == 0);
  CHECK(cell.reclaim() == 1);
  CHECK(cell.newest()->epoch == kEpochs);
  CHECK(most > 1);
}
