// The rows of the schema about the health of servers: active and passive checks and the circuit
// breaker; included by schema.cc only.
#pragma once

#include <array>

#include <weir/control/config/config.h>

#include "binding.h"
#include "custom_settings.h"
#include "schema_parts.h"

namespace weir::control::config {

inline constexpr std::array kHealthCheck = {
    bind<&HealthSettings::enabled>(
        {.key = "enabled",
         .type = ValueType::kBool,
         .fallback = "true",
         .doc = "`false` switches the checks off: in `[health_check]` for upstreams without a "
                "table of their own, in theirs for that upstream."}),
    bind<&HealthSettings::type>(
        {.key = "type",
         .type = ValueType::kChoice,
         .fallback = "auto",
         .choices = "auto http https tcp tls",
         .doc = "`\"http\"` and `\"https\"` send a request; `\"tcp\"` only connects, `\"tls\"` "
                "also shakes hands. `\"auto\"`: `\"https\"` where the upstream speaks TLS, else "
                "`\"http\"`. Certificates are checked by the upstream's `tls_*` settings, also "
                "where only its checks speak TLS. Targets of `connect` are checked with "
                "`\"tcp\"`, whatever is said here."}),
    bind<&HealthSettings::path>({.key = "path",
                                 .type = ValueType::kString,
                                 .fallback = "/_health",
                                 .doc = "What is asked for, with a query if need be.",
                                 .check = check_check_path}),
    bind<&HealthSettings::method>({.key = "method",
                                   .type = ValueType::kString,
                                   .fallback = "GET",
                                   .doc = "Method of the request.",
                                   .check = check_method}),
    bind<&HealthSettings::host>({.key = "host",
                                 .type = ValueType::kString,
                                 .doc = "`Host` of the request. Default: the upstream's "
                                        "`host_header`, or else the server's name or address.",
                                 .check = check_host_header}),
    Setting{.key = "headers",
            .form = "table: name to value",
            .doc = "Further fields of the request, in place of those of `[health_check]`.",
            .read = read_check_headers},
    Setting{.key = "expected_status",
            .fallback = "[\"200-299\"]",
            .form = "status, range, or list of them",
            .doc = "Good answers: `200`, `\"200-299\"`, `[200, 204, \"300-399\"]`.",
            .read = read_expected_status},
    bind<&HealthSettings::expected_body>(
        {.key = "expected_body",
         .type = ValueType::kString,
         .doc = "Has to occur in the first 64 KiB of the answer's content. Empty: the content is "
                "not looked at.",
         .check = check_expected_body}),
    bind<&HealthSettings::port>({.key = "port",
                                 .type = ValueType::kInteger,
                                 .fallback = "0",
                                 .minimum = 1,
                                 .maximum = 65535,
                                 .zero = "the server's own",
                                 .doc = "Where the check connects to, at the server's address. "
                                        "Servers on a Unix socket are checked there."}),
    bind<&HealthSettings::interval>({.key = "interval",
                                     .type = ValueType::kDuration,
                                     .fallback = "5s",
                                     .minimum = 10,
                                     .maximum = kDay,
                                     .doc = "From the beginning of one check of a server to that "
                                            "of its next one."}),
    bind<&HealthSettings::timeout>(
        {.key = "timeout",
         .type = ValueType::kDuration,
         .fallback = "3s",
         .minimum = 1,
         .maximum = kHour,
         .doc = "Over connecting, handshake, request and answer together."}),
    bind<&HealthSettings::jitter_percent>(
        {.key = "jitter",
         .type = ValueType::kInteger,
         .fallback = "10",
         .minimum = 0,
         .maximum = 100,
         .doc = "Percent of `interval` by which each one is longer at most, at random, so that "
                "checks do not come all at once."}),
    bind<&HealthSettings::unhealthy_threshold>(
        {.key = "unhealthy_threshold",
         .type = ValueType::kInteger,
         .fallback = "3",
         .minimum = 1,
         .maximum = 1000,
         .doc = "Failed checks in a row after which a server gets no more requests."}),
    bind<&HealthSettings::healthy_threshold>(
        {.key = "healthy_threshold",
         .type = ValueType::kInteger,
         .fallback = "2",
         .minimum = 1,
         .maximum = 1000,
         .doc = "Passed checks in a row after which it gets them again."}),
    bind<&HealthSettings::initially_healthy>(
        {.key = "initially_healthy",
         .type = ValueType::kBool,
         .fallback = "true",
         .doc = "Whether a new server gets requests before its checks have had their say. What is "
                "known of a server outlives a reload."}),
};

inline constexpr std::array kPassiveCheck = {
    bind<&route::OutlierSpec::enabled>(
        {.key = "enabled",
         .type = ValueType::kBool,
         .fallback = "true",
         .doc = "`false`: no server is ejected for what its requests tell."}),
    bind<&route::OutlierSpec::consecutive_errors>(
        {.key = "consecutive_errors",
         .type = ValueType::kInteger,
         .fallback = "5",
         .minimum = 1,
         .maximum = 100'000,
         .zero = "not judged by that",
         .doc = "A server is ejected after so many errors in a row: no connection, no answer, or "
                "status 502, 503 or 504. With a `circuit_breaker` only if given."}),
    bind<&route::OutlierSpec::error_percent>(
        {.key = "error_percent",
         .type = ValueType::kInteger,
         .fallback = "50",
         .minimum = 1,
         .maximum = 100,
         .zero = "not judged by that",
         .doc = "Or when so many percent of its requests in the `window` were errors. With a "
                "`circuit_breaker` only if given."}),
    bind<&route::OutlierSpec::error_requests_min>(
        {.key = "error_requests_min",
         .type = ValueType::kInteger,
         .fallback = "20",
         .minimum = 1,
         .maximum = 1'000'000,
         .doc = "With fewer requests in the `window` percentages say nothing."}),
    bind<&route::OutlierSpec::window_ms>({.key = "window",
                                          .type = ValueType::kDuration,
                                          .fallback = "10s",
                                          .minimum = 100,
                                          .maximum = kHour,
                                          .doc = "How far back a core looks."}),
    bind<&route::OutlierSpec::latency_percent>(
        {.key = "slow_percent",
         .type = ValueType::kInteger,
         .fallback = "0",
         .minimum = 101,
         .maximum = 100'000,
         .zero = "not judged by that",
         .doc = "Or when its median latency is so many percent of the median of the others, for "
                "example 400."}),
    bind<&route::OutlierSpec::latency_floor_ms>({.key = "slow_floor",
                                                 .type = ValueType::kDuration,
                                                 .fallback = "100ms",
                                                 .minimum = 1,
                                                 .maximum = kHour,
                                                 .zero = "no floor",
                                                 .doc = "A median below this is never slow."}),
    bind<&route::OutlierSpec::latency_requests_min>(
        {.key = "slow_requests_min",
         .type = ValueType::kInteger,
         .fallback = "10",
         .minimum = 1,
         .maximum = 1'000'000,
         .doc = "With fewer answers, its own or the others', medians say nothing."}),
    bind<&route::OutlierSpec::ejection_ms>(
        {.key = "ejection_time",
         .type = ValueType::kDuration,
         .fallback = "10s",
         .minimum = 1,
         .maximum = kDay,
         .doc = "How long a server is ejected, doubled each time that it happens again."}),
    bind<&route::OutlierSpec::ejection_max_ms>({.key = "ejection_time_max",
                                                .type = ValueType::kDuration,
                                                .fallback = "5m",
                                                .minimum = 1,
                                                .maximum = kDay,
                                                .doc = "But never longer than this."}),
    bind<&route::OutlierSpec::ejected_percent_max>(
        {.key = "max_ejected_percent",
         .type = ValueType::kInteger,
         .fallback = "50",
         .minimum = 0,
         .maximum = 100,
         .doc = "Of the upstream's servers that may be ejected at a time."}),
    bind<&route::OutlierSpec::servers_left_min>(
        {.key = "min_servers",
         .type = ValueType::kInteger,
         .fallback = "1",
         .minimum = 1,
         .maximum = static_cast<int64_t>(route::kServersMax),
         .doc = "Servers that are neither down nor ejected; so many are always left."}),
};

inline constexpr std::array kCircuitBreaker = {
    bind<&route::CircuitSpec::failures>(
        {.key = "failures",
         .type = ValueType::kInteger,
         .fallback = "0",
         .minimum = 1,
         .maximum = 100'000,
         .zero = "no circuit breaker",
         .doc = "Errors in a row (as in `passive_check`) after which the circuit opens: the server "
                "gets no requests."}),
    bind<&route::CircuitSpec::open_ms>(
        {.key = "open_time",
         .type = ValueType::kDuration,
         .fallback = "1s",
         .minimum = 1,
         .maximum = kDay,
         .doc = "How long, doubled each time that the trials fail."}),
    bind<&route::CircuitSpec::open_max_ms>({.key = "open_time_max",
                                            .type = ValueType::kDuration,
                                            .fallback = "30s",
                                            .minimum = 1,
                                            .maximum = kDay,
                                            .doc = "But never longer than this."}),
    bind<&route::CircuitSpec::trials_max>(
        {.key = "trials",
         .type = ValueType::kInteger,
         .fallback = "1",
         .minimum = 1,
         .maximum = 1000,
         .doc = "Requests at a time that are then let through to find out."}),
    bind<&route::CircuitSpec::successes>(
        {.key = "successes",
         .type = ValueType::kInteger,
         .fallback = "2",
         .minimum = 1,
         .maximum = 1000,
         .doc = "Trials that have to go well, one after another, until the circuit closes."}),
};

}  // namespace weir::control::config
