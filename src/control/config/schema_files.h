// The rows of the schema about files and their content types; included by schema.cc only.
#pragma once

#include <array>

#include <weir/control/config/config.h>

#include "binding.h"
#include "custom_settings.h"
#include "schema_parts.h"

namespace weir::control::config {

// Object: route::FileAction.
inline constexpr std::array kFile = {
    Setting{.key = "path",
            .form = "file or directory",
            .doc = "An absolute path. Below a directory the rest of the request's path is looked "
                   "up; a file is served for exactly the route's path. It need not exist when weir "
                   "starts. Required.",
            .read = read_file_root},
    Setting{.key = "index",
            .fallback = "index.html",
            .form = "name or list of names",
            .doc = "Files that stand for their directory, in order. An empty list: none.",
            .read = read_file_index},
    Setting{.key = "fallback",
            .form = "file below `path`",
            .doc = "Served with status 200 where there is no such file: `\"index.html\"` for a "
                   "single-page application.",
            .read = read_file_fallback},
    bind<&route::FileAction::listing>(
        {.key = "listing",
         .type = ValueType::kBool,
         .fallback = "false",
         .doc = "List directories without index, as HTML, or as JSON by `Accept` or "
                "`?format=json`."}),
    bind<&route::FileAction::redirect_slash>(
        {.key = "redirect_slash",
         .type = ValueType::kBool,
         .fallback = "false",
         .doc = "A directory that is asked for without the slash at its end is answered with a "
                "redirect to it, so that relative links of its index work; else as with the "
                "slash."}),
    bind<&route::FileAction::hidden>(
        {.key = "hidden",
         .type = ValueType::kBool,
         .fallback = "false",
         .doc = "Serve names that begin with a dot too. `.well-known` is always served."}),
    bind<&route::FileAction::links>(
        {.key = "symlinks",
         .type = ValueType::kChoice,
         .fallback = "inside",
         .choices = "inside follow none",
         .doc = "Symbolic links below `path`: `\"inside\"` follows those that stay below it, "
                "`\"follow\"` all, `\"none\"` none. Links in `path` itself are always followed."}),
    bind<&route::FileAction::precompressed>(
        {.key = "precompressed",
         .type = ValueType::kBool,
         .fallback = "true",
         .doc = "Send `NAME.br`, `NAME.zst` or `NAME.gz` in place of `NAME` to clients that "
                "accept it."}),
    bind<&route::FileAction::cache_control>(
        {.key = "cache_control",
         .type = ValueType::kString,
         .doc = "`Cache-Control` of files, for example `\"public, max-age=3600\"`.",
         .check = check_field_text}),
    Setting{.key = "expires",
            .type = ValueType::kDuration,
            .minimum = kSecond,
            .maximum = 3650 * kDay,
            .zero = "not sent",
            .doc = "`Expires` of files, so long from now. Default: not sent.",
            .check = check_whole_seconds,
            .store =
                [](void* object, const ScalarValue& value) {
                  static_cast<route::FileAction*>(object)->expires_s =
                      static_cast<uint32_t>(value.number / kSecond);
                }},
    bind<&route::FileAction::in_memory>(
        {.key = "mode",
         .type = ValueType::kChoice,
         .fallback = "sendfile",
         .choices = "sendfile memory",
         .doc = "`\"sendfile\"`: from the kernel's page cache to the socket. `\"memory\"`: each "
                "core keeps small files (`[performance] file_memory`); those of up to 4 KiB it "
                "keeps in either mode."}),
    Setting{.key = "error_pages",
            .form = "table: status to file below `path`",
            .doc = "Bodies of errors, `{404 = \"404.html\"}`, for the statuses that files lead to: "
                   "403 (not permitted), 404, 405 (method), 412 (precondition), 416 (range), "
                   "500 (the disk) and 503 (no descriptor or memory left).",
            .read = read_error_pages},
};

// The same in a table of the short form, which collects them until its type is known.
consteval Setting short_file(std::string_view key) {
  return Setting{.key = key,
                 .form = "as in `[route.file]`",
                 .doc = "File: as in `[route.file]`.",
                 .read = read_short_file};
}
inline constexpr std::array kShortFile = {
    short_file("path"),     short_file("index"),          short_file("fallback"),
    short_file("listing"),  short_file("redirect_slash"), short_file("hidden"),
    short_file("symlinks"), short_file("precompressed"),  short_file("cache_control"),
    short_file("expires"),  short_file("mode"),           short_file("error_pages"),
};
static_assert(kShortFile.size() == kFile.size());

inline constexpr std::array kMime = {
    Setting{.key = "types",
            .form = "table: extension to type",
            .doc = "Types that go before all others: `{md = \"text/markdown\"}`. An extension may "
                   "have a dot inside, in quotes: `\"spdx.json\"`.",
            .read = read_mime_types},
    bind<&MimeSettings::default_type>(
        {.key = "default_type",
         .type = ValueType::kString,
         .fallback = "application/octet-stream",
         .doc = "Type of files whose extension nothing is known about; empty: no `Content-Type`.",
         .check = check_media_type}),
    bind<&MimeSettings::charset>(
        {.key = "charset",
         .type = ValueType::kString,
         .fallback = "utf-8",
         .doc = "`charset` of text, JavaScript and XML types that name none themselves; empty: "
                "none.",
         .check = check_charset}),
    bind<&MimeSettings::system_file>(
        {.key = "system_file",
         .type = ValueType::kString,
         .fallback = "/etc/mime.types",
         .doc = "The system's types, read at each (re)load if the file is there; they go before "
                "those that weir knows itself. Empty: none.",
         .check = check_optional_absolute}),
};

// Of [performance].
inline constexpr std::array kPerformanceFiles = {
    bind<&PerformanceSettings::splice_threshold>(
        {.key = "splice_threshold",
         .type = ValueType::kSize,
         .fallback = "512KiB",
         .minimum = 1,
         .maximum = 1024 * kTiB,
         .zero = "never",
         .doc = "Proxied bodies move from socket to socket inside the kernel when so much of them "
                "is still to come."}),
    bind<&PerformanceSettings::open_file_cache_entries>(
        {.key = "open_file_cache_entries",
         .type = ValueType::kInteger,
         .fallback = "1024",
         .minimum = 1,
         .maximum = kOpenFilesMax,
         .zero = "nothing is kept",
         .doc = "Served files that each core keeps open, but never more than a quarter of the "
                "descriptors that the system allows. Names that are not there are remembered "
                "besides."}),
    bind<&PerformanceSettings::open_file_cache_valid>(
        {.key = "open_file_cache_valid",
         .type = ValueType::kDuration,
         .fallback = "1s",
         .minimum = 1,
         .maximum = kDay,
         .zero = "looked up for each request",
         .doc = "How long such a file is served before its name is looked up again."}),
    bind<&PerformanceSettings::file_memory>(
        {.key = "file_memory",
         .type = ValueType::kSize,
         .fallback = "32MiB",
         .minimum = 1,
         .maximum = kTiB,
         .zero = "none",
         .doc = "Contents that each core keeps of files of routes with `mode = \"memory\"`."}),
    bind<&PerformanceSettings::file_memory_max_size>(
        {.key = "file_memory_max_size",
         .type = ValueType::kSize,
         .fallback = "64KiB",
         .minimum = 1,
         .maximum = kGiB,
         .doc = "Larger files are not kept in memory."}),
};

}  // namespace weir::control::config
