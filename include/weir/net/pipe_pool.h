// Pipes through which bytes are spliced, kept for the next use. One pool a core; a pipe belongs to
// one relay at a time. Bounded: beyond it there is none, and bytes are copied instead.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <weir/net/transport.h>

namespace weir::net {

class PipePool {
 public:
  // Bytes that a pipe is asked to hold. Any user may have 1 MiB (/proc/sys/fs/pipe-max-size), but
  // all pipes of a user share 64 MiB (pipe-user-pages-soft).
  static constexpr int kWantedBytes = 256 * 1024;
  // With less, copying is cheaper.
  static constexpr int kLeastBytes = 64 * 1024;
  static constexpr size_t kKeptMax = 64;
  static constexpr size_t kUsedMax = 1024;

  struct Pipe {
    int read_fd = -1;
    int write_fd = -1;
    size_t capacity = 0;
  };

  // A pipe, given back when the lease dies; closed if there is something in it.
  class Lease {
   public:
    Lease() noexcept = default;
    Lease(PipePool& pool, const Pipe& pipe) noexcept : pool_(&pool), pipe_(pipe) {}
    Lease(Lease&& other) noexcept
        : filled(std::exchange(other.filled, 0)),
          pool_(std::exchange(other.pool_, nullptr)),
          pipe_(other.pipe_) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (pool_ != nullptr) pool_->give_back(pipe_, filled == 0);
    }
    explicit operator bool() const noexcept { return pool_ != nullptr; }
    const Pipe* operator->() const noexcept { return &pipe_; }
    size_t filled = 0;  // bytes that are in it now, kept by the user

   private:
    PipePool* pool_ = nullptr;
    Pipe pipe_;
  };

  PipePool() noexcept = default;
  PipePool(const PipePool&) = delete;
  PipePool& operator=(const PipePool&) = delete;
  ~PipePool();  // nothing leased

  // Empty when there are too many, or the system gives none.
  Lease take();
  [[nodiscard]] size_t used() const noexcept { return used_; }
  // Two descriptors each; at most kUsedMax.
  void set_limit(size_t pipes) noexcept { used_max_ = std::min(pipes, kUsedMax); }
  // Closes those that wait for their next use.
  void drop_kept() noexcept;

 private:
  void give_back(const Pipe& pipe, bool empty) noexcept;
  static void close(const Pipe& pipe) noexcept;

  std::vector<Pipe> kept_;
  size_t used_ = 0;
  size_t used_max_ = kUsedMax;
};

// Whether more may be spliced from there into the pipe. Records of kernel TLS only into an empty
// one: kernels before 6.12 may drop the rest of a record for which there is no room.
[[nodiscard]] inline bool pipe_takes(const Transport& from, const PipePool::Lease& pipe) noexcept {
  return from.secured() ? pipe.filled == 0 : pipe.filled < pipe->capacity;
}

}  // namespace weir::net
