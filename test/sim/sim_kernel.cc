#include <sim/sim_kernel.h>

#include <cstdio>

#include <weir/base/check.h>
#include <weir/base/ip.h>

#include <sim/world.h>

namespace weir::sim {

namespace {

constexpr uint64_t kTurnsMax = 5'000'000;

Kernel* current_kernel = nullptr;

base::SocketAddress parse(std::string_view text) {
  const auto address = base::SocketAddress::parse(text);
  WEIR_CHECK(address.has_value());  // the test's own address
  return *address;
}

}  // namespace

Kernel::Kernel(uint64_t seed, const Faults& faults) : world_(new World(seed, faults)) {
  current_kernel = this;
}

Kernel::~Kernel() { current_kernel = nullptr; }

Kernel& Kernel::current() {
  WEIR_CHECK(current_kernel != nullptr);
  return *current_kernel;
}

uint64_t Kernel::seed() const noexcept { return world_->seed; }
const Faults& Kernel::faults() const noexcept { return world_->faults; }
const FaultCounts& Kernel::fault_counts() const noexcept { return world_->counts; }
uint64_t Kernel::now_ns() const noexcept { return world_->now; }
uint64_t Kernel::below(uint64_t bound) noexcept { return world_->rng.below(bound); }
bool Kernel::chance(uint32_t percent) noexcept { return world_->rng.chance(percent); }
uint64_t Kernel::digest() const noexcept { return world_->digest(); }
uint64_t Kernel::completions() const noexcept { return world_->completions; }
size_t Kernel::open_files() const noexcept { return world_->open_files(); }
size_t Kernel::peers() const noexcept { return world_->peers.size(); }
Peer& Kernel::peer(size_t index) noexcept { return *world_->peers[index]; }
void Kernel::print_trace() const { world_->print_trace("asked for"); }
std::string Kernel::finish() { return world_->leftovers(); }

void Kernel::expect_all_buffers_back() noexcept { world_->all_buffers_back = true; }

void Kernel::schedule(uint64_t delay_ns, std::function<void()> action) {
  world_->at(world_->now + delay_ns, std::move(action));
}

Peer& Kernel::connect_client(std::string_view to, std::string_view from) {
  const base::SocketAddress source = from.empty() ? base::SocketAddress() : parse(from);
  return world_->connect_client(parse(to), source);
}

void Kernel::listen_origin(std::string_view address, std::function<void(Peer&)> on_connection) {
  stop_origin(address);
  world_->origins.push_back(Origin{parse(address), std::move(on_connection)});
}

void Kernel::stop_origin(std::string_view address) {
  const base::SocketAddress which = parse(address);
  std::erase_if(world_->origins, [&](const Origin& origin) { return origin.address == which; });
}

void Kernel::black_hole(std::string_view address) { world_->black_holes.push_back(parse(address)); }

void Kernel::calm() noexcept {
  world_->calmed = true;
  world_->faults = Faults::none();
}

bool Kernel::run_until(const std::function<void()>& turn, const std::function<bool()>& done,
                       uint64_t limit_ns) {
  World& world = *world_;
  world.run_done = done;
  world.run_limit = world.now + limit_ns;
  world.stuck = false;
  const char* failure = nullptr;
  uint64_t turns = 0;
  while (!done()) {
    if (world.now >= world.run_limit) failure = "it takes too long (virtual time)";
    if (world.stuck) failure = "all cores wait and nothing will ever happen";
    if (++turns > kTurnsMax) failure = "the cores spin: turns without end in no time";
    if (failure != nullptr) break;
    turn();
  }
  world.run_done = nullptr;
  world.run_limit = UINT64_MAX;
  if (failure == nullptr) return true;
  world.print_trace(failure);
  return false;
}

}  // namespace weir::sim
