// A generation: routes and settings that belong together, immutable once published. How it reaches
// the cores and how the old one is freed (docs/ARCHITECTURE.md, "The snapshot"): control publishes
// a pointer, each core picks it up between turns and pins it with plain integers while an exchange
// uses it, and tells by one own atomic which is the oldest it still needs. Control frees what every
// core has left behind; a core never frees a generation.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include <weir/net/tls/engine.h>
#include <weir/proxy/settings.h>
#include <weir/route/snapshot.h>

namespace weir::proxy {

// TLS as one core uses it.
struct CoreTls {
  std::shared_ptr<net::tls::ServerContext> server;  // null: no listener speaks TLS
  // By the place of the upstream in Snapshot::upstreams(); null: without TLS.
  std::vector<std::shared_ptr<net::tls::ClientContext>> upstreams;
};

struct Generation {
  uint64_t epoch = 0;  // 1, 2, ...
  std::unique_ptr<route::Snapshot> routes;
  Settings settings;
  std::vector<CoreTls> tls;  // by core; empty: no TLS anywhere
  // Which ticket keys its contexts were made with: those that a core was sent later are newer.
  uint64_t tickets_number = 0;
};

// Shared between control and all cores; outlives both.
class GenerationCell {
 public:
  explicit GenerationCell(uint32_t cores);

  // Control. `generation->epoch` must be greater than the last.
  void publish(std::unique_ptr<const Generation> generation);
  // Control. Frees generations that no core needs; returns how many remain (the newest included).
  size_t reclaim();
  // Control. Epoch of the oldest generation alive and a core that still needs it.
  struct Holder {
    uint64_t epoch = 0;
    uint32_t core = 0;
  };
  [[nodiscard]] Holder oldest() const noexcept;

  // Cores.
  [[nodiscard]] const Generation* newest() const noexcept {
    return newest_.load(std::memory_order_acquire);
  }
  void set_oldest(uint32_t core, uint64_t epoch) noexcept {
    slots_[core].oldest.store(epoch, std::memory_order_release);
  }

 private:
  struct alignas(64) Slot {
    std::atomic<uint64_t> oldest{0};  // 0: the core has not started
  };
  std::atomic<const Generation*> newest_{nullptr};
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<const Generation>> alive_;  // oldest first; the last is the newest
};

// One core's view.
class GenerationReader {
 public:
  struct Entry {
    const Generation* generation = nullptr;
    uint32_t pins = 0;
  };

  // Keeps one generation alive on this core. Copy-free; the thread's own.
  class Pin {
   public:
    Pin() noexcept = default;
    explicit Pin(Entry& entry) noexcept : entry_(&entry) { ++entry.pins; }
    Pin(Pin&& other) noexcept : entry_(std::exchange(other.entry_, nullptr)) {}
    Pin& operator=(Pin&& other) noexcept {
      if (this != &other) {
        reset();
        entry_ = std::exchange(other.entry_, nullptr);
      }
      return *this;
    }
    ~Pin() { reset(); }
    void reset() noexcept {
      if (Entry* entry = std::exchange(entry_, nullptr)) --entry->pins;
    }
    explicit operator bool() const noexcept { return entry_ != nullptr; }
    const Generation& operator*() const noexcept { return *entry_->generation; }
    const Generation* operator->() const noexcept { return entry_->generation; }

   private:
    Entry* entry_ = nullptr;
  };

  GenerationReader(GenerationCell& cell, uint32_t core) noexcept : cell_(cell), core_(core) {}

  // Between turns: picks up a new generation and lets go of old ones. True when there is a new one.
  bool quiesce();
  [[nodiscard]] Pin pin() noexcept { return Pin(entries_.back()); }
  [[nodiscard]] const Generation& current() const noexcept { return *entries_.back().generation; }
  [[nodiscard]] size_t alive() const noexcept { return entries_.size(); }

 private:
  GenerationCell& cell_;
  uint32_t core_;
  std::list<Entry> entries_;  // oldest first
};

}  // namespace weir::proxy
