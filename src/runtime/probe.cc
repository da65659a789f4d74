#include <weir/runtime/probe.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <string_view>
#include <type_traits>

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <weir/runtime/buffer_pool.h>

namespace weir::runtime {

namespace {

struct Completion {
  uint64_t user_data = 0;
  int32_t result = 0;
  uint32_t flags = 0;
};

constexpr uint64_t kStepNs = 200'000'000;

long read_number(const char* path, long missing) {
  std::ifstream file(path);
  long value = missing;
  if (!(file >> value)) return missing;
  return value;
}

std::string kernel_release() {
  utsname names{};
  uname(&names);
  return names.release;
}

void explain_refusal(int error, ProbeReport& report) {
  const std::string kernel = kernel_release();
  switch (error) {
    case ENOSYS:
      report.cause = "io_uring_setup: this kernel (" + kernel + ") has no io_uring";
      report.cure = "run weir on Linux 6.1 or newer with CONFIG_IO_URING";
      return;
    case EPERM: {
      const long disabled = read_number("/proc/sys/kernel/io_uring_disabled", 0);
      if (disabled == 2) {
        report.cause = "io_uring_setup: switched off for everyone (kernel.io_uring_disabled = 2)";
        report.cure = "sysctl -w kernel.io_uring_disabled=0";
      } else if (disabled == 1) {
        report.cause =
            "io_uring_setup: only for privileged processes (kernel.io_uring_disabled = 1)";
        report.cure =
            "set kernel.io_uring_group to a group of weir's, or kernel.io_uring_disabled=0";
      } else {
        report.cause =
            "io_uring_setup: not permitted, most likely by a seccomp filter "
            "(Docker and containerd have one by default)";
        report.cure =
            "run with config/weir-seccomp.json: docker run --security-opt "
            "seccomp=weir-seccomp.json (docs/OPERATIONS.md)";
      }
      return;
    }
    case ENOMEM: {
      rlimit limit{};
      getrlimit(RLIMIT_MEMLOCK, &limit);
      report.cause = "io_uring_setup: out of locked memory (RLIMIT_MEMLOCK is " +
                     std::to_string(limit.rlim_cur / 1024) + " KiB)";
      report.cure = "raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity in the systemd unit";
      return;
    }
    case EINVAL:
      report.cause = "io_uring_setup: this kernel (" + kernel + ") lacks DEFER_TASKRUN";
      report.cure = "run weir on Linux 6.1 or newer";
      return;
    case EMFILE:
    case ENFILE:
      report.cause = "io_uring: no file descriptors left";
      report.cure = "raise RLIMIT_NOFILE (ulimit -n)";
      return;
    default:
      report.cause = std::string("io_uring_setup: ") + std::strerror(error);
      report.cure = "see docs/OPERATIONS.md, io_uring";
  }
}

// The probe needs a pair of sockets; without one it would blame the kernel.
bool descriptors_left() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return false;
  ::close(pair[0]);
  ::close(pair[1]);
  return true;
}

class Probe {
 public:
  explicit Probe(Ring& ring) noexcept : ring_(ring) {}

  // Submits, then collects completions for a short while or until `enough` of them are there.
  std::vector<Completion> collect(size_t enough) {
    std::vector<Completion> all;
    for (int i = 0; i < 5 && all.size() < enough; ++i) {
      ring_.submit_and_wait(kStepNs);
      ring_.reap([&](uint64_t user_data, int32_t result, uint32_t flags) {
        all.push_back({user_data, result, flags});
      });
    }
    return all;
  }

