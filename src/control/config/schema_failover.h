// The rows of the schema about what happens to a request that its server fails, or that has to wait
// for one, about sticky sessions, and about names of servers; included by schema.cc only.
#pragma once

#include <array>

#include <weir/control/config/config.h>

#include "binding.h"
#include "custom_settings.h"
#include "schema_parts.h"

namespace weir::control::config {

// Of [upstream_defaults] and [upstream.NAME].
inline constexpr std::array kUpstreamFailover = {
    bind_within<&UpstreamSettings::retry, &RetrySettings::retries>(
        {.key = "retries",
         .type = ValueType::kInteger,
         .fallback = "2",
         .minimum = 1,
         .maximum = 10,
         .zero = "none",
         .doc = "Further tries of a request that a server has failed, each on another server if "
                "there is one. Only while nothing of an answer was passed on and the request's "
                "content is still held (64 KiB)."}),
    Setting{.key = "retry_on",
            .fallback = "[\"connect\", \"reset\"]",
            .form = "list of `\"connect\"`, `\"reset\"`, `\"timeout\"`, and statuses 500 to 599",
            .doc = "What counts as failed: no connection (then any request is tried again, for "
                   "nothing of it was sent), a connection that ended before an answer came, no "
                   "answer in time, an answer with that status (`503` or `\"503\"`).",
            .read = read_retry_on},
    bind_within<&UpstreamSettings::retry, &RetrySettings::non_idempotent>(
        {.key = "retry_non_idempotent",
         .type = ValueType::kBool,
         .fallback = "false",
         .doc = "Also try requests again that are not to be repeated (`POST`, `PATCH` and methods "
                "that weir does not know) once something of them was sent: they may then be "
                "carried out twice."}),
    bind_within<&UpstreamSettings::retry, &RetrySettings::budget_percent>(
        {.key = "retry_budget",
         .type = ValueType::kInteger,
         .fallback = "20",
         .minimum = 0,
         .maximum = 100,
         .doc = "Retries (and hedged requests) in percent of the requests, so that an outage is "
                "not multiplied. Each core counts its own."}),
    bind_within<&UpstreamSettings::retry, &RetrySettings::budget_per_second>(
        {.key = "retry_budget_min",
         .type = ValueType::kInteger,
         .fallback = "10",
         .minimum = 0,
         .maximum = 1'000'000,
         .doc = "So many a second besides, over all cores."}),
    bind_within<&UpstreamSettings::retry, &RetrySettings::try_timeout>(
        {.key = "try_timeout",
         .type = ValueType::kDuration,
         .fallback = "0s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .zero = "`response_timeout` alone",
         .doc = "For one try, until its answer begins; then another one, if `retry_on` has "
                "`\"timeout\"`, or 504."}),
    bind_within<&UpstreamSettings::retry, &RetrySettings::total_timeout>(
        {.key = "total_timeout",
         .type = ValueType::kDuration,
         .fallback = "0s",
         .minimum = 1,
         .maximum = 30 * kDay,
         .zero = "none",
         .doc = "For waiting and all tries together, until an answer begins; then 504, or 503 if "
                "there was no server with room."}),
    bind_within<&UpstreamSettings::retry, &RetrySettings::hedge_after>(
        {.key = "hedge_after",
         .type = ValueType::kDuration,
         .fallback = "0ms",
         .minimum = 1,
         .maximum = kHour,
         .zero = "never",
         .doc = "An idempotent request without content that has no answer after this time is also "
                "sent to another server; the first answer counts. The budget holds for them too."}),
};

// Likewise.
inline constexpr std::array kUpstreamLimits = {
    bind<&UpstreamSettings::max_connections>(
        {.key = "max_connections",
         .type = ValueType::kInteger,
         .fallback = "0",
         .minimum = 1,
         .maximum = 10'000'000,
         .zero = "unlimited",
         .doc = "Requests under way to all of its servers at once. Every core has an equal share, "
                "as with `max_connections` of a server."}),
    bind<&UpstreamSettings::max_pending>(
        {.key = "max_pending",
         .type = ValueType::kInteger,
         .fallback = "1024",
         .minimum = 1,
         .maximum = 1'000'000,
         .zero = "none waits",
         .doc = "Requests that may wait for a server to have room, over all cores (each has an "
                "equal share); further ones get 503 with `Retry-After`."}),
    bind<&UpstreamSettings::pending_timeout>({.key = "pending_timeout",
                                              .type = ValueType::kDuration,
                                              .fallback = "5s",
                                              .minimum = 1,
                                              .maximum = kHour,
                                              .doc = "How long they wait; then 503."}),
};

// Likewise.
inline constexpr std::array kUpstreamNames = {
    bind<&UpstreamSettings::connect_race>(
        {.key = "connect_race",
         .type = ValueType::kDuration,
         .fallback = "250ms",
         .minimum = 10,
         .maximum = kMinute,
         .zero = "no race",
         .doc = "Head start of a connection to a name that has IPv4 and IPv6 addresses before one "
                "to the other family is tried as well (RFC 8305)."}),
    bind<&UpstreamSettings::resolve_family>(
        {.key = "resolve_family",
         .type = ValueType::kChoice,
         .fallback = "any",
         .choices = "any ipv4 ipv6",
         .doc = "Which addresses of names are used. Names are looked up again when their records "
                "have become old, see `[resolver]`."}),
    bind<&UpstreamSettings::resolve_srv>(
        {.key = "resolve_srv",
         .type = ValueType::kBool,
         .fallback = "false",
         .doc = "The names have SRV records, which say hosts, ports, priorities and weights; they "
                "are given without port, `\"_http._tcp.app.internal\"`. With TLS the "
                "certificates have to be for `app.internal`. Never for the URL of a route."}),
};

inline constexpr std::array kUpstreamChecks = {
    Setting{.key = "passive_check",
            .form = "table",
            .doc = "See `[upstream.NAME.passive_check]`.",
            .read = read_passive_check},
    Setting{.key = "circuit_breaker",
            .form = "table",
            .doc = "See `[upstream.NAME.circuit_breaker]`.",
            .read = read_circuit_breaker},
};

// Of an [upstream.NAME] only.
inline constexpr std::array kUpstreamOwn = {
    Setting{
        .key = "health_check",
        .form = "table",
        .doc = "See `[upstream.NAME.health_check]`; what all have in common is `[health_check]`.",
        .read = read_health_check},
    Setting{.key = "sticky",
            .form = "table",
            .doc = "See `[upstream.NAME.sticky]`.",
            .read = read_sticky},
};

inline constexpr std::array kSticky = {
    bind<&StickySettings::cookie>({.key = "cookie",
                                   .type = ValueType::kString,
                                   .fallback = "weir_sticky",
                                   .doc = "Name of the cookie. Upstreams of the same site need "
                                          "different names or paths.",
                                   .check = check_cookie_name}),
    bind<&StickySettings::key_file>(
        {.key = "key_file",
         .type = ValueType::kString,
         .doc = "File of at least 16 random bytes that sign the cookie, to share sessions with "
                "other machines and to keep them over restarts; read when the configuration is. "
                "Default: a key that weir makes when it starts.",
         .check = check_file_path}),
    bind<&StickySettings::max_age>({.key = "max_age",
                                    .type = ValueType::kDuration,
                                    .fallback = "0s",
                                    .minimum = kSecond,
                                    .maximum = 400 * kDay,
                                    .zero = "of the browser's session",
                                    .doc = "How long the cookie is good for.",
                                    .check = check_whole_seconds}),
    bind<&StickySettings::path>({.key = "path",
                                 .type = ValueType::kString,
                                 .fallback = "/",
                                 .doc = "`Path` of the cookie.",
                                 .check = check_cookie_path}),
    bind<&StickySettings::secure>({.key = "secure",
                                   .type = ValueType::kBool,
                                   .fallback = "false",
                                   .doc = "`Secure`: browsers send the cookie by https only."}),
    bind<&StickySettings::same_site>(
        {.key = "same_site",
         .type = ValueType::kString,
         .fallback = "Lax",
         .doc = "`\"Lax\"`, `\"Strict\"`, `\"None\"` (with `secure` only), or empty: not said.",
         .check = check_same_site}),
};

}  // namespace weir::control::config
