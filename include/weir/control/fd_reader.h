// Reads a descriptor for ever through control's ring (signals, inotify) and hands over what came.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <span>

#include <weir/runtime/reactor.h>

namespace weir::control {

class FdReader {
 public:
  using OnBytes = std::function<void(std::span<const std::byte>)>;

  // Takes the descriptor. `on_bytes` is called while completions are reaped.
  FdReader(runtime::Reactor& reactor, int fd, OnBytes on_bytes);
  FdReader(const FdReader&) = delete;
  FdReader& operator=(const FdReader&) = delete;
  ~FdReader();  // stopped

  void stop() noexcept;
  [[nodiscard]] bool stopped() const noexcept { return !op_.in_flight(); }
  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  struct ReadOp : runtime::Op {
    explicit ReadOp(FdReader& owner) noexcept : Op(&FdReader::on_complete), reader(owner) {}
    FdReader& reader;
  };
  static void on_complete(runtime::Op& op, int32_t result, uint32_t flags) noexcept;
  void arm() noexcept;

  runtime::Reactor& reactor_;
  int fd_;
  OnBytes on_bytes_;
  bool stopping_ = false;
  alignas(8) std::array<std::byte, 4096> buffer_{};
  ReadOp op_;
};

}  // namespace weir::control
