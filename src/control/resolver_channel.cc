#include "resolver_channel.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

namespace weir::control {

namespace {
constexpr int kUdpBytes = 1232;           // what passes without fragments (DNS flag day 2020)
constexpr uint64_t kRetryPollMs = 100;    // after a poll that failed (no memory, for example)
constexpr uint32_t kReceivesMax = 1'024;  // a step; what is left is told of by the next poll
constexpr size_t kFailuresMax = 512;

ares_socket_t open_socket(int family, int type, int protocol, void*) noexcept {
  const int fd = ::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  const int one = 1;
  if (fd >= 0 && type == SOCK_STREAM) {
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  return fd;
}
int close_socket(ares_socket_t fd, void*) noexcept { return ::close(fd); }
int connect_socket(ares_socket_t fd, const sockaddr* to, ares_socklen_t length, void*) noexcept {
  return ::connect(fd, to, length);
}
ares_ssize_t send_parts(ares_socket_t fd, const iovec* parts, int count, void*) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts);
  message.msg_iovlen = static_cast<size_t>(count);
  return ::sendmsg(fd, &message, MSG_NOSIGNAL);
}
}  // namespace

const ares_socket_functions DnsChannel::kSocketFunctions = {
    .asocket = &open_socket,
    .aclose = &close_socket,
    .aconnect = &connect_socket,
    .arecvfrom = &DnsChannel::receive,
    .asendv = &send_parts,
};

DnsChannel::StepTimer::StepTimer(DnsChannel& owner) noexcept
    : Timer([](Timer& timer) noexcept { static_cast<StepTimer&>(timer).channel.step(); }),
      channel(owner) {}

DnsChannel::DnsChannel(runtime::Reactor& reactor, std::function<uint64_t()> on_step)
    : reactor_(reactor), on_step_(std::move(on_step)), timer_(*this) {
  ares_library_init(ARES_LIB_INIT_ALL);  // counts
}

DnsChannel::~DnsChannel() {
  WEIR_CHECK(stopped());
  ares_library_cleanup();
}

bool DnsChannel::open(const ResolverOptions& options, std::string& error) {
  ares_options settings{};
  settings.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS;
  settings.ednspsz = kUdpBytes;
  settings.timeout = static_cast<int>(options.try_timeout_ms);
  settings.tries = static_cast<int>(options.tries);
  settings.sock_state_cb = &DnsChannel::on_socket;
  settings.sock_state_cb_data = this;
  std::string path = options.resolv_conf;
  settings.resolvconf_path = path.data();
  int mask = ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
             ARES_OPT_SOCK_STATE_CB | ARES_OPT_RESOLVCONF;
#ifdef ARES_OPT_QUERY_CACHE
  mask |= ARES_OPT_QUERY_CACHE;  // none: when an answer is old is decided here
#endif
  ares_channel made = nullptr;
  int status = ares_init_options(&made, &settings, mask);
  if (status != ARES_SUCCESS) {
    error = std::string("the resolver cannot be set up: ") + ares_strerror(status);
    return false;
  }
  std::unique_ptr<ares_channeldata, Destroy> channel(made);
  ares_set_socket_functions(made, &kSocketFunctions, this);
  std::string servers;
  for (const std::string& server : options.servers) {
    if (!servers.empty()) servers += ",";
    servers += server;
  }
  if (!servers.empty()) status = ares_set_servers_ports_csv(made, servers.c_str());
  if (status != ARES_SUCCESS) {
    error = "the name servers cannot be used: ";
    error.append(servers).append(" (").append(ares_strerror(status)).append(")");
    return false;
  }
  // The one before goes now, at the end of this function; its sockets are told of by on_socket.
  std::swap(channel_, channel);
  search_ = read_search_list(options.resolv_conf);
  return true;
}

std::vector<std::string> DnsChannel::candidates(std::string_view text) const {
  std::vector<std::string> names;
  const std::string name = to_host_name(text);
  if (name.empty()) return names;
  if (!text.ends_with('.')) {
    for (const std::string& domain : search_.domains) {
      std::string longer = name;
      longer.append(".").append(domain);
      longer = to_host_name(longer);
      if (!longer.empty()) names.push_back(std::move(longer));
    }
  }
  const auto dots = static_cast<size_t>(std::ranges::count(name, '.'));
  names.insert(dots >= search_.ndots ? names.begin() : names.end(), name);
  return names;
}

void DnsChannel::query(const std::string& name, RecordType type, ares_callback callback,
                       void* argument) {
  WEIR_CHECK(stepping_);
  constexpr int kInternet = 1;
  ares_query(channel_.get(), name.c_str(), kInternet, static_cast<int>(type), callback, argument);
}

ares_ssize_t DnsChannel::receive(ares_socket_t fd, void* out, size_t bytes, int flags,
                                 sockaddr* from, ares_socklen_t* from_length, void* self) noexcept {
  auto& channel = *static_cast<DnsChannel*>(self);
  const ares_socklen_t room = from_length == nullptr ? 0 : *from_length;
  while (++channel.received_ <= kReceivesMax) {
    if (from_length != nullptr) *from_length = room;
    const ssize_t got = ::recvfrom(fd, out, bytes, flags, from, from_length);
    // An address is asked for of packets, not of streams.
    if (got < 0 || from == nullptr) return got;
    auto question =
        parse_dns_question({static_cast<const uint8_t*>(out), static_cast<size_t>(got)});
    if (!question) continue;
    channel.note_failure(std::move(*question));
    return got;
  }
  errno = EWOULDBLOCK;
  return -1;
}

