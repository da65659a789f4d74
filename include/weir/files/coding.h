// Content codings of precompressed files: their names on the wire and the suffix of the file that
// holds them beside the original. Constants, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace weir::files {

// In the order in which weir prefers them when the client does not care.
enum class Coding : uint8_t { kBrotli, kZstd, kGzip, kIdentity };

inline constexpr std::array<Coding, 3> kCodings{Coding::kBrotli, Coding::kZstd, Coding::kGzip};

// The value of Content-Encoding; empty for kIdentity, which is never sent.
constexpr std::string_view coding_name(Coding coding) noexcept {
  constexpr std::array<std::string_view, 4> kNames{"br", "zstd", "gzip", ""};
  return kNames[static_cast<size_t>(coding)];
}

// "style.css" + ".br" is the file with that coding.
constexpr std::string_view coding_suffix(Coding coding) noexcept {
  constexpr std::array<std::string_view, 4> kSuffixes{".br", ".zst", ".gz", ""};
  return kSuffixes[static_cast<size_t>(coding)];
}

// Which precompressed files there are. The original (kIdentity) is always there.
class CodingSet {
 public:
  constexpr void add(Coding coding) noexcept { bits_ |= bit(coding); }
  [[nodiscard]] constexpr bool has(Coding coding) const noexcept {
    return (bits_ & bit(coding)) != 0;
  }
  [[nodiscard]] constexpr bool empty() const noexcept { return bits_ == 0; }

 private:
  static constexpr uint8_t bit(Coding coding) noexcept {
    return coding == Coding::kIdentity ? uint8_t{0}
                                       : static_cast<uint8_t>(1U << static_cast<unsigned>(coding));
  }
  uint8_t bits_ = 0;
};

}  // namespace weir::files
