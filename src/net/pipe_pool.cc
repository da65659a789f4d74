#include <weir/net/pipe_pool.h>

#include <weir/base/check.h>
#include <weir/runtime/sys.h>

namespace weir::net {

PipePool::~PipePool() {
  WEIR_CHECK(used_ == 0);
  drop_kept();
}

PipePool::Lease PipePool::take() {
  if (used_ >= used_max_) return {};
  Pipe pipe;
  if (!kept_.empty()) {
    pipe = kept_.back();
    kept_.pop_back();
  } else {
    int ends[2];
    if (runtime::sys::pipe(ends) < 0) return {};
    pipe = {.read_fd = ends[0], .write_fd = ends[1]};
    const int capacity = runtime::sys::pipe_capacity(ends[1], kWantedBytes);
    if (capacity < kLeastBytes) {  // past pipe-user-pages-soft there is hardly any
      close(pipe);
      return {};
    }
    pipe.capacity = static_cast<size_t>(capacity);
  }
  ++used_;
  return {*this, pipe};
}

void PipePool::give_back(const Pipe& pipe, bool empty) noexcept {
  --used_;
  // What is left in a pipe belongs to nobody else.
  if (!empty || kept_.size() >= kKeptMax) return close(pipe);
  kept_.push_back(pipe);
}

void PipePool::drop_kept() noexcept {
  for (const Pipe& pipe : kept_) close(pipe);
  kept_.clear();
}

void PipePool::close(const Pipe& pipe) noexcept {
  runtime::sys::close(pipe.read_fd);
  runtime::sys::close(pipe.write_fd);
}

}  // namespace weir::net
