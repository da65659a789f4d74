#include <weir/files/mime.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include <weir/base/text.h>

#include "mime_table.h"

namespace weir::files {

namespace {

using TypesByExtension = std::map<std::string, std::string, std::less<>>;

bool is_token(std::string_view text) noexcept {
  static constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    const char low = base::to_lower(c);
    return (low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') ||
           kMarks.find(c) != std::string_view::npos;
  });
}

// "text/html", without parameters.
bool is_bare_type(std::string_view text) noexcept {
  const size_t slash = text.find('/');
  return text.size() <= kMimeTypeBytesMax && slash != std::string_view::npos &&
         is_token(text.substr(0, slash)) && is_token(text.substr(slash + 1));
}

// "text/html; charset=latin1; x="a b"".
bool is_type(std::string_view text) noexcept {
  if (text.size() > kMimeTypeBytesMax) return false;
  const size_t semicolon = std::min(text.find(';'), text.size());
  if (!is_bare_type(base::trim(text.substr(0, semicolon)))) return false;
  std::string_view rest = text.substr(semicolon);
  while (!rest.empty()) {
    rest = base::trim(rest.substr(1));  // behind the ';'
    const size_t equals = rest.find('=');
    if (equals == std::string_view::npos || !is_token(rest.substr(0, equals))) return false;
    rest.remove_prefix(equals + 1);
    size_t end = std::min(rest.find(';'), rest.size());
    if (rest.starts_with('"')) {
      end = rest.find('"', 1);
      if (end == std::string_view::npos) return false;
      const std::string_view inside = rest.substr(1, end - 1);
      if (std::any_of(inside.begin(), inside.end(),
                      [](char c) { return c < 0x20 || c > 0x7e || c == '\\'; })) {
        return false;
      }
      rest = base::trim(rest.substr(end + 1));
    } else {
      if (!is_token(base::trim(rest.substr(0, end)))) return false;
      rest.remove_prefix(end);
    }
    if (!rest.empty() && rest[0] != ';') return false;
  }
  return true;
}

// In lower case, without a dot at its start.
std::optional<std::string> normal_extension(std::string_view text) {
  if (text.starts_with('.')) text.remove_prefix(1);
  if (text.empty() || text.size() > kMimeExtensionBytesMax || text.front() == '.' ||
      text.back() == '.' || std::count(text.begin(), text.end(), '.') > 1) {
    return std::nullopt;
  }
  for (char c : text) {
    if (c <= 0x20 || c >= 0x7f || c == '/' || c == '\\') return std::nullopt;
  }
  return base::lowercase(text);
}

// Cuts the first run of bytes other than space and tab off `line`; empty at its end.
std::string_view take_word(std::string_view& line) noexcept {
  line = base::trim(line);
  const std::string_view word = line.substr(0, line.find_first_of(" \t"));
  line.remove_prefix(word.size());
  return word;
}

// A line of mime.types; false when it, or an extension in it, makes no sense.
bool read_line(std::string_view line, const std::set<std::string, std::less<>>& firm,
               TypesByExtension& types) {
  const std::string_view type = take_word(line);
  if (type.empty() || type.starts_with('#')) return true;
  if (!is_bare_type(type)) return false;
  bool good = true;
  for (;;) {
    const std::string_view word = take_word(line);
    if (word.empty() || word.starts_with('#')) return good;
    const auto extension = normal_extension(word);
    if (!extension) {
      good = false;
    } else if (!firm.contains(*extension) &&
               (types.size() < kMimeExtensionsMax || types.contains(*extension))) {
      types.insert_or_assign(*extension, std::string(type));
    }
  }
}

size_t read_table(std::string_view table, const std::set<std::string, std::less<>>& firm,
                  TypesByExtension& types) {
  size_t skipped = 0;
  while (!table.empty()) {
    const size_t end = std::min(table.find('\n'), table.size());
    std::string_view line = table.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!read_line(line, firm, types)) ++skipped;
    table.remove_prefix(std::min(end + 1, table.size()));
  }
  return skipped;
}

// Does weir name a charset for that type?
bool is_text(std::string_view type) noexcept {
  constexpr std::array<std::string_view, 7> kTextual{
      "application/javascript", "application/ecmascript", "application/xml",
      "application/xhtml+xml",  "application/atom+xml",   "application/rss+xml",
      "image/svg+xml"};
  if (base::equals_ignore_case(type.substr(0, 5), "text/")) return true;
  return std::any_of(kTextual.begin(), kTextual.end(), [type](std::string_view textual) {
    return base::equals_ignore_case(type, textual);
  });
}

std::string with_charset(const std::string& type, std::string_view charset) {
  const std::string_view bare = base::trim(std::string_view(type).substr(0, type.find(';')));
  if (charset.empty() || !is_text(bare)) return type;
  if (base::lowercase(type).find("charset=") != std::string::npos) return type;
  return type + "; charset=" + std::string(charset);
}

