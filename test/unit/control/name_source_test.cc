// Names where weir was built without c-ares; the other way is that of name_watch_test.cc.
#include <catch2/catch_test_macros.hpp>

#include "name_source.h"

namespace weir::control {

TEST_CASE("without c-ares: the system's resolver, once for each load") {
  const auto names = make_system_names();
  std::string error;
  REQUIRE(names->configure(config::ResolverSettings(), error));
  const WatchedName local{.name = "localhost", .port = 81};
  const WatchedName v4{.name = "localhost", .port = 82, .family = ResolveFamily::kV4};
  const WatchedName absent{.name = "no-such-host.invalid", .port = 80};
  const WatchedName service{.name = "_http._tcp.x.test", .srv = true};
  names->set_names({local, v4, absent, service, local});
  CHECK(names->unasked() == 0);
  REQUIRE_FALSE(names->find(local)->addresses.empty());
  CHECK(names->find(local)->addresses[0].address.to_string() == "127.0.0.1:81");
  CHECK(names->find(local)->trouble.empty());
  REQUIRE(names->find(v4)->addresses.size() == 1);
  CHECK(names->find(v4)->addresses[0].address.to_string() == "127.0.0.1:82");
  CHECK(names->find(absent)->addresses.empty());
  CHECK_FALSE(names->find(absent)->trouble.empty());
  CHECK(names->find(service)->trouble.contains("c-ares"));
  names->set_names({local});
  CHECK(names->find(local) != nullptr);
  CHECK(names->find(absent) == nullptr);
  CHECK_FALSE(names->stopped());
  names->stop();
  CHECK(names->stopped());
}

}  // namespace weir::control
