// The routing snapshot: everything a core needs to choose a route, immutable once built. Built by
// control on its thread, then read by every core without synchronisation (the owner, server's
// snapshot cell, keeps it alive while a pin is held). It must never change after it is built, do
// I/O, or hold per-core state.
//
// Which route a request gets:
//   1. Hosts are tried in this order: the exact host; every fitting `*.suffix`, longest suffix
//      first; the routes for any host. `*.example.com` stands for one or more labels, so it fits
//      a.example.com and a.b.example.com, never example.com. A trailing dot is ignored.
//   2. Within a host, routes with that exact path come first, then prefixes, longest first. A
//      prefix fits at segment boundaries only: /api fits /api, /api/ and /api/x, never /apix.
//   3. Within a path, routes with more conditions come first; at the same number, those with more
//      exact-value conditions, then those with more prefix-value conditions, then the one written
//      first. The method list counts as one condition, the source list as one, every header and
//      every query condition as one.
//   4. The first route in that order whose conditions all hold is taken. A route whose conditions
//      do not hold is passed over: the search goes on to shorter prefixes, then to the next host.
// Two routes with the same host, path and conditions are a build error, since the second could
// never be taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <weir/route/spec.h>

namespace weir::route {

inline constexpr uint32_t kNoUpstream = UINT32_MAX;
inline constexpr size_t kRoutesMax = 1'000'000;
inline constexpr size_t kEntriesMax = 4'000'000;  // sum over routes of their hosts
inline constexpr size_t kRoutePathBytesMax = 8192;
// Routes that share host and path are told apart by trying their conditions one after the other.
// This bounds that work per path.
inline constexpr size_t kRoutesPerPathMax = 1000;

enum class ActionKind : uint8_t { kProxy, kRedirect, kRespond, kFile, kConnect };

struct Condition;  // src/route/conditions.h

// A response header; views into Respond::field_lines.
struct ResponseField {
  std::string_view name;
  std::string_view value;
};

struct Respond {
  std::string_view field_lines;  // "name: value\r\n" for each header, ready to be sent by HTTP/1
  std::span<const ResponseField> headers;
  std::string_view body;
};

struct LocationPiece {
  enum class Kind : uint8_t { kLiteral, kScheme, kHost, kPath, kQuery, kUri };
  Kind kind = Kind::kLiteral;
  std::string_view text;  // of kLiteral
};

struct Redirect {
  std::span<const LocationPiece> location;  // expand_location in match.h turns it into text
};

struct ErrorPage {
  uint16_t status = 0;
  std::string_view path;
};

// As FileAction.
struct FileRoute {
  std::string_view root;
  std::span<const std::string_view> index;
  std::string_view fallback;
  std::span<const ErrorPage> error_pages;
  std::string_view cache_control;
  uint32_t expires_s = 0;
  FileLinks links = FileLinks::kBelowRoot;
  bool listing = false;
  bool hidden = false;
  bool redirect_slash = false;
  bool precompressed = true;
  bool in_memory = false;
};

// As ConnectAction.
struct ConnectRoute {
  struct Target {
    std::string_view authority;
    uint32_t upstream = 0;
  };
  std::span<const Target> targets;
};

// One route, ready for use. Views point into the snapshot and live as long as it does.
struct Route {
  ActionKind kind = ActionKind::kProxy;
  bool exact = false;
  bool has_target = false;          // target_path replaces `path` (kProxy)
  uint16_t status = 0;              // kRedirect, kRespond
  uint32_t upstream = kNoUpstream;  // kProxy: index, see Snapshot::upstream
  uint32_t index = 0;               // position in the file; dense, for per-route counters
  uint64_t max_body_bytes = UINT64_MAX;
  std::string_view path;         // without trailing slash unless `exact`; "" is the root
  std::string_view target_path;  // likewise; use rewrite_path
  union {
    const Redirect* redirect;     // kRedirect
    const Respond* respond;       // kRespond
    const FileRoute* file;        // kFile
    const ConnectRoute* connect;  // kConnect
    const void* detail = nullptr;
  };
  std::span<const std::string_view> upgrades;  // kProxy: lower case
  const Condition* conditions = nullptr;
  uint32_t condition_count = 0;
  std::string_view name;
  std::string_view origin_text;
};

struct BuildError {
  std::string origin;   // RouteSpec::origin_text or "upstream NAME"
  std::string message;  // a sentence without the origin
};

struct BuildOptions {
  uint64_t epoch = 0;
};

struct Tables;  // src/route/tables.h

class Snapshot final {
 public:
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  [[nodiscard]] uint64_t epoch() const noexcept { return epoch_; }
  [[nodiscard]] std::span<const Route> routes() const noexcept;  // in file order
  [[nodiscard]] std::span<const UpstreamSpec> upstreams() const noexcept;
  [[nodiscard]] const UpstreamSpec& upstream(uint32_t index) const noexcept;  // CHECKs the range
  // Bytes of the tables, of the routes and of their text; without the UpstreamSpecs.
  [[nodiscard]] size_t memory_bytes() const noexcept;
  [[nodiscard]] const Tables& tables() const noexcept { return *tables_; }  // for src/route only

 private:
  friend std::expected<std::unique_ptr<Snapshot>, std::vector<BuildError>> build_snapshot(
      const std::vector<RouteSpec>& routes, std::vector<UpstreamSpec> upstreams,
      BuildOptions options);
  Snapshot(std::unique_ptr<const Tables> tables, uint64_t epoch) noexcept;

  std::unique_ptr<const Tables> tables_;
  uint64_t epoch_ = 0;
};

// Checks everything and reports all errors at once (at most kBuildErrorsMax of them).
inline constexpr size_t kBuildErrorsMax = 100;
std::expected<std::unique_ptr<Snapshot>, std::vector<BuildError>> build_snapshot(
    const std::vector<RouteSpec>& routes, std::vector<UpstreamSpec> upstreams,
    BuildOptions options = {});

}  // namespace weir::route
