// Pipes that are lent: used again, never with something in them, never more than there may be.
#include <weir/net/pipe_pool.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include "link.h"

using namespace weir::net;
using namespace weir::net::test;

namespace {

// The limit of open descriptors, put back at the end.
class DescriptorLimit {
 public:
  DescriptorLimit() { REQUIRE(getrlimit(RLIMIT_NOFILE, &before_) == 0); }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before_); }

  void set(rlim_t descriptors) const {
    const rlimit now{.rlim_cur = descriptors, .rlim_max = before_.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &now) == 0);
  }
  void raise(rlim_t descriptors) const {
    REQUIRE(before_.rlim_max >= descriptors);
    set(std::max(before_.rlim_cur, descriptors));
  }

 private:
  rlimit before_{};
};

// The lowest descriptor that is free: as a limit, nothing more can be opened.
rlim_t lowest_free() {
  const int fd = dup(STDIN_FILENO);
  REQUIRE(fd >= 0);
  close(fd);
  return static_cast<rlim_t>(fd);
}

int bytes_in(const PipePool::Lease& lease) {
  int count = -1;
  REQUIRE(ioctl(lease->read_fd, FIONREAD, &count) == 0);
  return count;
}

}  // namespace

TEST_CASE("a pipe of the pool is non-blocking, not inherited, and as large as it says") {
  PipePool pool;
  const PipePool::Lease lease = pool.take();
  REQUIRE(lease);
  CHECK(pool.used() == 1);
  CHECK(lease.filled == 0);
  for (const int fd : {lease->read_fd, lease->write_fd}) {
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  }
  CHECK(lease->capacity == static_cast<size_t>(fcntl(lease->write_fd, F_GETPIPE_SZ)));
  CHECK(lease->capacity >= PipePool::kLeastBytes);
  REQUIRE(write(lease->write_fd, "abc", 3) == 3);
  char back[8];
  CHECK(read(lease->read_fd, back, sizeof back) == 3);
  CHECK(std::string_view(back, 3) == "abc");
}

