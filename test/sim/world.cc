#include <sim/world.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include <unistd.h>

#include <weir/base/check.h>
#include <weir/base/hash.h>

#include <sim/ring_sim.h>

// Present only in sanitizer builds.
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace weir::sim {

namespace {

constexpr uint64_t kStart = 1'000'000'000'000;  // of the monotonic clock
constexpr int kFirstFd = 1'000'000;             // apart from the process's real descriptors

World* current_world = nullptr;
struct sigaction previous_abort;

void on_death() {
  if (current_world != nullptr) current_world->print_trace("the process dies");
}

// A failed check of the program under test names no seed; this does.
void on_abort(int signal_number) {
  on_death();
  current_world = nullptr;
  sigaction(SIGABRT, &previous_abort, nullptr);
  raise(signal_number);
}

}  // namespace

World::World(uint64_t run_seed, const Faults& run_faults)
    : now(kStart),
      seed(run_seed),
      faults(run_faults),
      rng(run_seed),
      random_bytes(run_seed ^ 0x72616e64ULL) {
  WEIR_CHECK(current_world == nullptr);
  current_world = this;
  tell_all_ = std::getenv("WEIR_SIM_TRACE") != nullptr;
  struct sigaction action{};
  action.sa_handler = on_abort;
  sigaction(SIGABRT, &action, &previous_abort);
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(on_death);
}

World::~World() {
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(nullptr);
  sigaction(SIGABRT, &previous_abort, nullptr);
  current_world = nullptr;
}

World& World::current() {
  WEIR_CHECK(current_world != nullptr);  // no sim::Kernel exists
  return *current_world;
}

void World::at(uint64_t when, std::function<void()> action) {
  events_.push(Event{when < now ? now : when, next_order_++, std::move(action)});
}

uint64_t World::next_event() const noexcept {
  return events_.empty() ? UINT64_MAX : events_.top().when;
}

void World::run_due() {
  while (!events_.empty() && events_.top().when <= now) {
    const std::function<void()> action = events_.top().action;
    events_.pop();
    action();
  }
}

void World::advance(uint64_t when) {
  const uint64_t next = next_event();
  if (next < when) when = next;
  if (when > now) now = when;
  run_due();
}

void World::trace(const char* what, int64_t a, int64_t b, int64_t c) noexcept {
  trace_[traced_++ % trace_.size()] = TraceEntry{now, what, a, b, c};
  if (tell_all_) print_entry(trace_[(traced_ - 1) % trace_.size()]);
  digest_ = base::hash_bytes(what, digest_ ^ now);
  digest_ = base::mix(digest_ ^ static_cast<uint64_t>(a),
                      0xe7037ed1a0b428dbULL ^ static_cast<uint64_t>(b)) ^
            static_cast<uint64_t>(c);
}

void World::print_entry(const TraceEntry& entry) {
  std::fprintf(stderr, "  %12.6f ms  %-28s %lld %lld %lld\n",
               static_cast<double>(entry.when - kStart) / 1e6, entry.what,
               static_cast<long long>(entry.a), static_cast<long long>(entry.b),
               static_cast<long long>(entry.c));
}

void World::print_trace(const char* reason) const noexcept {
  constexpr uint64_t kShown = 80;
  std::fprintf(stderr, "\n--- simulated kernel, seed %llu: %s; the last events:\n",
               static_cast<unsigned long long>(seed), reason);
  const uint64_t first = traced_ > kShown ? traced_ - kShown : 0;
  for (uint64_t i = first; i < traced_; ++i) {
    print_entry(trace_[i % trace_.size()]);
  }
  std::fprintf(stderr, "--- simulated kernel, seed %llu, at %.6f ms: %s\n",
               static_cast<unsigned long long>(seed), static_cast<double>(now - kStart) / 1e6,
               reason);
}

void World::die(const char* what, int64_t a, int64_t b) const noexcept {
  std::fprintf(stderr, "simulated kernel: %s (%lld, %lld)\n", what, static_cast<long long>(a),
               static_cast<long long>(b));
  std::abort();  // on_abort prints the seed and the trace
}

bool World::strike(uint8_t rate, uint64_t& count) noexcept {
  if (rate == 0 || !rng.chance(rate)) return false;
  ++count;
  return true;
}

File& World::open_file(FileKind kind) {
  files_.push_back(std::make_unique<File>());
  File& created = *files_.back();
  created.kind = kind;
  created.fd = kFirstFd + static_cast<int>(files_.size()) - 1;
  ++open_files_;
  return created;
}

File* World::find_file(int fd) noexcept {
  const auto index = static_cast<size_t>(fd - kFirstFd);
  return fd >= kFirstFd && index < files_.size() ? files_[index].get() : nullptr;
}

File& World::file(int fd, const char* who) {
  File* found = find_file(fd);
  if (found == nullptr) {
    trace(who, fd);
    die("a call or operation names a descriptor that is not open (its kind is the last event)", fd);
  }
  return *found;
}

int World::close_file(int fd, const char* who) {
  File& closing = file(fd, who);
  trace(who, fd);
  if (closing.ops != 0) {
    die("close of a descriptor with operations in flight (fd, operations)", fd, closing.ops);
  }
  for (const RingSim* ring : rings) {
    if (ring->names_unsubmitted(fd)) {
      die("close of a descriptor that a prepared, not yet submitted operation names", fd);
    }
  }
  if (closing.kind != FileKind::kEvent) close_socket(closing);
  bound_.erase(fd);
  listeners_.erase(closing.order);
  files_[static_cast<size_t>(fd - kFirstFd)].reset();
  --open_files_;
  return 0;
}

std::string World::leftovers() const {
  std::string text;
  const auto add = [&](const std::string& line) {
    text += "seed " + std::to_string(seed) + ": " + line + "\n";
  };
  for (const std::string& line : complaints) add(line);
  for (const auto& left : files_) {
    if (left == nullptr) continue;
    static constexpr const char* kNames[] = {"socket", "listener", "eventfd"};
    add("descriptor " + std::to_string(left->fd) + " (" + kNames[static_cast<size_t>(left->kind)] +
        ") is still open");
  }
  for (const RingSim* ring : rings) ring->describe_leftovers(add);
  return text;
}

}  // namespace weir::sim
