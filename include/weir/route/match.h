// Choosing a route for a request, and what follows from the choice: the path for the upstream, the
// text of a redirect, and the explanation for people. Pure functions over a Snapshot and views of
// the caller's; match() and rewrite_path() never allocate. Any thread. The rules of precedence are
// in snapshot.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <weir/base/ip.h>
#include <weir/route/snapshot.h>

namespace weir::route {

// How the matcher reads request headers without knowing their container. find() looks for the next
// field of that name at or after `cursor` (0 for the first call; its meaning belongs to the
// callback, which leaves it where the search goes on), sets `value` and returns true, or returns
// false. A null find means that there are no headers.
struct HeaderLookup {
  const void* context = nullptr;
  bool (*find)(const void* context, std::string_view lower_case_name, uint32_t& cursor,
               std::string_view& value) = nullptr;
};

struct RequestView {
  std::string_view host;   // lower case, no port; brackets kept around IPv6; may be empty
  std::string_view path;   // normalised; begins with '/', or is "*" (OPTIONS)
  std::string_view query;  // without '?', as received
  std::string_view method;
  const base::IpAddress* client = nullptr;  // null: no IP (Unix socket)
  std::string_view scheme;                  // "http" or "https"
  HeaderLookup headers;
};

// The route for this request, or null when none fits (404). Time grows with the length of host and
// path, not with the number of routes; conditions of routes on the same path are tried in turn.
const Route* match(const Snapshot& snapshot, const RequestView& request) noexcept;

// The path for the upstream is prefix + rest, two views into route and path.
struct Rewrite {
  std::string_view prefix;
  std::string_view rest;
};

// `route` must have been matched for `path`. Without target_path: the path as it is. With it, the
// route's path is replaced by the target's, as nginx's proxy_pass with a URI does, except that a
// trailing slash on either makes no difference:
//   route /api/, target /app/ (or /api, /app): /api/v1 -> /app/v1, /api/ -> /app/, /api -> /app
//   route /api,  target /:                     /api/v1 -> /v1,     /api/ -> /,     /api -> /
//   route /,     target /app:                  /v1 -> /app/v1,     / -> /app/
// An exact route's target replaces the whole path, as written. "*" is never rewritten.
Rewrite rewrite_path(const Route& route, std::string_view path) noexcept;

// Appends the Location of a kRedirect route to `out`. Bytes that a URI may not hold are
// percent-encoded, control bytes are dropped, and a request path cannot turn the location into
// another host's ("//evil"). False, with `out` as it was, when the location needs ${host} and the
// request has none: the caller answers 400.
bool expand_location(const Route& route, const RequestView& request, std::string& out);

// One route that was looked at and passed over, or a place where there was nothing to look at.
struct ExplainStep {
  std::string host_rule;  // "exact host example.com", "wildcard host *.example.com", "any host"
  std::string path_rule;  // "exact path /a", "prefix /a"; empty: no path of this host fits
  const Route* route = nullptr;  // null when path_rule is empty
  std::string reason;            // why it was passed over: the first condition that failed
};

struct Explanation {
  const Route* route = nullptr;  // what match() returns
  std::string host_rule;
  std::string path_rule;
  std::vector<std::string> conditions;  // those of the chosen route, all of which hold
  std::vector<ExplainStep> rejected;    // in the order in which they were tried
  std::string action;                   // "proxy to upstream app", "redirect 301", "respond 200"
  std::string upstream;                 // name; empty unless kProxy
  std::string result;                   // the rewritten path with query, or the Location
};

// The same walk as match(), written down. The pointers live as long as the snapshot.
Explanation explain(const Snapshot& snapshot, const RequestView& request);

// Several lines for a terminal, each ended by '\n'.
std::string to_text(const Explanation& explanation);

}  // namespace weir::route