  // The receive that streams rely on: two messages, the end, then nothing more is armed.
  bool multishot_receive(BufferPool& pool, std::string& trouble) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) return false;
    io_uring_sqe* entry = ring_.sqe();
    io_uring_prep_recv_multishot(entry, pair[0], nullptr, 0, 0);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = BufferPool::kGroup;
    entry->user_data = 1;
    bool good = true;
    for (const std::string_view text : {std::string_view("first"), std::string_view("second")}) {
      collect(0);
      good = good && write(pair[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
      const auto got = collect(1);
      good = good && got.size() == 1 && expect_data(pool, got[0], text, trouble);
    }
    shutdown(pair[1], SHUT_WR);
    const auto end = collect(1);
    if (good &&
        (end.size() != 1 || end[0].result != 0 || (end[0].flags & IORING_CQE_F_MORE) != 0)) {
      trouble = "no proper end";
      good = false;
    }
    for (const Completion& completion : end) give_back(pool, completion);
    cancel_all(pair[0], pool);
    ::close(pair[0]);
    ::close(pair[1]);
    return good;
  }

  bool poll_and_send() {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) return false;
    io_uring_sqe* entry = ring_.sqe();
    io_uring_prep_poll_add(entry, pair[0], POLLIN);
    entry->user_data = 2;
    entry = ring_.sqe();
    io_uring_prep_send(entry, pair[1], "x", 1, MSG_NOSIGNAL);
    entry->user_data = 3;
    const auto got = collect(2);
    const bool good = got.size() == 2 && std::ranges::all_of(got, [](const Completion& completion) {
                        return completion.result > 0;
                      });
    cancel_all(pair[0], std::nullopt);
    ::close(pair[0]);
    ::close(pair[1]);
    return good;
  }

 private:
  bool expect_data(BufferPool& pool, const Completion& completion, std::string_view text,
                   std::string& trouble) {
    if (completion.result != static_cast<int32_t>(text.size()) ||
        (completion.flags & IORING_CQE_F_BUFFER) == 0) {
      trouble = completion.result < 0 ? std::strerror(-completion.result) : "wrong length";
      return false;
    }
    const uint16_t id = pool.take_completed(completion.flags);
    const bool same = std::memcmp(pool.data(id), text.data(), text.size()) == 0;
    pool.release(id);
    if (!same) trouble = "wrong data";
    if (same && (completion.flags & IORING_CQE_F_MORE) == 0) trouble = "does not stay armed";
    return same && (completion.flags & IORING_CQE_F_MORE) != 0;
  }

  static void give_back(BufferPool& pool, const Completion& completion) {
    if ((completion.flags & IORING_CQE_F_BUFFER) != 0) {
      pool.release(pool.take_completed(completion.flags));
    }
  }

  template <class Pool>
  void cancel_all(int fd, Pool&& pool) {
    for (int i = 0; i < 10 && ring_.in_flight() > 0; ++i) {
      io_uring_sqe* entry = ring_.sqe();
      io_uring_prep_cancel_fd(entry, fd, IORING_ASYNC_CANCEL_ALL);
      entry->user_data = kDetached;
      for (const Completion& completion : collect(1)) {
        if constexpr (!std::is_same_v<std::decay_t<Pool>, std::nullopt_t>)
          give_back(pool, completion);
      }
    }
  }

  Ring& ring_;
};

}  // namespace

ProbeReport probe_kernel() {
  ProbeReport report;
  report.features.push_back("kernel " + kernel_release());
  auto ring = Ring::open({.entries = 64, .cq_entries = 256});
  if (!ring) {
    explain_refusal(ring.error().os, report);
    return report;
  }
  auto pool = BufferPool::open(**ring, {.count = 8, .size = 4096, .ring_entries = 8});
  if (!pool) {
    report.cause = "provided buffer rings are refused (" +
                   std::string(std::strerror(pool.error().os)) + ") on kernel " + kernel_release();
    report.cure = "run weir on Linux 6.1 or newer";
    return report;
  }
  if (!descriptors_left()) {
    explain_refusal(EMFILE, report);
    return report;
  }
  Probe probe(**ring);
  if (!probe.poll_and_send()) {
    report.cause =
        "io_uring poll and send do not work as they should on kernel " + kernel_release();
    report.cure = "update the kernel, and tell us (docs/OPERATIONS.md)";
    return report;
  }
  report.usable = true;
  report.features.emplace_back("io_uring with deferred task work");
  report.features.emplace_back("provided buffer rings");
  std::string trouble;
  if (probe.multishot_receive(**pool, trouble)) {
    report.features.emplace_back("multishot receive");
  } else {
    report.receive = ReceiveStrategy::kOneShot;
    report.remarks.push_back("multishot receive misbehaves on kernel " + kernel_release() + " (" +
                             trouble + "): using one-shot receives");
  }
  return report;
}

}  // namespace weir::runtime
