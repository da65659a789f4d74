#include <algorithm>
#include <string>

#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/control/process.h>

using namespace weir::control;

TEST_CASE("an account by name: its user, its group or the one that is named") {
  const auto root = find_account("root", "");
  REQUIRE(root);
  CHECK(root->user == 0);
  CHECK(root->group == 0);
  const passwd* const nobody = getpwnam("nobody");
  if (nobody == nullptr) SKIP("no user nobody here");
  const uid_t user = nobody->pw_uid;
  const gid_t group = nobody->pw_gid;
  const auto plain = find_account("nobody", "");
  REQUIRE(plain);
  CHECK(plain->user == user);
  CHECK(plain->group == group);
  const auto mixed = find_account("nobody", "root");
  REQUIRE(mixed);
  CHECK(mixed->user == user);
  CHECK(mixed->group == 0);
}

TEST_CASE("a group alone leaves the user as it is") {
  const auto account = find_account("", "root");
  REQUIRE(account);
  CHECK(account->user == getuid());
  CHECK(account->group == 0);
}

TEST_CASE("names that do not exist are errors that say which") {
  const auto user = find_account("no-such-user-here", "");
  REQUIRE_FALSE(user);
  CHECK(user.error().find("no-such-user-here") != std::string::npos);
  const auto group = find_account("root", "no-such-group-here");
  REQUIRE_FALSE(group);
  CHECK(group.error().find("no-such-group-here") != std::string::npos);
}

TEST_CASE("the CPUs of the affinity mask, in order") {
  cpu_set_t set;
  CPU_ZERO(&set);
  REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
  const auto cpus = affinity_cpus();
  CHECK(cpus.size() == static_cast<size_t>(CPU_COUNT(&set)));
  CHECK(std::ranges::is_sorted(cpus));
  for (const uint32_t cpu : cpus) CHECK(CPU_ISSET(cpu, &set));
}

TEST_CASE("the limit of descriptors is raised to what is allowed, and reported") {
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit low = before;
  low.rlim_cur = std::min<rlim_t>(before.rlim_max, 256);
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  const uint64_t raised = raise_file_limit();
  rlimit after{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &after) == 0);
  CHECK(after.rlim_cur == raised);
  CHECK(raised >= before.rlim_max);
}