std::string_view last_segment(std::string_view path) noexcept {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

std::optional<std::string> complaint_about(const MimeSettings& settings) {
  if (settings.table.size() > kMimeTableBytesMax) {
    return "the table of MIME types is larger than 4 MiB";
  }
  if (!settings.default_type.empty() && !is_type(settings.default_type)) {
    return "the default type '" + std::string(settings.default_type) +
           "' is no content type (as text/plain is)";
  }
  if (!settings.charset.empty() &&
      (!is_token(settings.charset) || settings.charset.size() > kMimeTypeBytesMax)) {
    return "'" + std::string(settings.charset) + "' is no name of a charset (as utf-8 is)";
  }
  if (settings.overrides.size() > kMimeExtensionsMax) return "too many MIME types";
  return std::nullopt;
}

std::optional<std::string> read_overrides(std::span<const MimeOverride> overrides,
                                          TypesByExtension& types) {
  for (const MimeOverride& override : overrides) {
    const auto extension = normal_extension(override.extension);
    if (!extension) {
      return "'" + std::string(override.extension) +
             "' is no file name extension (as html and .html are, at most one dot inside)";
    }
    if (!is_type(override.type)) {
      return "'" + std::string(override.type) + "', the type for " + *extension +
             ", is no content type (as text/plain is)";
    }
    types.insert_or_assign(*extension, std::string(override.type));
  }
  return std::nullopt;
}

}  // namespace

std::expected<MimeTypes, std::string> MimeTypes::build(const MimeSettings& settings) {
  if (auto complaint = complaint_about(settings)) return std::unexpected(std::move(*complaint));
  TypesByExtension types;
  std::set<std::string, std::less<>> firm;
  for (const BuiltInType& built_in : built_in_types()) {
    std::string_view rest = built_in.extensions;
    for (auto word = take_word(rest); !word.empty(); word = take_word(rest)) {
      types.insert_or_assign(std::string(word), std::string(built_in.type));
      if (built_in.firm) firm.emplace(word);
    }
  }
  MimeTypes result;
  result.skipped_lines_ = read_table(settings.table, firm, types);
  if (auto complaint = read_overrides(settings.overrides, types)) {
    return std::unexpected(std::move(*complaint));
  }

  std::map<std::string, uint32_t, std::less<>> places;  // of the types in text_
  const auto place_type = [&](const std::string& type, Entry& entry) {
    const std::string whole = with_charset(type, settings.charset);
    const auto [place, fresh] =
        places.try_emplace(whole, static_cast<uint32_t>(result.text_.size()));
    if (fresh) result.text_ += whole;
    entry.type_at = place->second;
    entry.type_size = static_cast<uint16_t>(whole.size());
  };
  result.entries_.reserve(types.size());
  for (const auto& [extension, type] : types) {
    Entry entry;
    place_type(type, entry);
    entry.extension_at = static_cast<uint32_t>(result.text_.size());
    entry.extension_size = static_cast<uint16_t>(extension.size());
    result.text_ += extension;
    result.entries_.push_back(entry);
    result.has_compound_ |= extension.find('.') != std::string::npos;
  }
  place_type(std::string(settings.default_type), result.default_);
  return result;
}

std::string_view MimeTypes::extension(const Entry& entry) const noexcept {
  return std::string_view(text_).substr(entry.extension_at, entry.extension_size);
}

const MimeTypes::Entry* MimeTypes::find(std::string_view lower_case_extension) const noexcept {
  const auto found = std::lower_bound(
      entries_.begin(), entries_.end(), lower_case_extension,
      [this](const Entry& entry, std::string_view wanted) { return extension(entry) < wanted; });
  if (found == entries_.end() || extension(*found) != lower_case_extension) return nullptr;
  return &*found;
}

std::string_view MimeTypes::lookup(std::string_view path) const noexcept {
  const std::string_view name = last_segment(path);
  const Entry* entry = nullptr;
  const size_t dot = name.rfind('.');
  // The dot of a hidden file makes no extension.
  if (dot != std::string_view::npos && dot != 0 &&
      name.size() - dot - 1 <= kMimeExtensionBytesMax) {
    size_t start = dot;
    if (has_compound_) {
      const size_t earlier = name.rfind('.', dot - 1);
      if (earlier != std::string_view::npos && earlier != 0 &&
          name.size() - earlier - 1 <= kMimeExtensionBytesMax) {
        start = earlier;
      }
    }
    std::array<char, kMimeExtensionBytesMax> lower;
    const std::string_view longest = name.substr(start + 1);
    std::transform(longest.begin(), longest.end(), lower.begin(), base::to_lower);
    const std::string_view both(lower.data(), longest.size());
    entry = find(both);
    if (entry == nullptr && start != dot) entry = find(both.substr(dot - start));
  }
  if (entry == nullptr) entry = &default_;
  return std::string_view(text_).substr(entry->type_at, entry->type_size);
}

MimeTypes::Inner MimeTypes::lookup_inner(std::string_view path) const noexcept {
  const size_t name_size = last_segment(path).size();
  for (Coding coding : kCodings) {
    const std::string_view suffix = coding_suffix(coding);
    if (name_size > suffix.size() &&
        base::equals_ignore_case(path.substr(path.size() - suffix.size()), suffix)) {
      return {lookup(path.substr(0, path.size() - suffix.size())), coding};
    }
  }
  return {lookup(path), Coding::kIdentity};
}

}  // namespace weir::files
