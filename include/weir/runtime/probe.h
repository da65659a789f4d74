// The start-up self-test: can this process have io_uring, and do the operations we rely on work as
// we rely on them? Run once by control before any core starts; nothing is found out under load. It
// makes a ring and a few loopback sockets of its own and leaves nothing behind.
#pragma once

#include <string>
#include <vector>

#include <weir/runtime/reactor.h>

namespace weir::runtime {

struct ProbeReport {
  bool usable = false;
  std::string cause;  // when not usable: what was refused, and why as far as can be told
  std::string cure;   // what to do about it
  // When usable: what was found missing or misbehaving and what is done without it.
  std::vector<std::string> remarks;
  std::vector<std::string> features;  // for people: weir --version
  ReceiveStrategy receive = ReceiveStrategy::kMultishot;
};

ProbeReport probe_kernel();

}  // namespace weir::runtime