void DnsChannel::note_failure(DnsQuestion question) {
  constexpr uint8_t kNameError = 3;
  if (question.rcode == 0 || question.rcode == kNameError) return;
  if (failures_.size() >= kFailuresMax) failures_.clear();
  failures_[{std::move(question.name), question.type}] = {question.rcode, reactor_.now_ms()};
}

uint8_t DnsChannel::rcode_since(const std::string& name, RecordType type, uint64_t since_ms) const {
  const auto found = failures_.find({name, static_cast<uint16_t>(type)});
  if (found == failures_.end() || found->second.at_ms < since_ms) return 0;
  return found->second.rcode;
}

void DnsChannel::step_soon() {
  if (stopping_) return;
  again_ = true;
  if (!stepping_) reactor_.timers().arm(timer_, reactor_.now_ms());
}

void DnsChannel::stop() noexcept {
  stopping_ = true;
  reactor_.timers().disarm(timer_);
  // Inside a step c-ares is not on the stack while others run, but the step itself goes on.
  channel_.reset();
  if (!stepping_) sweep();
}

// Of c-ares: what it wants to know about a socket; nothing any more, right before it closes it.
void DnsChannel::on_socket(void* self, ares_socket_t fd, int readable, int writable) noexcept {
  auto& channel = *static_cast<DnsChannel*>(self);
  const uint32_t wanted = (readable != 0 ? POLLIN : 0u) | (writable != 0 ? POLLOUT : 0u);
  auto at = std::ranges::find_if(channel.watches_, [&](const std::unique_ptr<Watch>& watch) {
    return watch->fd == fd && !watch->closed;
  });
  if (at == channel.watches_.end()) {
    if (wanted == 0) return;
    at = channel.watches_.insert(at, std::make_unique<Watch>(channel, fd));
  }
  Watch& watch = **at;
  watch.wanted = wanted;
  watch.closed = wanted == 0;
  if (watch.in_flight() && watch.armed != wanted) watch.cancel(channel.reactor_.ring());
}

void DnsChannel::on_poll(runtime::Op& op, int32_t result, uint32_t) noexcept {
  auto& watch = static_cast<Watch&>(op);
  watch.armed = 0;
  if (result > 0) watch.ready |= static_cast<uint32_t>(result);
  DnsChannel& channel = watch.channel;
  if (channel.stopping_) {
    if (!channel.stepping_) channel.sweep();
    return;
  }
  // A poll that cannot be had is asked for again by the timer; c-ares' own timeouts go on.
  const bool failed = result < 0 && result != -ECANCELED;
  if (!failed) return channel.step_soon();
  const uint64_t retry_ms = channel.reactor_.now_ms() + kRetryPollMs;
  if (!channel.timer_.armed() || channel.timer_.expires_ms() > retry_ms) {
    channel.reactor_.timers().arm(channel.timer_, retry_ms);
  }
}

void DnsChannel::process_ready() {
  while (channel_) {
    const auto at = std::ranges::find_if(watches_, [](const std::unique_ptr<Watch>& watch) {
      return watch->ready != 0 && !watch->closed;
    });
    if (at == watches_.end()) return;
    Watch& watch = **at;
    const uint32_t ready = std::exchange(watch.ready, 0);
    // POLLERR and POLLHUP: a read or a write tells c-ares what it is.
    const bool ended = (ready & ~uint32_t{POLLIN | POLLOUT}) != 0;
    const int fd = watch.fd;  // the watch may end in this very call
    const bool writable = (ready & POLLOUT) != 0 || (ended && (watch.wanted & POLLOUT) != 0);
    ares_process_fd(channel_.get(), (ready & POLLIN) != 0 || ended ? fd : ARES_SOCKET_BAD,
                    writable ? fd : ARES_SOCKET_BAD);
  }
}

// Frees what c-ares has closed and the kernel has given back.
void DnsChannel::sweep() {
  std::erase_if(watches_, [](const std::unique_ptr<Watch>& watch) {
    return watch->closed && !watch->in_flight();
  });
}

void DnsChannel::arm(Watch& watch) noexcept {
  io_uring_sqe* entry = reactor_.ring().sqe();
  io_uring_prep_poll_add(entry, watch.fd, watch.wanted);
  watch.armed = watch.wanted;
  watch.start(entry);
}

void DnsChannel::step() noexcept {
  stepping_ = true;
  again_ = false;
  received_ = 0;
  process_ready();
  if (channel_) ares_process_fd(channel_.get(), ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // timeouts
  const uint64_t wanted_ms = on_step_();
  stepping_ = false;
  sweep();
  if (stopping_) return;
  for (const std::unique_ptr<Watch>& watch : watches_) {
    if (!watch->closed && !watch->in_flight()) arm(*watch);
  }
  arm_timer(again_ ? reactor_.now_ms() : wanted_ms);
}

void DnsChannel::arm_timer(uint64_t wanted_ms) {
  timeval time{};
  if (const timeval* wait = ares_timeout(channel_.get(), nullptr, &time)) {
    // Rounded up: a step that comes before the timeout would only come again.
    const auto ms = static_cast<uint64_t>(wait->tv_sec) * 1'000 +
                    static_cast<uint64_t>(wait->tv_usec + 999) / 1'000;
    wanted_ms = std::min(wanted_ms, reactor_.now_ms() + ms);
  }
  if (wanted_ms != UINT64_MAX) reactor_.timers().arm(timer_, wanted_ms);
}

}  // namespace weir::control
