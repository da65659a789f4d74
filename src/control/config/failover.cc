// Retries and sticky sessions of an upstream.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/base/text.h>
#include <weir/upstream/balance_sticky.h>

#include "custom_settings.h"
#include "suggest.h"
#include "syntax.h"
#include "units.h"

namespace weir::control::config {

namespace {

constexpr std::string_view kReasons =
    "must be \"connect\", \"reset\", \"timeout\" or a status "
    "from 500 to 599";

// Takes one word of retry_on; a complaint or empty.
std::string take_reason(std::string_view word, RetrySettings& retry) {
  bool* const reason = word == "connect"   ? &retry.on_connect
                       : word == "reset"   ? &retry.on_reset
                       : word == "timeout" ? &retry.on_timeout
                                           : nullptr;
  if (reason != nullptr) {
    return std::exchange(*reason, true) ? "is given twice" : std::string();
  }
  const auto number = base::parse_decimal(word);
  if (word.size() != 3 || !number || *number < 500 || *number > 599) {
    return std::string(kReasons) + ", not " + quoted(word);
  }
  const auto status = static_cast<uint16_t>(*number);
  const auto place = std::ranges::lower_bound(retry.on_status, status);
  if (place != retry.on_status.end() && *place == status) return "is given twice";
  retry.on_status.insert(place, status);
  return {};
}

void read_reason(Reader& reader, const Node& node, const KeyPath& path, RetrySettings& retry) {
  std::string word;
  if (node.kind() == Kind::kInteger) {
    word = std::to_string(node.integer());
  } else if (node.kind() == Kind::kString) {
    const auto text = reader.text(node, path);
    if (!text) return;
    word = *text;
  } else {
    reader.error(node.place(), path, std::string(kReasons));
    return;
  }
  if (auto complaint = take_reason(word, retry); !complaint.empty()) {
    reader.error(node.place(), path, std::move(complaint));
  }
}

constexpr size_t kKeyBytesMax = 4096;

// Empty, with `complaint` set, when there is no such key.
std::string read_key(const std::string& path, std::string& complaint) {
  const auto failed = [&complaint](int code) {
    std::array<char, 256> buffer{};
    complaint = "cannot be read: ";
    complaint += strerror_r(code, buffer.data(), buffer.size());
    return std::string();
  };
  // Not to wait for the other end of a pipe.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return failed(errno);
  struct stat status{};
  if (::fstat(fd, &status) == 0 && !S_ISREG(status.st_mode)) {
    ::close(fd);
    complaint = "is not a file";
    return {};
  }
  std::string key(kKeyBytesMax + 1, '\0');
  size_t size = 0;
  ssize_t got = 0;
  while (size < key.size()) {
    got = ::read(fd, key.data() + size, key.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    size += static_cast<size_t>(got);
  }
  const int code = got < 0 ? errno : 0;
  ::close(fd);
  if (code != 0) return failed(code);
  key.resize(size);
  if (size >= upstream::StickySigner::kKeyBytesMin && size <= kKeyBytesMax) return key;
  complaint = "must hold " + std::to_string(upstream::StickySigner::kKeyBytesMin) + " to " +
              std::to_string(kKeyBytesMax) + " bytes, not " +
              (size > kKeyBytesMax ? "more" : std::to_string(size));
  return {};
}

void check_cookie(Reader& reader, const KeyPath& path, const Place& place,
                  const StickySettings& sticky) {
  const auto complain = [&](std::string_view key, std::string message) {
    const auto given = reader.given(path, key);
    reader.error(given.value_or(place), KeyPath{.parent = &path, .key = key}, std::move(message));
  };
  if (sticky.same_site == "None" && !sticky.secure) {
    complain("same_site", "\"None\" goes with secure = true only: browsers refuse it otherwise");
  }
  const std::string name = base::lowercase(sticky.cookie);
  const bool host = name.starts_with("__host-");
  if ((host || name.starts_with("__secure-")) && !sticky.secure) {
    complain("cookie", "has a prefix that goes with secure = true only");
  }
  if (host && sticky.path != "/") {
    complain("cookie", "has a prefix that goes with path = \"/\" only");
  }
}

}  // namespace

std::string_view check_cookie_name(const ScalarValue& value) {
  return is_token(value.text) ? "" : "must be letters, digits and marks without spaces";
}

std::string_view check_cookie_path(const ScalarValue& value) {
  const bool good = value.text.starts_with('/') && std::ranges::all_of(value.text, [](char c) {
                      return c > 0x20 && c < 0x7f && c != ';';
                    });
  return good ? "" : "must begin with \"/\" and be of visible ASCII characters without \";\"";
}

std::string_view check_same_site(const ScalarValue& value) {
  return value.text.empty() || has_word("Lax Strict None", value.text)
             ? ""
             : "must be \"Lax\", \"Strict\", \"None\" or empty";
}

void read_retry_on(Reader& reader, const TableEntry& entry, void* object) {
  const Node& node = entry.member.value;
  const size_t errors_before = reader.error_count();
  RetrySettings read;
  read.on_connect = read.on_reset = read.on_timeout = false;
  if (node.kind() != Kind::kList) {
    read_reason(reader, node, entry.path, read);
  } else if (node.size() == 0) {
    reader.error(node.place(), entry.path, "must name something; without retries: retries = 0");
  } else {
    for (size_t i = 0; i < node.size(); ++i) {
      read_reason(reader, node.item(i),
                  KeyPath{.parent = &entry.path, .index = static_cast<int64_t>(i)}, read);
    }
  }
  if (reader.error_count() != errors_before) return;
  RetrySettings& retry = static_cast<UpstreamSettings*>(object)->retry;
  retry.on_connect = read.on_connect;
  retry.on_reset = read.on_reset;
  retry.on_timeout = read.on_timeout;
  retry.on_status = std::move(read.on_status);
}

void check_retries(Reader& reader, const KeyPath& path, const UpstreamSettings& settings) {
  const RetrySettings& retry = settings.retry;
  const auto zero = Milliseconds::zero();
  const auto warn = [&](std::initializer_list<std::string_view> keys, std::string message) {
    const auto given = reader.given(path, keys);
    if (!given) return;
    reader.warn(given->place, KeyPath{.parent = &path, .key = given->key}, std::move(message));
  };
  if (retry.total_timeout != zero && retry.try_timeout > retry.total_timeout) {
    warn({"try_timeout", "total_timeout"},
         "try_timeout (" + format_duration(retry.try_timeout.count()) +
             ") is more than total_timeout (" + format_duration(retry.total_timeout.count()) +
             "), which ends all tries");
  }
  const Milliseconds patience = retry.try_timeout != zero
                                    ? std::min(retry.try_timeout, settings.response_timeout)
                                    : settings.response_timeout;
  if (retry.hedge_after != zero && retry.hedge_after >= patience) {
    warn({"hedge_after", "try_timeout", "response_timeout"},
         "hedge_after (" + format_duration(retry.hedge_after.count()) +
             ") is not less than the time that a try has (" + format_duration(patience.count()) +
             "): no request is ever hedged");
  }
}

void read_sticky(Reader& reader, const TableEntry& entry, void* object) {
  StickySettings& sticky = static_cast<UpstreamSettings*>(object)->sticky;
  const Node& table = entry.member.value;
  if (!reader.is_table(table, entry.path)) return;
  sticky.enabled = true;
  reader.table(table, section("sticky"), &sticky, entry.path);
  check_cookie(reader, entry.path, table.place(), sticky);
  if (sticky.key_file.empty()) return;
  std::string complaint;
  sticky.key = read_key(sticky.key_file, complaint);
  if (complaint.empty()) return;
  reader.error(reader.given(entry.path, "key_file").value_or(table.place()),
               KeyPath{.parent = &entry.path, .key = "key_file"},
               quoted(sticky.key_file) + " " + complaint);
}

}  // namespace weir::control::config
