// Rows of the schema: how servers are chosen. A part of schema.cc.
#pragma once

#include <array>
#include <string_view>

#include <weir/control/config/config.h>

#include "binding.h"
#include "schema_parts.h"
#include "syntax.h"

namespace weir::control::config {

inline std::string_view check_hash_key(const ScalarValue& value) {
  return parse_hash_key(value.text)
             ? ""
             : "must be \"client_ip\", \"uri\", \"path\", \"header:NAME\" or \"cookie:NAME\"";
}

// In the order of route::Balance.
inline constexpr std::string_view kBalanceChoices =
    "round_robin least_connections two_choices ip_hash consistent_hash random";
inline constexpr std::string_view kBalanceOthers = "least_conn=least_connections";
static_assert(static_cast<int>(route::Balance::kRandom) == 5);

inline constexpr std::array kUpstreamBalance = {
    bind<&UpstreamSettings::balance>(
        {.key = "balance",
         .type = ValueType::kChoice,
         .fallback = "round_robin",
         .choices = kBalanceChoices,
         .other_choices = kBalanceOthers,
         .aliases = "algorithm",
         .doc = "How a server is chosen, always by the weights: in turn; the one with the fewest "
                "requests under way (also `\"least_conn\"`); the better of two random ones by "
                "latency and requests under way; by the client's address (most clients move when a "
                "server is added or removed); by `hash_key` (few move); at random. Each core "
                "chooses by what it has sent itself."}),
    bind<&UpstreamSettings::hash_key>(
        {.key = "hash_key",
         .type = ValueType::kString,
         .fallback = "client_ip",
         .doc =
             "What `\"consistent_hash\"` goes by: `\"client_ip\"` (of the connection; of IPv6 the "
             "/64), `\"uri\"` (path and query), `\"path\"`, `\"header:NAME\"` or "
             "`\"cookie:NAME\"`. A request without that header or cookie goes by its client's "
             "address.",
         .check = check_hash_key}),
    bind<&UpstreamSettings::hash_load_bound>(
        {.key = "hash_load_bound",
         .type = ValueType::kInteger,
         .fallback = "0",
         .minimum = 100,
         .maximum = 10'000,
         .zero = "unbounded",
         .doc = "With `\"consistent_hash\"`: requests under way that a server may have, in percent "
                "of the mean by weight, for example 150; what is beyond goes to the key's next "
                "server. Each core counts its own requests."}),
    bind<&UpstreamSettings::slow_start>(
        {.key = "slow_start",
         .type = ValueType::kDuration,
         .fallback = "0s",
         .minimum = 1,
         .maximum = kDay,
         .zero = "full weight at once",
         .doc = "For how long the share of a server that joins others, or was down or ejected, "
                "grows from a tenth to its weight."}),
};

// [load_balancer]: the same member, read before [upstream_defaults].
inline constexpr std::array kLoadBalancer = {
    bind<&UpstreamSettings::balance>({.key = "type",
                                      .type = ValueType::kChoice,
                                      .fallback = "round_robin",
                                      .choices = kBalanceChoices,
                                      .other_choices = kBalanceOthers,
                                      .doc = "As `balance`."}),
};

inline constexpr std::array kServerBalance = {
    bind<&UpstreamServer::weight>({.key = "weight",
                                   .type = ValueType::kInteger,
                                   .fallback = "1",
                                   .minimum = 1,
                                   .maximum = 256,
                                   .doc = "Share of the requests, relative to the other servers."}),
    bind<&UpstreamServer::priority>(
        {.key = "priority",
         .type = ValueType::kInteger,
         .fallback = "0",
         .minimum = 0,
         .maximum = 255,
         .doc = "Servers with a higher number get requests only when none with a lower one can "
                "take them: they have `max_connections`, or the request has tried them."}),
    bind<&UpstreamServer::backup>({.key = "backup",
                                   .type = ValueType::kBool,
                                   .fallback = "false",
                                   .doc = "After all servers that are no backup, whatever their "
                                          "priority."}),
    bind<&UpstreamServer::max_connections>(
        {.key = "max_connections",
         .type = ValueType::kInteger,
         .fallback = "0",
         .minimum = 1,
         .maximum = 1'000'000,
         .zero = "unlimited",
         .doc = "Requests under way to this server at once, each on a connection of its own; when "
                "no server can take one more, requests wait (`max_pending`). Every core has an "
                "equal share, rounded up and "
                "at least 1, whatever the others leave of theirs: over all cores it may be more by "
                "less than their number, and a core may refuse while another has room."}),
};

}  // namespace weir::control::config
