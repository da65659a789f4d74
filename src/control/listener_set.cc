#include <weir/control/listener_set.h>

#include <algorithm>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/net/listen.h>

namespace weir::control {

namespace {

ListenerError cannot_listen(const config::Listener& listener, base::Error error) {
  std::string text = "cannot listen on " + listener.address_text + ": ";
  text += error.os != 0 ? std::strerror(error.os) : std::string(base::to_string(error.code));
  if (error.code == base::Errc::kAddressInUse) text += " (another process listens there)";
  if (error.code == base::Errc::kPermission) {
    text += " (ports below 1024 need root or CAP_NET_BIND_SERVICE)";
  }
  return {listener.place, text};
}

void close_all(std::vector<int>& fds) noexcept {
  for (const int fd : fds) ::close(fd);
  fds.clear();
}

FileMark mark_of(const base::SocketAddress& address) noexcept {
  struct stat info;
  if (!address.is_unix() || address.un.sun_path[0] == 0) return {};
  if (::lstat(address.un.sun_path, &info) != 0) return {};
  return {info.st_dev, info.st_ino, info.st_ctim.tv_sec, info.st_ctim.tv_nsec};
}

// Unless a successor, started while we were draining, has bound its own socket there.
void remove_file(const OpenListener& listener) noexcept {
  if (listener.file.inode == 0 || mark_of(listener.bound) != listener.file) return;
  ::unlink(listener.bound.un.sun_path);
}

}  // namespace

ListenerSet::~ListenerSet() {
  for (const OpenListener& listener : present_) remove_file(listener);
}

// Is the port ours on another address? 127.0.0.1:80 beside 0.0.0.0:80 is in order.
bool ListenerSet::own_port(uint16_t port) const noexcept {
  const auto same = [&](const OpenListener& listener) { return listener.bound.port() == port; };
  const auto still = [&](const Closing& closing) { return closing.port == port; };
  return std::ranges::any_of(present_, same) || std::ranges::any_of(opening_, same) ||
         std::ranges::any_of(closing_, still);
}

std::expected<OpenListener, ListenerError> ListenerSet::open(const config::Listener& listener,
                                                             bool cbpf,
                                                             std::vector<std::string>& warnings) {
  OpenListener result;
  result.name = listener.name;
  result.configured = listener.address_text;
  result.bound = listener.address;
  result.backlog = listener.backlog;
  result.tls = listener.tls;
  result.redirect_https = listener.redirect_https;
  const net::ListenOptions options{.backlog = static_cast<int>(listener.backlog)};
  for (uint32_t core = 0; core < cores_; ++core) {
    if (listener.address.is_unix() && core > 0) {
      result.fds.push_back(::fcntl(result.fds[0], F_DUPFD_CLOEXEC, 0));
      continue;
    }
    // SO_REUSEPORT would let us join the sockets of another process of the same user without a
    // word, and share its traffic: the first socket is bound without it as a test.
    if (core == 0 && !listener.address.is_unix() && listener.address.port() != 0) {
      auto alone = net::open_listener(listener.address, {.backlog = 1, .reuse_port = false});
      if (alone) {
        ::close(*alone);
      } else if (alone.error().code != base::Errc::kAddressInUse ||
                 !own_port(listener.address.port())) {
        return std::unexpected(cannot_listen(listener, alone.error()));
      }
    }
    auto fd = net::open_listener(result.bound, options);
    if (!fd) {
      close_all(result.fds);
      return std::unexpected(cannot_listen(listener, fd.error()));
    }
    result.fds.push_back(*fd);
    if (core == 0) {
      result.file = mark_of(listener.address);
      if (auto bound = net::bound_address(*fd)) result.bound = *bound;
    }
  }
  if (cbpf && cores_ > 1 && !listener.address.is_unix()) {
    if (auto attached = net::balance_by_client_ip(result.fds[0], cores_); !attached) {
      warnings.push_back("cbpf balancing is refused for " + listener.address_text + " (" +
                         std::strerror(attached.error().os) + "): the kernel's own is used");
    }
  }
  return result;
}

// Which of `wanted` are there already. One to one: "127.0.0.1:0" may be there twice, perhaps with
// names that tell them apart.
std::vector<bool> ListenerSet::match(const std::vector<config::Listener>& wanted,
                                     Change& change) const {
  std::vector<bool> there(wanted.size());
  std::vector<const OpenListener*> left;
  left.reserve(present_.size());
  for (const OpenListener& listener : present_) left.push_back(&listener);
  for (const bool by_name : {true, false}) {
    std::erase_if(left, [&](const OpenListener* listener) {
      size_t i = 0;
      while (i < wanted.size() && (there[i] || wanted[i].address_text != listener->configured ||
                                   (by_name && wanted[i].name != listener->name))) {
        ++i;
      }
      if (i == wanted.size()) return false;
      there[i] = true;
      const config::Listener& next = wanted[i];
      if (next.tls != listener->tls || next.redirect_https != listener->redirect_https) {
        OpenListener& switched = change.switched.emplace_back(*listener);
        switched.tls = next.tls;
        switched.redirect_https = next.redirect_https;
      }
      return true;
    });
  }
  for (const OpenListener* listener : left) change.removed.push_back(listener->id);
  return there;
}

std::expected<ListenerSet::Change, ListenerError> ListenerSet::plan(
    const std::vector<config::Listener>& wanted, bool cbpf) {
  Change change;
  opening_.clear();
  const std::vector<bool> there = match(wanted, change);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (there[i]) continue;
    auto opened = open(wanted[i], cbpf, change.warnings);
    if (!opened) {
      abandon(change);
      return std::unexpected(opened.error());
    }
    opened->id = next_id_++;
    opening_.push_back(*opened);
    change.opened.push_back(std::move(*opened));
  }
  for (const OpenListener& listener : present_) {
    const auto same_port = [&](const OpenListener& opened) {
      return !opened.bound.is_unix() && opened.bound.port() == listener.bound.port();
    };
    if (!listener.bound.is_unix() && std::ranges::any_of(change.opened, same_port) &&
        std::ranges::find(change.removed, listener.id) != change.removed.end()) {
      change.succeeded.push_back(listener.id);
    }
  }
  return change;
}

void ListenerSet::commit(const Change& change) {
  for (const OpenListener& listener : present_) {
    if (std::ranges::find(change.removed, listener.id) == change.removed.end()) continue;
    if (!listener.bound.is_unix()) {
      closing_.push_back({.id = listener.id, .port = listener.bound.port(), .cores = cores_});
    }
    remove_file(listener);
  }
  std::erase_if(present_, [&](const OpenListener& listener) {
    return std::ranges::find(change.removed, listener.id) != change.removed.end();
  });
  for (const OpenListener& switched : change.switched) {
    const auto found = std::ranges::find(present_, switched.id, &OpenListener::id);
    found->tls = switched.tls;
    found->redirect_https = switched.redirect_https;
  }
  for (const OpenListener& listener : change.opened) {
    present_.push_back(listener);
    present_.back().fds.clear();
  }
}

void ListenerSet::note_closed(uint32_t id) {
  std::erase_if(closing_,
                [id](Closing& closing) { return closing.id == id && --closing.cores == 0; });
}

void ListenerSet::abandon(Change& change) noexcept {
  for (OpenListener& listener : change.opened) {
    close_all(listener.fds);
    remove_file(listener);
  }
  change.opened.clear();
}

}  // namespace weir::control
