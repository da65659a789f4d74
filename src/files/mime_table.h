// The built-in table of content types: what the web needs on a machine without mime.types. Private
// to the files room; constants.
#pragma once

#include <span>
#include <string_view>

namespace weir::files {

struct BuiltInType {
  std::string_view type;
  std::string_view extensions;  // separated by spaces
  // A table of the system does not replace it (MimeTypes says why).
  bool firm = false;
};

std::span<const BuiltInType> built_in_types() noexcept;

}  // namespace weir::files
