#include <csignal>

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include <weir/base/check.h>

namespace {

// Runs the body in a child and returns its wait status: a failed check must end the process.
template <class Body>
int status_of(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // Catch2 would report the signal as a failure of its own
    if (freopen("/dev/null", "w", stderr) == nullptr) _exit(2);
    body();
    _exit(0);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status;
}

}  // namespace

TEST_CASE("a check that holds does nothing and evaluates its expression once") {
  int evaluations = 0;
  WEIR_CHECK(++evaluations == 1);
  REQUIRE(evaluations == 1);
}

TEST_CASE("a broken check aborts the process") {
  const int status = status_of([] { WEIR_CHECK(1 + 1 == 3); });
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(WTERMSIG(status) == SIGABRT);
}

TEST_CASE("a debug check is evaluated only in builds that ask for it") {
  int evaluations = 0;
  WEIR_DCHECK(++evaluations == 1);
#ifdef WEIR_DEBUG_CHECKS
  REQUIRE(evaluations == 1);
#else
  REQUIRE(evaluations == 0);
#endif
}
