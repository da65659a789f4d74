#include <weir/control/process.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace weir::control {

namespace {
// What nginx and HAProxy users set by hand; more than most kernels' fs.nr_open needs root anyway.
constexpr rlim_t kFilesWanted = 1'048'576;
}  // namespace

uint64_t raise_file_limit() noexcept {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  rlimit wanted = limit;
  wanted.rlim_cur = std::max(limit.rlim_max, kFilesWanted);
  wanted.rlim_max = std::max(limit.rlim_max, kFilesWanted);
  if (limit.rlim_max == RLIM_INFINITY || setrlimit(RLIMIT_NOFILE, &wanted) != 0) {
    wanted.rlim_cur = wanted.rlim_max = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &wanted);
  }
  getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

std::vector<uint32_t> affinity_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<uint32_t> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

std::expected<Account, std::string> find_account(const std::string& user,
                                                 const std::string& group) {
  Account account{.user = getuid(), .group = getgid()};
  if (!user.empty()) {
    const passwd* entry = getpwnam(user.c_str());
    if (entry == nullptr) return std::unexpected("there is no user \"" + user + "\"");
    account = {.user = entry->pw_uid, .group = entry->pw_gid};
  }
  if (!group.empty()) {
    const struct group* entry = getgrnam(group.c_str());
    if (entry == nullptr) return std::unexpected("there is no group \"" + group + "\"");
    account.group = entry->gr_gid;
  }
  return account;
}

std::expected<void, std::string> drop_privileges(const Account& account) {
  const auto failed = [](const char* call) {
    return std::unexpected(std::string(call) + ": " + std::strerror(errno));
  };
  if (setgroups(0, nullptr) != 0) return failed("setgroups");
  if (setresgid(account.group, account.group, account.group) != 0) return failed("setresgid");
  if (setresuid(account.user, account.user, account.user) != 0) return failed("setresuid");
  if (account.user != 0 && setuid(0) == 0) return std::unexpected("the user can become root again");
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return {};
}

}  // namespace weir::control
