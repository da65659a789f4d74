#include <cerrno>
#include <set>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/error.h>

using weir::base::Errc;
using weir::base::Error;
using weir::base::Retry;
using weir::base::Side;

TEST_CASE("every error code has a name of its own") {
  std::set<std::string> names;
  for (uint16_t i = 0; i < static_cast<uint16_t>(Errc::kCount); ++i) {
    const auto name = std::string(to_string(static_cast<Errc>(i)));
    INFO("code " << i << " name '" << name << "'");
    CHECK_FALSE(name.empty());
    CHECK(name != "unknown");
    CHECK(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos);
    CHECK(names.insert(name).second);
  }
  REQUIRE(to_string(Errc::kCount) == "unknown");
  REQUIRE(to_string(static_cast<Errc>(9999)) == "unknown");
}

TEST_CASE("names match their codes at both ends and in the middle of the table") {
  // A name inserted or left out shifts everything behind it.
  CHECK(to_string(Errc::kOk) == "ok");
  CHECK(to_string(Errc::kTimedOut) == "timed_out");
  CHECK(to_string(Errc::kNoFiles) == "no_files");
  CHECK(to_string(Errc::kMalformed) == "malformed");
  CHECK(to_string(Errc::kIo) == "io");
}

TEST_CASE("errno becomes the code that decides what happens next, and is kept") {
  struct Row {
    int os;
    Errc code;
  };
  for (const Row row : {Row{ECONNRESET, Errc::kReset},
                        Row{EPIPE, Errc::kReset},
                        Row{ECONNABORTED, Errc::kReset},
                        Row{ECONNREFUSED, Errc::kRefused},
                        Row{EHOSTUNREACH, Errc::kUnreachable},
                        Row{ENETUNREACH, Errc::kUnreachable},
                        Row{EADDRNOTAVAIL, Errc::kUnreachable},
                        Row{ETIMEDOUT, Errc::kTimedOut},
                        Row{ECANCELED, Errc::kCancelled},
                        Row{EADDRINUSE, Errc::kAddressInUse},
                        Row{EACCES, Errc::kPermission},
                        Row{EPERM, Errc::kPermission},
                        Row{EMFILE, Errc::kNoFiles},
                        Row{ENFILE, Errc::kNoFiles},
                        Row{ENOMEM, Errc::kNoMemory},
                        Row{ENOBUFS, Errc::kNoBuffers},
                        Row{ENOENT, Errc::kNotFound},
                        Row{ENOSYS, Errc::kUnsupported},
                        Row{EOPNOTSUPP, Errc::kUnsupported},
                        Row{EIO, Errc::kIo},
                        Row{EXDEV, Errc::kIo}}) {
    INFO("errno " << row.os);
    const Error error = weir::base::from_errno(row.os);
    CHECK(error.code == row.code);
    CHECK(error.os == row.os);
    CHECK(error.side == Side::kInternal);
    CHECK(error.retry == Retry::kNever);
  }
}

TEST_CASE("side and retry are set on a copy") {
  const Error error{.code = Errc::kClosed, .os = 7};
  const Error placed = error.at(Side::kUpstream).with(Retry::kReusedOnly);
  CHECK(placed == Error{Errc::kClosed, Side::kUpstream, Retry::kReusedOnly, 7});
  CHECK(error == Error{Errc::kClosed, Side::kInternal, Retry::kNever, 7});
}
