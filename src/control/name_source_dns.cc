// DnsNames: a NameWatch, the Resolver that it asks, and what both have told.
#include <algorithm>
#include <utility>

#include <weir/control/file_fingerprint.h>

#include "name_source.h"

namespace weir::control {

namespace {

// How often it is looked whether the machine has other name servers now.
constexpr uint64_t kLookMs = 5'000;
constexpr uint32_t kTotalMinMs = 10'000;
constexpr uint32_t kTotalMaxMs = 60'000;

ResolverOptions options_of(const config::ResolverSettings& settings) {
  const auto ms = [](config::Milliseconds time) { return static_cast<uint32_t>(time.count()); };
  ResolverOptions options;
  options.servers = settings.servers;
  options.hosts = settings.hosts;
  options.try_timeout_ms = ms(settings.timeout);
  options.tries = settings.tries;
  // Each round takes twice as long as the one before.
  const uint64_t rounds = (uint64_t{1} << std::min(settings.tries, 16u)) - 1;
  options.total_timeout_ms = static_cast<uint32_t>(
      std::clamp<uint64_t>(rounds * options.try_timeout_ms, kTotalMinMs, kTotalMaxMs));
  options.min_ttl_ms = ms(settings.min_ttl);
  options.max_ttl_ms = ms(settings.max_ttl);
  return options;
}

class DnsNames final : public NameSource {
 public:
  DnsNames(runtime::Reactor& reactor, OnChange change)
      : reactor_(reactor), on_change_(std::move(change)), look_(*this) {}
  ~DnsNames() override { watch_.reset(); }

  bool configure(const config::ResolverSettings& settings, std::string& error) override;
  void set_names(const std::vector<WatchedName>& names) override;
  [[nodiscard]] const KnownName* find(const WatchedName& name) const override {
    const auto found = known_.find(name);
    return found == known_.end() ? nullptr : &found->second;
  }
  [[nodiscard]] size_t unasked() const noexcept override {
    return static_cast<size_t>(
        std::ranges::count_if(known_, [](const auto& one) { return !one.second.asked; }));
  }
  void stop() noexcept override;
  [[nodiscard]] bool stopped() const noexcept override {
    return stopping_ &&
           std::ranges::all_of(replaced_, &Resolver::stopped,
                               [](const auto& one) -> const Resolver& { return *one; }) &&
           (!resolver_ || resolver_->stopped());
  }

 private:
  struct Look : runtime::Timer {
    explicit Look(DnsNames& owner) noexcept
        : Timer([](Timer& timer) noexcept { static_cast<Look&>(timer).names.look(); }),
          names(owner) {}
    DnsNames& names;
  };
  void on_addresses(const WatchedName& name, const std::vector<ResolvedAddress>& addresses);
  void on_trouble(const WatchedName& name, ResolveError error);
  void learn_instantly(const WatchedName& name, KnownName& known);
  void look();

  runtime::Reactor& reactor_;
  OnChange on_change_;
  config::ResolverSettings settings_;
  std::string open_error_ = "the resolver is not set up";  // while there is no resolver
  FileFingerprint resolv_conf_;
  std::unique_ptr<Resolver> resolver_;
  std::vector<std::unique_ptr<Resolver>> replaced_;  // until the kernel has let go of them
  std::unique_ptr<NameWatch> watch_;                 // dies before them
  std::map<WatchedName, KnownName> known_;
  Look look_;
  bool loading_ = false;  // configure() was called since set_names()
  bool stopping_ = false;
};

bool DnsNames::configure(const config::ResolverSettings& settings, std::string& error) {
  if (stopping_) return true;
  loading_ = true;
  if (resolver_ && settings == settings_) {
    look();
    watch_->refresh();
    return true;
  }
  const ResolverOptions options = options_of(settings);
  resolv_conf_ = fingerprint(options.resolv_conf);
  auto next = Resolver::open(reactor_, options, error);
  if (!next) {
    if (!resolver_) open_error_ = error;
    return false;
  }
  settings_ = settings;
  if (watch_) {
    watch_->use(*next);
    resolver_->stop();
    replaced_.push_back(std::move(resolver_));
  }
  resolver_ = std::move(next);
  if (!watch_) {
    watch_ = std::make_unique<NameWatch>(
        reactor_, *resolver_, NameWatchOptions{},
        [this](const WatchedName& name, const std::vector<ResolvedAddress>& addresses) {
          on_addresses(name, addresses);
        },
        [this](const WatchedName& name, ResolveError what) { on_trouble(name, what); });
  }
  reactor_.timers().arm(look_, reactor_.now_ms() + kLookMs);
  return true;
}

void DnsNames::set_names(const std::vector<WatchedName>& names) {
  if (stopping_) return;
  keep_known(known_, names);
  for (auto& [name, known] : known_) {
    if (loading_ || !known.asked) learn_instantly(name, known);
  }
  loading_ = false;
  if (watch_) watch_->set_names(names);
}

// So that what the hosts file says is there from the first request of a configuration on.
void DnsNames::learn_instantly(const WatchedName& name, KnownName& known) {
  if (!resolver_) {
    known.asked = true;
    known.trouble = open_error_;
    return;
  }
  auto addresses =
      resolver_->instant(name.name, name.port, {.srv = name.srv, .family = name.family});
  if (addresses.empty()) return;
  known.addresses = std::move(addresses);
  known.trouble.clear();
  known.asked = true;
}

void DnsNames::on_addresses(const WatchedName& name,
                            const std::vector<ResolvedAddress>& addresses) {
  const auto found = known_.find(name);
  if (found == known_.end()) return;
  const NameWatch::State& state = *watch_->find(name);
  found->second.addresses = addresses;
  found->second.left_out = state.left_out;
  found->second.asked = true;
  if (state.error == ResolveError::kNone) found->second.trouble.clear();
  on_change_(name);
}

void DnsNames::on_trouble(const WatchedName& name, ResolveError error) {
  const auto found = known_.find(name);
  if (found == known_.end()) return;
  found->second.asked = true;
  found->second.trouble = error == ResolveError::kNone ? std::string_view() : to_text(error);
  on_change_(name);
}

// resolv.conf is another one: a network has come up, or is another one.
void DnsNames::look() {
  std::erase_if(replaced_, [](const auto& one) { return one->stopped(); });
  reactor_.timers().arm(look_, reactor_.now_ms() + kLookMs);
  const FileFingerprint now = fingerprint(ResolverOptions().resolv_conf);
  if (unchanged(resolv_conf_, now)) return;
  resolv_conf_ = now;
  std::string error;
  if (resolver_->reload(error)) watch_->refresh();
}

void DnsNames::stop() noexcept {
  stopping_ = true;
  reactor_.timers().disarm(look_);
  watch_.reset();
  if (resolver_) resolver_->stop();
}

}  // namespace

std::unique_ptr<NameSource> make_dns_names(runtime::Reactor& reactor, NameSource::OnChange change) {
  return std::make_unique<DnsNames>(reactor, std::move(change));
}

}  // namespace weir::control
