// The rows of the schema about routes, in both forms; included by schema.cc only.
#pragma once

#include <array>
#include <string>

#include <weir/control/config/config.h>

#include "binding.h"
#include "custom_settings.h"
#include "schema_files.h"
#include "schema_parts.h"

namespace weir::control::config {

inline std::string_view check_prefix(const ScalarValue& value) {
  return value.text.empty() ? "must not be empty: true stands for any value" : "";
}

inline std::string_view check_redirect_status(const ScalarValue& value) {
  return is_redirect_status(value.number) ? "" : kRedirectStatusComplaint;
}

inline constexpr std::array kRoute = {
    Setting{.key = "name",
            .type = ValueType::kString,
            .doc = "Name in logs and in `weir explain`.",
            .check = check_name,
            .store =
                [](void* object, const ScalarValue& value) {
                  static_cast<RouteDraft*>(object)->route.spec.name = value.text;
                }},
    Setting{.key = "host",
            .aliases = "hosts",
            .form = "host or list of hosts",
            .doc =
                "`\"example.com\"`, `\"*.example.com\"` (one or more labels in place of the star) "
                "or `\"*\"`. Without port. Default: any host.",
            .read = read_hosts},
    Setting{.key = "path",
            .fallback = "/",
            .form = "path",
            .doc = "A prefix at segment boundaries (`/api` and `/api/` are the same), or the whole "
                   "path with `match = \"exact\"`.",
            .read = read_route_path},
    bind<&RouteDraft::match>({.key = "match",
                              .type = ValueType::kChoice,
                              .fallback = "prefix",
                              .choices = "prefix exact",
                              .doc = "How `path` is compared."}),
    Setting{.key = "methods",
            .aliases = "method",
            .form = "method or list of methods",
            .doc = "Condition: one of these methods. `GET` does not include `HEAD`.",
            .read = read_methods},
    Setting{.key = "headers",
            .form = "table",
            .doc = "Conditions: `{\"X-Version\" = \"2\"}` (that value), `true` (present), `false` "
                   "(absent), `{prefix = \"text/\"}`.",
            .read = read_header_conditions},
    Setting{.key = "query",
            .form = "table",
            .doc = "Conditions on query parameters, written as for `headers`.",
            .read = read_query_conditions},
    Setting{.key = "source",
            .form = "address, block, or list of them",
            .doc = "Condition: the client's IP is in one of these, for example `\"10.0.0.0/8\"`.",
            .read = read_source},
    Setting{.key = "proxy",
            .form = "upstream or URL",
            .doc = "Action: pass the request on, to `\"NAME\"` of an `[upstream.NAME]`, to "
                   "`\"http://HOST[:PORT]\"`, or with a path in place of the route's, "
                   "`\"http://HOST[:PORT]/PATH\"` or `\"http://NAME/PATH\"`. `https://` where "
                   "TLS is spoken.",
            .read = read_proxy},
    Setting{.key = "redirect",
            .form = "URL or table",
            .doc = "Action: redirect, with status 302 or that of the table form "
                   "(`[route.redirect]`). The URL may hold `${scheme}`, `${host}`, `${path}`, "
                   "`${query}` and `${uri}` (path with query).",
            .read = read_redirect},
    Setting{.key = "respond",
            .form = "table",
            .doc = "Action: a fixed response, see `[route.respond]`.",
            .read = read_respond},
    Setting{.key = "file",
            .form = "path or table",
            .doc = "Action: answer with a file, or with those of a directory, `\"/var/www/site\"`, "
                   "or more in the table form, see `[route.file]`.",
            .read = read_file},
    Setting{.key = "connect",
            .form = "target or list of targets",
            .doc = "Action: pass `CONNECT` requests on as tunnels, to these `\"HOST:PORT\"` and no "
                   "others. Such a route is for the method `CONNECT` only and has no path.",
            .read = read_connect},
    Setting{.key = "upgrade",
            .fallback = "websocket",
            .form = "protocol, list of protocols, or `false`",
            .doc = "With `proxy`: the protocols to which clients may switch (`Upgrade`), if the "
                   "server agrees. `false` or an empty list: none; the field is not passed on. "
                   "`\"h2c\"` never is.",
            .read = read_upgrade},
    Setting{.key = "max_body_size",
            .type = ValueType::kSize,
            .minimum = 1,
            .maximum = 1024 * kTiB,
            .zero = "unlimited",
            .aliases = "max_request_body_size client_max_body_size",
            .doc = "Largest request body for this route. Default: that of `[server]`.",
            .store =
                [](void* object, const ScalarValue& value) {
                  static_cast<RouteDraft*>(object)->route.max_body_size =
                      static_cast<uint64_t>(value.number);
                }},
};

inline constexpr std::array kCondition = {
    Setting{
        .key = "prefix",
        .type = ValueType::kString,
        .doc = "The value begins with this.",
        .check = check_prefix,
        .store = [](void* object,
                    const ScalarValue& value) { *static_cast<std::string*>(object) = value.text; }},
};

inline constexpr std::array kRedirect = {
    Setting{.key = "url", .form = "URL", .doc = "Where to. Required.", .read = read_location},
    bind<&RedirectDraft::status>({.key = "status",
                                  .type = ValueType::kInteger,
                                  .fallback = "302",
                                  .minimum = 301,
                                  .maximum = 308,
                                  .doc = "301, 302, 303, 307 or 308.",
                                  .check = check_redirect_status}),
};

inline constexpr std::array kRespond = {
    bind<&RespondDraft::status>({.key = "status",
                                 .type = ValueType::kInteger,
                                 .fallback = "200",
                                 .minimum = 200,
                                 .maximum = 599,
                                 .doc = "Status code."}),
    bind<&RespondDraft::body>({.key = "body", .type = ValueType::kString, .doc = "Body."}),
    bind<&RespondDraft::content_type>(
        {.key = "content_type",
         .type = ValueType::kString,
         .doc = "`Content-Type`. Default: `text/plain; charset=utf-8` when there is a body.",
         .check = check_field_text}),
    Setting{.key = "headers",
            .form = "table",
            .doc =
                "Header fields; a list as value gives several of one name. Fields of framing and "
                "connection are weir's own.",
            .read = read_response_headers},
};

inline constexpr std::array kShortGeneral = {
    Setting{.key = "type",
            .form = "`\"Proxy\"`, `\"Redirect\"`, `\"Respond\"` or `\"File\"`",
            .doc = "Action. Required.",
            .read = read_short_type},
    Setting{.key = "url",
            .aliases = "upstream redirect_url",
            .form = "upstream or URL",
            .doc = "Proxy: as `proxy`. Redirect: as `redirect`.",
            .read = read_short_url},
    bind<&ShortDraft::status>({.key = "status",
                               .type = ValueType::kInteger,
                               .minimum = 200,
                               .maximum = 599,
                               .aliases = "redirect_status",
                               .doc = "Redirect (default 302), Respond (default 200)."}),
    Setting{.key = "body",
            .type = ValueType::kString,
            .doc = "Respond: as in `respond`.",
            .store =
                [](void* object, const ScalarValue& value) {
                  static_cast<ShortDraft*>(object)->respond.body = value.text;
                }},
    Setting{.key = "content_type",
            .type = ValueType::kString,
            .doc = "Respond: as in `respond`.",
            .check = check_field_text,
            .store =
                [](void* object, const ScalarValue& value) {
                  static_cast<ShortDraft*>(object)->respond.content_type = value.text;
                }},
    Setting{.key = "headers",
            .form = "table",
            .doc = "Respond: as in `respond`.",
            .read = read_short_headers},
    Setting{.key = "security",
            .form = "table",
            .doc = "Limits of this route, see below.",
            .read = read_short_security},
};

inline constexpr auto kShort = concatenated(kShortGeneral, kShortFile);

inline constexpr std::array kShortSecurity = {
    Setting{.key = "max_request_body_size",
            .type = ValueType::kSize,
            .minimum = 1,
            .maximum = 1024 * kTiB,
            .zero = "unlimited",
            .aliases = "max_body_size client_max_body_size",
            .doc = "As `max_body_size` of a route.",
            .store =
                [](void* object, const ScalarValue& value) {
                  static_cast<ShortDraft*>(object)->route.max_body_size =
                      static_cast<uint64_t>(value.number);
                }},
    Setting{.key = "allowed_methods",
            .form = "method or list of methods",
            .doc = "All others get 405 with `Allow`. (It becomes two routes: one with the "
                   "condition, one that answers 405.)",
            .read = read_allowed_methods},
};

}  // namespace weir::control::config
