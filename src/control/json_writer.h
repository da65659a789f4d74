// Writes JSON into a string that grows: objects, arrays, text, whole numbers, truth values. On one
// line, and always well-formed as far as begin and end pair up. Also the escaping of text that may
// have come from anywhere. Private to the control room; values of one thread.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace weir::control {

// The inside of a JSON string. Characters that a terminal or a line splitter acts upon (controls,
// line separators, marks that reorder text) become \uXXXX, and so does each byte that is not UTF-8.
void append_json_text(std::string& out, std::string_view text);
// For people: the same become \xXX or \uXXXX. Returns how many characters it takes on a screen, as
// far as one is as wide as the other.
size_t append_plain_text(std::string& out, std::string_view text);

class JsonWriter {
 public:
  JsonWriter& begin_object();
  JsonWriter& end_object();
  JsonWriter& begin_array();
  JsonWriter& end_array();
  JsonWriter& key(std::string_view name);
  JsonWriter& text(std::string_view value);
  JsonWriter& number(uint64_t value);
  JsonWriter& boolean(bool value);

  JsonWriter& field(std::string_view name, std::string_view value) { return key(name).text(value); }
  JsonWriter& field(std::string_view name, const char* value) { return key(name).text(value); }
  template <std::unsigned_integral T>
    requires(!std::same_as<T, bool>)
  JsonWriter& field(std::string_view name, T value) {
    return key(name).number(value);
  }
  template <std::same_as<bool> T>
  JsonWriter& field(std::string_view name, T value) {
    return key(name).boolean(value);
  }

  [[nodiscard]] std::string& out() noexcept { return out_; }

 private:
  void separate();

  std::string out_;
  bool comma_ = false;  // something stands before, on this level
};

}  // namespace weir::control
