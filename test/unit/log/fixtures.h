// What the tests of the log room share: a directory that cleans up after itself, file contents, a
// clock that stands still, records with something in every field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

#include <stdlib.h>

#include <weir/log/access.h>
#include <weir/log/error_log.h>

namespace weir::log::test {

inline constexpr int64_t kNowUs = 1'795'169'472'123'456;  // 2026-11-20T10:11:12.123456Z
inline int64_t now_us = kNowUs;
inline int64_t test_clock() noexcept { return now_us; }

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "weir_log_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

inline AccessRecord full_record() {
  AccessRecord r;
  r.start_us = kNowUs;
  r.duration_us = 12'345;
  r.upstream_us = 11'002;
  r.upstream_connect_us = 250;
  r.upstream_header_us = 9'999;
  r.bytes_in = 321;
  r.bytes_out = 4'294'967'296;
  r.request_id_high = 0x0123456789abcdef;
  r.request_id_low = 0xfedcba9876543210;
  r.client = *base::IpAddress::parse("192.0.2.7");
  r.client_port = 40'001;
  r.listener = 3;
  r.status = 502;
  r.core = 1;
  r.tries = 2;
  r.reason = Reason::kUpstreamReset;
  r.upstream_reused = true;
  r.method = "GET";
  r.host = "www.example.com";
  r.path = "/api/v1?x=1&y=2";
  r.user_agent = "curl/8.5.0";
  r.referer = "https://example.com/";
  r.upstream = "api";
  r.upstream_address = "10.0.0.1:80";
  return r;
}

// The same with TLS, a client certificate and every string of its own.
inline AccessRecord tls_record() {
  AccessRecord r = full_record();
  r.tls_version = 0x0304;
  r.tls_resumed = true;
  r.tls_cipher = "TLS_AES_128_GCM_SHA256";
  r.tls_why = "no_kernel_tls";
  r.tls_client_subject = "CN=jo,O=Example";
  r.tls_client_fingerprint = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
  return r;
}

}  // namespace weir::log::test
