// The rows of the schema about the control thread's own services: names, and the socket of
// `weir ctl`; included by schema.cc only.
#pragma once

#include <array>

#include <weir/control/config/config.h>

#include "binding.h"
#include "custom_settings.h"
#include "schema_parts.h"

namespace weir::control::config {

inline constexpr std::array kResolver = {
    Setting{.key = "servers",
            .form = "address or list of addresses",
            .doc = "Name servers, `\"IP\"`, `\"IP:PORT\"` or `\"[IPv6]:PORT\"`; port 53 if none is "
                   "given. Default: those of `/etc/resolv.conf`.",
            .read = read_name_servers},
    bind<&ResolverSettings::timeout>({.key = "timeout",
                                      .type = ValueType::kDuration,
                                      .fallback = "2s",
                                      .minimum = 10,
                                      .maximum = kMinute,
                                      .doc = "For the answer of a name server, the first time; "
                                             "doubled with each further try."}),
    bind<&ResolverSettings::tries>({.key = "tries",
                                    .type = ValueType::kInteger,
                                    .fallback = "3",
                                    .minimum = 1,
                                    .maximum = 10,
                                    .doc = "How often each of them is asked."}),
    bind<&ResolverSettings::min_ttl>(
        {.key = "min_ttl",
         .type = ValueType::kDuration,
         .fallback = "5s",
         .minimum = 100,
         .maximum = kDay,
         .doc = "A name is looked up again when its records have become old, but not sooner than "
                "this. While no name server answers, the addresses that are known stay."}),
    bind<&ResolverSettings::max_ttl>({.key = "max_ttl",
                                      .type = ValueType::kDuration,
                                      .fallback = "5m",
                                      .minimum = 100,
                                      .maximum = 7 * kDay,
                                      .doc = "And not later than this."}),
    bind<&ResolverSettings::hosts>({.key = "hosts",
                                    .type = ValueType::kString,
                                    .fallback = "/etc/hosts",
                                    .doc = "File of names that no name server is asked for; read "
                                           "again when it changes. Empty: none.",
                                    .check = check_optional_absolute}),
};

inline constexpr std::array kControl = {
    bind<&ControlSettings::socket>(
        {.key = "socket",
         .type = ValueType::kString,
         .restart = true,
         .doc = "Path of a Unix socket that weir makes for `weir ctl`, for example "
                "`\"/run/weir/control.sock\"`. Empty: none.",
         .check = check_control_socket}),
    Setting{.key = "socket_mode",
            .fallback = "0600",
            .form = "string of octal digits",
            .restart = true,
            .doc = "Permissions of that socket. Who may write to it may take servers out of "
                   "service.",
            .same = same_member<&ControlSettings::socket_mode>,
            .read = read_socket_mode},
};

}  // namespace weir::control::config
