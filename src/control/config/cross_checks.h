// What no single setting can tell: settings that contradict each other, listeners and routes given
// twice, parts that are missing.
#pragma once

#include "reader.h"

namespace weir::control::config {

void cross_check(Reader& reader);

}  // namespace weir::control::config
