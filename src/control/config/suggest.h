// Words for messages: quoting, lists, and the nearest known name. Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <weir/control/config/schema.h>

namespace weir::control::config {

// "text", with control bytes and quotes escaped, cut where it is long.
// An object, not a function: a call with a std::string would otherwise find std::quoted too, which
// fits better, wherever <iomanip> is included (since libstdc++ 13 <chrono> does).
struct Quoted {
  std::string operator()(std::string_view text) const;
};
inline constexpr Quoted quoted{};
// a, b, c
std::string joined(const std::vector<std::string_view>& words);
// "a", "b", "c"
std::string joined_quoted(const std::vector<std::string_view>& words);

// `words` are separated by single spaces.
bool has_word(std::string_view words, std::string_view word) noexcept;
std::vector<std::string_view> split_words(std::string_view words);

// The candidate that `text` was probably meant to be, or empty when none is near enough.
std::string_view nearest(std::string_view text, const std::vector<std::string_view>& candidates);

// The header of the section that has this key, other than `here`, or of both if two do; empty when
// none or more do.
std::string home_of_key(const Section& here, std::string_view key);

// What to say about a key that this section never has, although people look for it there; empty:
// nothing in particular.
std::string_view misplaced_key(const Section& here, std::string_view key) noexcept;

// foreign.cc: "did you mean ...?" for a key, or a word of a choice, that other servers know; empty
// if none does.
std::string foreign_key_hint(const Section& here, std::string_view key);
std::string foreign_value_hint(const Setting& setting, std::string_view value);

// What TOML allows in a key without quotes.
bool is_bare_key(std::string_view key) noexcept;

}  // namespace weir::control::config
