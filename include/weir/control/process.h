// What the process asks of the system once: descriptors, CPUs, another user. Control thread, before
// or while starting.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include <sys/types.h>

namespace weir::control {

// Raises RLIMIT_NOFILE as far as allowed; returns the soft limit then in force.
uint64_t raise_file_limit() noexcept;

// The CPUs of the process's affinity mask, in order.
std::vector<uint32_t> affinity_cpus();

struct Account {
  uid_t user = 0;
  gid_t group = 0;
};
// `group` may be empty: the user's own. The error is a sentence.
std::expected<Account, std::string> find_account(const std::string& user, const std::string& group);
// For good: supplementary groups, group, user; then proves that there is no way back.
std::expected<void, std::string> drop_privileges(const Account& account);

}  // namespace weir::control
