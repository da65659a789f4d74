// SystemNames: getaddrinfo(3) when a configuration is loaded, and not again before the next one.
#include <algorithm>
#include <cstring>
#include <utility>

#include <netdb.h>

#include "name_source.h"

namespace weir::control {

namespace {

class SystemNames final : public NameSource {
 public:
  bool configure(const config::ResolverSettings&, std::string&) override {
    old_ = true;
    return true;
  }
  void set_names(const std::vector<WatchedName>& names) override;
  [[nodiscard]] const KnownName* find(const WatchedName& name) const override {
    const auto found = known_.find(name);
    return found == known_.end() ? nullptr : &found->second;
  }
  [[nodiscard]] size_t unasked() const noexcept override { return 0; }
  void stop() noexcept override { stopped_ = true; }
  [[nodiscard]] bool stopped() const noexcept override { return stopped_; }

 private:
  std::map<WatchedName, KnownName> known_;
  bool old_ = true;  // what is known is of the load before
  bool stopped_ = false;
};

bool is_localhost(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);  // the same, without the search domains
  return name == "localhost" || name.ends_with(".localhost");
}

void add_address(const addrinfo& from, std::vector<ResolvedAddress>& out) {
  ResolvedAddress one;
  if (from.ai_addrlen > sizeof one.address.un) return;
  std::memcpy(&one.address.un, from.ai_addr, from.ai_addrlen);
  one.address.length = from.ai_addrlen;
  if (std::ranges::find(out, one) == out.end()) out.push_back(std::move(one));
}

void look_up(const WatchedName& name, KnownName& known) {
  known.asked = true;
  if (name.srv) {
    known.trouble = "SRV records need c-ares, without which this weir was built";
    return;
  }
  addrinfo hints{};
  hints.ai_family = name.family == ResolveFamily::kV4   ? AF_INET
                    : name.family == ResolveFamily::kV6 ? AF_INET6
                                                        : AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status =
      getaddrinfo(name.name.c_str(), std::to_string(name.port).c_str(), &hints, &found);
  std::vector<ResolvedAddress> addresses;
  for (const addrinfo* it = status == 0 ? found : nullptr; it != nullptr; it = it->ai_next) {
    add_address(*it, addresses);
  }
  if (status == 0) freeaddrinfo(found);
  // RFC 6761, 6.3: always the loopback, also where no hosts file says so.
  if (addresses.empty() && is_localhost(name.name)) {
    const auto ip = name.family == ResolveFamily::kV6 ? *base::IpAddress::parse("::1")
                                                      : base::IpAddress::from_v4(INADDR_LOOPBACK);
    addresses.emplace_back().address = base::SocketAddress::from_ip(ip, name.port);
  }
  if (addresses.empty()) {
    known.trouble = status == 0 ? "the name has no address" : gai_strerror(status);
    return;  // those of before, if there were any, stay
  }
  // As Resolver has them, so that the same set is always the same list.
  std::ranges::sort(addresses, {}, [](const ResolvedAddress& one) {
    const base::IpAddress ip = one.address.ip().value_or(base::IpAddress{});
    return std::pair(!ip.is_v4(), ip.bytes);
  });
  const size_t kept = std::min(addresses.size(), Resolver::kAddressesMax);
  known.left_out = static_cast<uint32_t>(addresses.size() - kept);
  addresses.resize(kept);
  known.addresses = std::move(addresses);
  known.trouble.clear();
}

void SystemNames::set_names(const std::vector<WatchedName>& names) {
  keep_known(known_, names);
  for (auto& [name, known] : known_) {
    if (old_ || !known.asked) look_up(name, known);
  }
  old_ = false;
}

}  // namespace

std::unique_ptr<NameSource> make_system_names() { return std::make_unique<SystemNames>(); }

}  // namespace weir::control