TEST_CASE("an empty pipe is used again, with its capacity, and opens no descriptor") {
  const size_t before = open_descriptors();
  {
    PipePool pool;
    PipePool::Pipe first;
    {
      const PipePool::Lease lease = pool.take();
      REQUIRE(lease);
      first = *lease.operator->();
    }
    CHECK(pool.used() == 0);
    CHECK(open_descriptors() == before + 2);
    const PipePool::Lease again = pool.take();
    REQUIRE(again);
    CHECK(again->read_fd == first.read_fd);
    CHECK(again->write_fd == first.write_fd);
    CHECK(again->capacity == first.capacity);
    CHECK(open_descriptors() == before + 2);
    const PipePool::Lease other = pool.take();
    REQUIRE(other);
    CHECK(other->read_fd != again->read_fd);
    CHECK(open_descriptors() == before + 4);
    CHECK(pool.used() == 2);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("a pipe with something in it is closed, and nobody else gets its bytes") {
  const size_t before = open_descriptors();
  PipePool pool;
  {
    PipePool::Lease lease = pool.take();
    REQUIRE(lease);
    REQUIRE(write(lease->write_fd, "secret", 6) == 6);
    lease.filled = 6;
  }
  CHECK(pool.used() == 0);
  CHECK(open_descriptors() == before);
  const PipePool::Lease next = pool.take();
  REQUIRE(next);
  CHECK(bytes_in(next) == 0);
}

TEST_CASE("a lease that moves is given back once, and takes along what is in the pipe") {
  const size_t before = open_descriptors();
  PipePool pool;
  {
    PipePool::Lease first = pool.take();
    REQUIRE(first);
    REQUIRE(write(first->write_fd, "left", 4) == 4);
    first.filled = 4;
    const PipePool::Lease second = std::move(first);
    CHECK_FALSE(first);  // NOLINT(bugprone-use-after-move): what it is then is promised
    CHECK(first.filled == 0);
    REQUIRE(second);
    CHECK(second.filled == 4);
    CHECK(pool.used() == 1);
  }
  CHECK(pool.used() == 0);
  CHECK(open_descriptors() == before);  // closed: it was not empty
  {
    PipePool::Lease first = pool.take();
    const PipePool::Lease second = std::move(first);
    CHECK(pool.used() == 1);
  }
  CHECK(pool.used() == 0);
  CHECK(open_descriptors() == before + 2);  // kept, once
  const PipePool::Lease one = pool.take();
  const PipePool::Lease two = pool.take();
  CHECK(one->read_fd != two->read_fd);
}

TEST_CASE("no more pipes are lent than there may be, and few are kept") {
  const DescriptorLimit limit;
  limit.raise(2 * PipePool::kUsedMax + 256);
  const size_t before = open_descriptors();
  {
    PipePool pool;
    std::vector<PipePool::Lease> leases;
    leases.reserve(PipePool::kUsedMax);
    for (size_t i = 0; i < PipePool::kUsedMax; ++i) {
      leases.push_back(pool.take());
      REQUIRE(leases.back());
    }
    CHECK(pool.used() == PipePool::kUsedMax);
    CHECK(open_descriptors() == before + 2 * PipePool::kUsedMax);
    {
      const PipePool::Lease none = pool.take();
      CHECK_FALSE(none);
    }
    CHECK(pool.used() == PipePool::kUsedMax);
    leases.pop_back();
    CHECK(pool.take());  // one is free again
    leases.clear();
    CHECK(pool.used() == 0);
    CHECK(open_descriptors() == before + 2 * PipePool::kKeptMax);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("the limit may be set lower, also below what is lent") {
  const size_t before = open_descriptors();
  PipePool pool;
  pool.set_limit(2);
  {
    const PipePool::Lease one = pool.take();
    const PipePool::Lease two = pool.take();
    const PipePool::Lease none = pool.take();
    CHECK(one);
    CHECK(two);
    CHECK_FALSE(none);
    pool.set_limit(1);
    CHECK(pool.used() == 2);
  }
  {
    const PipePool::Lease one = pool.take();
    const PipePool::Lease none = pool.take();
    CHECK(one);
    CHECK_FALSE(none);
  }
  pool.set_limit(0);
  CHECK_FALSE(pool.take());
  pool.set_limit(PipePool::kUsedMax + 1);
  CHECK(pool.take());
  CHECK(open_descriptors() == before + 4);
}

TEST_CASE("what is kept can be closed, and what is lent goes on") {
  const size_t before = open_descriptors();
  PipePool pool;
  const PipePool::Lease lent = pool.take();
  REQUIRE(lent);
  {
    const PipePool::Lease one = pool.take();
    const PipePool::Lease two = pool.take();
  }
  CHECK(open_descriptors() == before + 6);
  pool.drop_kept();
  CHECK(open_descriptors() == before + 2);
  REQUIRE(write(lent->write_fd, "x", 1) == 1);
  CHECK(bytes_in(lent) == 1);
  char byte;
  CHECK(read(lent->read_fd, &byte, 1) == 1);
  CHECK(pool.take());
  CHECK(open_descriptors() == before + 4);
}

// All pipes of an ordinary user share /proc/sys/fs/pipe-user-pages-soft; past that the kernel makes
// tiny ones.
TEST_CASE("a pipe that is too small to be worth it is not lent") {
  const DescriptorLimit limit;
  limit.raise(2 * PipePool::kUsedMax + 256);
  const size_t before = open_descriptors();
  const bool root = geteuid() == 0;
  constexpr uid_t kNobody = 65534;
  PipePool pool;
  std::vector<PipePool::Lease> leases;
  leases.reserve(PipePool::kUsedMax);
  if (root) REQUIRE(setresuid(kNobody, kNobody, 0) == 0);
  while (leases.size() < PipePool::kUsedMax) {
    leases.push_back(pool.take());
    if (leases.back()) continue;
    leases.pop_back();
    break;
  }
  if (root) REQUIRE(setresuid(0, 0, 0) == 0);
  prctl(PR_SET_DUMPABLE, 1);  // changing the user takes it away, and LeakSanitizer needs it
  CHECK(pool.used() == leases.size());
  CHECK(open_descriptors() == before + 2 * leases.size());
  for (const PipePool::Lease& lease : leases) CHECK(lease->capacity >= PipePool::kLeastBytes);
  std::ifstream setting("/proc/sys/fs/pipe-user-pages-soft");
  size_t pages = 0;
  if (setting >> pages && pages == 16384) {  // the kernel's default
    CHECK(leases.size() <= 16384 * 4096 / PipePool::kLeastBytes);
  }
  leases.clear();
}

TEST_CASE("without descriptors there is an empty lease, and what was kept still serves") {
  const size_t before = open_descriptors();
  PipePool pool;
  {
    const DescriptorLimit limit;
    const rlim_t free = lowest_free();
    // No descriptor, and one where a pipe needs two.
    for (const rlim_t descriptors : {free, free + 1}) {
      limit.set(descriptors);
      const PipePool::Lease none = pool.take();
      CHECK_FALSE(none);
      CHECK(pool.used() == 0);
    }
  }
  CHECK(open_descriptors() == before);
  {
    REQUIRE(pool.take());
  }
  const DescriptorLimit limit;
  limit.set(3);
  const PipePool::Lease kept = pool.take();
  CHECK(kept);
  const PipePool::Lease none = pool.take();
  CHECK_FALSE(none);
  CHECK(pool.used() == 1);
}
