#include <weir/files/file_path.h>

#include <algorithm>

namespace weir::files {

namespace {

using Refusal = std::unexpected<PathRefusal>;

constexpr std::string_view kWellKnown = ".well-known";  // RFC 8615

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Does a decoded name hold ASCII in two, three or four bytes of UTF-8? No encoder writes that.
bool has_overlong(std::string_view name) noexcept {
  const auto at = [name](size_t i) {
    return i < name.size() ? static_cast<uint8_t>(name[i]) : uint8_t{0};
  };
  const auto goes_on = [](uint8_t byte) { return (byte & 0xc0U) == 0x80; };
  for (size_t i = 0; i + 1 < name.size(); ++i) {
    const uint8_t first = at(i);
    const uint8_t second = at(i + 1);
    if ((first == 0xc0 || first == 0xc1) && goes_on(second)) return true;
    if (first == 0xe0 && (second == 0x80 || second == 0x81) && goes_on(at(i + 2))) return true;
    if (first == 0xf0 && second == 0x80 && (at(i + 2) == 0x80 || at(i + 2) == 0x81) &&
        goes_on(at(i + 3))) {
      return true;
    }
  }
  return false;
}

// A byte that no name may have, decoded or not.
bool is_refused_byte(uint8_t byte) noexcept { return byte < 0x20 || byte == 0x7f; }

// Decodes one segment to the front of `out`. Dot segments and hidden files are for check_name().
std::expected<size_t, PathRefusal> decode_segment(std::string_view segment,
                                                  std::span<char> out) noexcept {
  size_t size = 0;
  for (size_t i = 0; i < segment.size(); ++i) {
    auto byte = static_cast<uint8_t>(segment[i]);
    if (byte == '%') {
      if (segment.size() - i < 3) return Refusal(PathRefusal::kBadEscape);
      const int high = hex_digit(segment[i + 1]);
      const int low = hex_digit(segment[i + 2]);
      if (high < 0 || low < 0) return Refusal(PathRefusal::kBadEscape);
      byte = static_cast<uint8_t>(high << 4 | low);
      if (byte == '/') return Refusal(PathRefusal::kEscapedSlash);
      i += 2;
    } else if (byte == '?' || byte == '#') {
      return Refusal(PathRefusal::kBadByte);
    }
    if (byte == '\\') return Refusal(PathRefusal::kBackslash);
    if (is_refused_byte(byte)) return Refusal(PathRefusal::kBadByte);
    if (size == kNameBytesMax) return Refusal(PathRefusal::kNameTooLong);
    if (size == out.size()) return Refusal(PathRefusal::kPathTooLong);
    out[size++] = static_cast<char>(byte);
  }
  return size;
}

std::expected<void, PathRefusal> check_name(std::string_view name, FilePathRules rules) noexcept {
  if (name.empty()) return Refusal(PathRefusal::kEmptySegment);
  if (name == "." || name == "..") return Refusal(PathRefusal::kDotSegment);
  if (has_overlong(name)) return Refusal(PathRefusal::kOverlong);
  if (name[0] == '.' && !rules.allow_hidden && name != kWellKnown) {
    return Refusal(PathRefusal::kHidden);
  }
  return {};
}

// What follows the route's path: empty, or starts with '/'.
std::expected<std::string_view, PathRefusal> rest_of(std::string_view route_path,
                                                     std::string_view request_path) noexcept {
  if (route_path.ends_with('/')) route_path.remove_suffix(1);
  if (!request_path.starts_with('/') || !request_path.starts_with(route_path)) {
    return Refusal(PathRefusal::kOutsideRoute);
  }
  const std::string_view rest = request_path.substr(route_path.size());
  if (!rest.empty() && rest[0] != '/') return Refusal(PathRefusal::kOutsideRoute);
  return rest;
}

}  // namespace

std::string_view refusal_text(PathRefusal why) noexcept {
  switch (why) {
    case PathRefusal::kOutsideRoute: return "the path is not below the route's";
    case PathRefusal::kBadEscape: return "an escape in the path is not two hex digits";
    case PathRefusal::kBadByte: return "the path has a control character";
    case PathRefusal::kEscapedSlash: return "the path has an escaped slash";
    case PathRefusal::kBackslash: return "the path has a backslash";
    case PathRefusal::kOverlong: return "the path has an overlong UTF-8 form";
    case PathRefusal::kEmptySegment: return "the path has an empty segment";
    case PathRefusal::kDotSegment: return "the path has a dot segment";
    case PathRefusal::kHidden: return "the path names a hidden file";
    case PathRefusal::kNameTooLong: return "a name in the path is too long";
    case PathRefusal::kPathTooLong: return "the path is too long";
  }
  return "";
}

std::expected<FilePath, PathRefusal> resolve_file_path(std::string_view route_path,
                                                       std::string_view request_path,
                                                       FilePathRules rules,
                                                       std::span<char> scratch) noexcept {
  auto rest = rest_of(route_path, request_path);
  if (!rest) return Refusal(rest.error());
  if (scratch.size() < 2) return Refusal(PathRefusal::kPathTooLong);
  const size_t room = std::min(scratch.size() - 1, kFilePathBytesMax);  // without the NUL
  FilePath result;
  size_t used = 0;
  while (!rest->empty()) {
    rest->remove_prefix(1);  // the slash
    if (rest->empty()) {
      result.must_be_directory = true;
      break;
    }
    const std::string_view segment = rest->substr(0, rest->find('/'));
    rest->remove_prefix(segment.size());
    if (used != 0) {
      if (used == room) return Refusal(PathRefusal::kPathTooLong);
      scratch[used++] = '/';
    }
    const auto size = decode_segment(segment, scratch.subspan(used, room - used));
    if (!size) return Refusal(size.error());
    const std::string_view name(scratch.data() + used, *size);
    if (const auto checked = check_name(name, rules); !checked) return Refusal(checked.error());
    used += *size;
  }
  if (used == 0) scratch[used++] = '.';
  scratch[used] = '\0';
  result.path = {scratch.data(), used};
  return result;
}

bool is_servable_name(std::string_view name, FilePathRules rules) noexcept {
  if (name.size() > kNameBytesMax) return false;
  for (char c : name) {
    if (c == '/' || c == '\\' || is_refused_byte(static_cast<uint8_t>(c))) return false;
  }
  return check_name(name, rules).has_value();
}

}  // namespace weir::files
