// weir cert self-signed: a certificate and its key as files, and the settings that use them.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <expected>
#include <filesystem>
#include <span>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/control/supervisor.h>
#include <weir/net/tls/self_signed.h>
#include <weir/runtime/sys.h>

#include "cli.h"

namespace weir::app {

namespace fs = std::filesystem;

namespace {

int fail(const std::string& what) {
  std::fprintf(stderr, "weir: %s\n", what.c_str());
  return control::kExitFailed;
}

bool write_all(int fd, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(wrote));
  }
  return true;
}

// Whole or not at all, under another name first: a weir that runs may be watching. Never opened to
// more than `mode`, not even for a moment.
std::expected<void, std::string> write_file(const fs::path& path, std::span<const uint8_t> bytes,
                                            mode_t mode, bool replace) {
  std::string fresh = path.string() + ".XXXXXX";
  const auto failed = [&](const char* verb) {
    return std::unexpected("cannot " + std::string(verb) + " " + path.string() + ": " +
                           std::strerror(errno));
  };
  const int fd = ::mkostemp(fresh.data(), O_CLOEXEC);  // 0600
  if (fd < 0) return failed("make");
  const bool good = write_all(fd, bytes) && ::fchmod(fd, mode) == 0 && ::fsync(fd) == 0;
  auto result = good ? std::expected<void, std::string>() : failed("write");
  ::close(fd);
  // link(2) refuses to replace what is there.
  if (good && replace && ::rename(fresh.c_str(), path.c_str()) != 0) result = failed("replace");
  if (good && !replace && ::link(fresh.c_str(), path.c_str()) != 0) {
    const bool there = errno == EEXIST;
    result = failed("make");
    if (there) result = std::unexpected(result.error() + " (--force replaces it)");
  }
  if (!result || !replace) ::unlink(fresh.c_str());
  return result;
}

std::string file_name(const std::string& host) {
  std::string name = host.starts_with("*.") ? "wildcard" + host.substr(1) : host;
  std::ranges::replace(name, ':', '-');
  return name;
}

// As a basic string of TOML.
std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04X", unsigned{byte});
      result += code;
      continue;
    }
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

std::string joined(const std::vector<std::string>& hosts) {
  std::string text;
  for (const std::string& host : hosts) text.append(text.empty() ? "" : ", ").append(host);
  return text;
}

// As a client would write it into a URL.
std::string url_host(const std::string& host) {
  if (host.starts_with("*.")) return "www" + host.substr(1);
  return host.find(':') != std::string::npos ? "[" + host + "]" : host;
}

std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

int command_self_signed(const Arguments& arguments) {
  constexpr int64_t kMicrosecondsPerSecond = 1'000'000;
  net::tls::SelfSignedRequest request;
  request.hosts = arguments.hosts;
  if (request.hosts.empty()) request.hosts = {"localhost", "127.0.0.1", "::1"};
  request.days = arguments.days;
  request.rsa = arguments.rsa;
  request.now_s = runtime::sys::realtime_us() / kMicrosecondsPerSecond;
  auto made = net::tls::make_self_signed(request);
  if (!made) return fail(made.error());

  std::error_code error;
  fs::create_directories(arguments.folder, error);
  if (error) return fail("cannot make " + arguments.folder + ": " + error.message());
  const fs::path folder = fs::canonical(arguments.folder, error);
  if (error) return fail("cannot use " + arguments.folder + ": " + error.message());
  const std::string name = file_name(request.hosts.front());
  const fs::path certificate = folder / (name + ".crt");
  const fs::path key = folder / (name + ".key");
  if (!arguments.force && fs::exists(certificate, error)) {
    return fail(certificate.string() + " is there already (--force replaces it)");
  }
  if (auto done = write_file(key, made->key_pem.bytes(), 0600, arguments.force); !done) {
    return fail(done.error());
  }
  if (auto done = write_file(certificate, bytes_of(made->certificate_pem), 0644, arguments.force);
      !done) {
    if (!arguments.force) ::unlink(key.c_str());
    return fail(done.error());
  }
  std::fprintf(stderr,
               "weir: made %s and %s, for %s, valid for %u days. Only clients that are told to "
               "trust it do:\n  curl --cacert %s https://%s:8443/\n",
               certificate.c_str(), key.c_str(), joined(request.hosts).c_str(), request.days,
               certificate.c_str(), url_host(request.hosts.front()).c_str());
  std::printf(
      "[[listener]]\naddress = \"0.0.0.0:8443\"\ntls = true\n\n"
      "[tls]\ncert_path = %s\nkey_path = %s\n",
      quoted(certificate).c_str(), quoted(key).c_str());
  return control::kExitEnded;
}

}  // namespace weir::app
