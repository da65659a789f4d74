// The judgement at the end of a simulated run of the proxy: what clients saw, what origins saw and
// what weir's own log says must fit together, and every failure needs a cause that was really
// there. What does not fit goes to Run::violation.
#pragma once

#include <sim/proxy_run.h>

namespace weir::sim {

// When the run is over and the books of all scripts are closed.
void judge(Run& run);

}  // namespace weir::sim
