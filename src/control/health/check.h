// One health check: connect, shake hands, ask, judge, close. A coroutine on control's reactor,
// owned by the HealthChecker, which can ask it to stop; it is done soon after, never at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <weir/control/health.h>
#include <weir/net/listen.h>
#include <weir/net/transport.h>
#include <weir/runtime/task.h>
#include <weir/runtime/timer_wheel.h>

#include "answer.h"

namespace weir::control {

// Shared by those that follow each other, until the settings change.
struct CheckPlan {
  explicit CheckPlan(const HealthTarget& settings)
      : target(settings), request(make_request(settings)) {}
  const HealthTarget target;
  const std::string request;
};

enum class CheckStop : uint8_t { kNo, kDeadline, kGivenUp };

struct CheckRun {
  CheckRun(runtime::Reactor& owner, std::shared_ptr<const CheckPlan> what) noexcept;
  CheckRun(const CheckRun&) = delete;
  CheckRun& operator=(const CheckRun&) = delete;
  ~CheckRun();
  // Whatever it waits for, now or next, ends soon. The first reason counts.
  void ask_to_stop(CheckStop why) noexcept;

  struct Deadline : runtime::Timer {
    explicit Deadline(CheckRun& owner) noexcept
        : Timer([](Timer& timer) noexcept {
            static_cast<Deadline&>(timer).run.ask_to_stop(CheckStop::kDeadline);
          }),
          run(owner) {}
    CheckRun& run;
  };
  runtime::Reactor& reactor;
  const std::shared_ptr<const CheckPlan> plan;
  HealthChecker::Entry* entry = nullptr;  // null: nobody wants to know any more
  const uint64_t began_ns;
  const uint64_t deadline_ms;
  const char* stage = "connecting";
  CheckStop stop = CheckStop::kNo;
  net::ConnectHandle connect;
  net::Transport* transport = nullptr;
  Deadline deadline;
};

// `run` outlives it.
runtime::Task<CheckResult> check_server(CheckRun& run, net::tls::Engine* engine);

}  // namespace weir::control
