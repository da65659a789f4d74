// The simulated network: addresses, connecting, and the life of a stream as TCP has it. Where a
// rule is not obvious it names what the real kernel does; test/sim/seam_test.cc runs the same
// expectations against both.
#include <algorithm>
#include <cerrno>

#include <poll.h>

#include <weir/base/check.h>

#include <sim/sim_kernel.h>
#include <sim/world.h>

namespace weir::sim {

namespace {

constexpr uint64_t kConnectTimeout = 127 * kSecond;  // tcp_syn_retries = 6
constexpr uint32_t kSynRetries = 6;

bool any_address(const base::SocketAddress& address) {
  const auto ip = address.ip();
  if (!ip) return false;
  const size_t from = ip->is_v4() ? 12 : 0;
  return std::all_of(ip->bytes.begin() + from, ip->bytes.end(), [](uint8_t b) { return b == 0; });
}

// Does a socket bound to `bound` get what is sent to `to`? 2: exactly that address; 1: any address.
int match(const File& listener, const base::SocketAddress& to) {
  if (listener.local == to) return 2;
  if (to.is_unix() || listener.local.is_unix() || listener.local.port() != to.port()) return 0;
  if (!any_address(listener.local)) return listener.local.ip() == to.ip() ? 2 : 0;
  if (listener.family == to.base.sa_family) return 1;
  const bool dual = listener.family == AF_INET6 && !listener.option(IPPROTO_IPV6, IPV6_V6ONLY);
  return dual ? 1 : 0;
}

bool overlap(const File& file, const File& other, const base::SocketAddress& address) {
  if (other.local == address) return true;
  if (address.is_unix() || other.local.is_unix()) return false;
  if (other.local.port() != address.port()) return false;
  if (file.family == other.family) return any_address(address) || any_address(other.local);
  const File& six = file.family == AF_INET6 ? file : other;
  const base::SocketAddress& six_address = file.family == AF_INET6 ? address : other.local;
  return any_address(six_address) && !six.option(IPPROTO_IPV6, IPV6_V6ONLY);
}

}  // namespace

base::SocketAddress World::ephemeral(int family) {
  if (family == AF_UNIX) {
    base::SocketAddress unnamed;
    unnamed.base.sa_family = AF_UNIX;
    unnamed.length = sizeof(sa_family_t);
    return unnamed;
  }
  if (next_port_ < 32768) next_port_ = 32768;
  const char* loopback = family == AF_INET ? "127.0.0.1" : "::1";
  return base::SocketAddress::from_ip(*base::IpAddress::parse(loopback), next_port_++);
}

int World::bind(File& file, const base::SocketAddress& address) {
  if (file.bound || file.connected || file.connecting) return -EINVAL;
  base::SocketAddress wanted = address;
  if (!wanted.is_unix() && wanted.port() == 0) wanted.set_port(ephemeral(AF_INET).port());
  for (const auto& [fd, other] : bound_) {
    if (!overlap(file, *other, wanted)) continue;
    const bool shared =
        file.option(SOL_SOCKET, SO_REUSEPORT) && other->option(SOL_SOCKET, SO_REUSEPORT);
    if (!shared) return -EADDRINUSE;
  }
  file.local = wanted;
  file.bound = true;
  bound_[file.fd] = &file;
  return 0;
}

int World::listen(File& file, int backlog) {
  if (file.connected || file.connecting) return -EINVAL;
  if (!file.bound) {
    if (file.family == AF_UNIX) return -EINVAL;
    file.local = ephemeral(file.family);
    file.bound = true;
    bound_[file.fd] = &file;
  }
  file.backlog = backlog;
  if (file.kind == FileKind::kListener) return 0;
  file.kind = FileKind::kListener;
  file.order = ++next_order_;
  listeners_[file.order] = &file;
  if (file.local.is_unix()) unix_paths_.insert(file.local.to_string());
  trace("listen", file.fd, file.local.is_unix() ? 0 : file.local.port());
  return 0;
}

// The best match; among equal ones (SO_REUSEPORT) a random one, as the kernel hashes.
File* World::find_listener(const base::SocketAddress& to) {
  int best = 0;
  std::vector<File*> candidates;
  for (const auto& [order, listener] : listeners_) {
    const int quality = listener->shut ? 0 : match(*listener, to);
    if (quality == 0 || quality < best) continue;
    if (quality > best) candidates.clear();
    best = quality;
    candidates.push_back(listener);
  }
  if (candidates.empty()) return nullptr;
  return candidates[candidates.size() == 1 ? 0 : rng.below(candidates.size())];
}

Origin* World::find_origin(const base::SocketAddress& to) {
  for (Origin& origin : origins) {
    if (origin.address == to) return &origin;
  }
  return nullptr;
}

bool World::black_holed(const base::SocketAddress& to) const {
  return std::find(black_holes.begin(), black_holes.end(), to) != black_holes.end();
}

// --- connecting ---

void World::connect(File& file, const base::SocketAddress& to) {
  file.connecting = true;
  file.shut = false;
  file.connect_result = 1;
  file.remote = to;
  if (!file.bound) {
    file.local = ephemeral(file.family);
    file.bound = true;
  }
  const uint32_t attempt = ++file.attempt;
  const int fd = file.fd;
  const uint64_t latency = 10 * kMicrosecond + rng.below(100 * kMicrosecond);
  trace("connect", fd, to.is_unix() ? 0 : to.port());
  if (black_holed(to)) {
    fail_connect(fd, attempt, now + kConnectTimeout, ETIMEDOUT);
  } else if (strike(faults.connect_hang, counts.connect_hang)) {
    trace("fault: connect hangs", fd);
    fail_connect(fd, attempt, now + kConnectTimeout, ETIMEDOUT);
  } else if (strike(faults.refuse, counts.refuse)) {
    trace("fault: connect refused", fd);
    fail_connect(fd, attempt, now + 2 * latency, ECONNREFUSED);
  } else {
    uint64_t travel = latency;
    if (!to.is_unix() && strike(faults.slow_connect, counts.slow_connect)) {
      travel += kMicrosecond << rng.below(20);
      trace("fault: connect is slow", fd);
    }
    at(now + travel, [this, fd, attempt] { syn(fd, attempt, 0); });
  }
}

void World::fail_connect(int fd, uint32_t attempt, uint64_t when, int error) {
  at(when, [this, fd, attempt, error] {
    File* file = find_file(fd);
    if (file == nullptr || !file->connecting || file->attempt != attempt) return;
    file->connecting = false;
    file->shut = true;
    file->connect_result = -error;
  });
}

void World::syn(int fd, uint32_t attempt, uint32_t tries) {
  File* file = find_file(fd);
  if (file == nullptr || !file->connecting || file->attempt != attempt) return;
  Origin* origin = find_origin(file->remote);
  File* listener = origin == nullptr ? find_listener(file->remote) : nullptr;
  if (origin == nullptr && listener == nullptr) {
    const bool no_name = file->remote.is_unix() && !unix_paths_.contains(file->remote.to_string());
    fail_connect(fd, attempt, now + 20 * kMicrosecond, no_name ? ENOENT : ECONNREFUSED);
    return;
  }
  // A full accept queue drops the SYN; the client tries again after 1, 2, 4 .. seconds.
  if (listener != nullptr && listener->queue.size() > static_cast<size_t>(listener->backlog)) {
    if (tries >= kSynRetries) return fail_connect(fd, attempt, now, ETIMEDOUT);
    at(now + (kSecond << tries), [this, fd, attempt, tries] { syn(fd, attempt, tries + 1); });
    return;
  }
  Connection& connection = make_connection(file->local, file->remote);
  file->stream = &connection.client;
  connection.server.established = true;
  at(now + connection.latency_ns, [this, fd, attempt] {
    File* connecting = find_file(fd);
    if (connecting == nullptr || !connecting->connecting || connecting->attempt != attempt) return;
    connecting->connecting = false;
    connecting->connected = true;
    connecting->stream->established = true;
    connecting->connect_result = 0;
  });
  if (listener != nullptr) {
    listener->queue.push_back(&connection.server);
    return;
  }
  peers.push_back(std::make_unique<Peer>(*this, peers.size()));
  Peer& peer = *peers.back();
  peer.attach(connection.server);
  plan_doom(connection);
  const auto on_connection = origin->on_connection;  // the callback may change the list
  if (on_connection) on_connection(peer);
}

Peer& World::connect_client(const base::SocketAddress& to, const base::SocketAddress& from) {
  peers.push_back(std::make_unique<Peer>(*this, peers.size()));
  Peer& peer = *peers.back();
  base::SocketAddress source = from.length != 0 ? from : ephemeral(to.base.sa_family);
  if (!source.is_unix() && source.port() == 0) source.set_port(ephemeral(AF_INET).port());
  at(now + 10 * kMicrosecond + rng.below(100 * kMicrosecond),
     [this, &peer, to, source] { syn_from_peer(peer, to, source, 0); });
  return peer;
}

void World::syn_from_peer(Peer& peer, base::SocketAddress to, base::SocketAddress from,
                          uint32_t tries) {
  if (peer.ended()) return;
  File* listener = find_listener(to);
  if (listener == nullptr) return peer.fail(ECONNREFUSED);
  if (listener->queue.size() > static_cast<size_t>(listener->backlog)) {
    if (tries >= kSynRetries) return peer.fail(ETIMEDOUT);
    at(now + (kSecond << tries),
       [this, &peer, to, from, tries] { syn_from_peer(peer, to, from, tries + 1); });
    return;
  }
  Connection& connection = make_connection(from, to);
  connection.server.established = true;
  listener->queue.push_back(&connection.server);
  peer.attach(connection.client);
  plan_doom(connection);
}

Connection& World::make_connection(const base::SocketAddress& client,
                                   const base::SocketAddress& server) {
  connections_.push_back(std::make_unique<Connection>());
  Connection& made = *connections_.back();
  made.id = connections_.size();
  made.unix_domain = server.is_unix();
  made.latency_ns = 5 * kMicrosecond + rng.below(100 * kMicrosecond);
  const bool small = strike(faults.small_socket, counts.small_socket);
  for (Stream* end : {&made.client, &made.server}) {
    end->connection = &made;
    end->other = end == &made.client ? &made.server : &made.client;
    end->local = end == &made.client ? client : server;
    end->capacity = small ? 256 + rng.below(3840) : 65536 + rng.below(131072);
  }
  trace("connection", static_cast<int64_t>(made.id));
  return made;
}

// Decides now whether and when this connection will be broken from outside.
void World::plan_doom(Connection& connection) {
  Stream* scripted = connection.client.peer != nullptr ? &connection.client : &connection.server;
  // From a microsecond to four minutes, each order of magnitude as likely.
  const auto moment = [this] {
    return now + (kMicrosecond << rng.below(28)) + rng.below(kMillisecond);
  };
  if (faults.reset != 0 && rng.chance(faults.reset)) {
    at(moment(), [this, scripted] {
      if (calmed || scripted->dead || scripted->closed || scripted->vanished) return;
      ++counts.reset;
      trace("fault: reset", static_cast<int64_t>(scripted->connection->id));
      scripted->peer->disturbed_ = true;
      stream_reset(*scripted);
      scripted->peer->fail(ECONNRESET);  // its script may close: that is too late for a FIN
    });
  }
  if (faults.vanish != 0 && rng.chance(faults.vanish)) {
    at(moment(), [this, scripted] {
      if (calmed || scripted->dead || scripted->closed || scripted->vanished) return;
      ++counts.vanish;
      trace("fault: vanish", static_cast<int64_t>(scripted->connection->id));
      scripted->peer->disturbed_ = true;
      scripted->peer->vanish();
    });
  }
}

int World::accept(File& listener, base::SocketAddress* from) {
  Stream* stream = listener.queue.front();
  listener.queue.pop_front();
  File& accepted = open_file(FileKind::kSocket);
  accepted.family = listener.family;
  accepted.options = listener.options;  // TCP_NODELAY and its like are inherited
  accepted.bound = true;
  accepted.connected = true;
  accepted.stream = stream;
  accepted.local = stream->local;
  accepted.remote = stream->other->local;
  if (from != nullptr) *from = accepted.remote;
  return accepted.fd;
}

void World::close_socket(File& file) {
  listeners_.erase(file.order);
  for (Stream* waiting : file.queue) stream_close(*waiting, true);
  file.queue.clear();
  if (file.stream == nullptr) return;
  stream_close(*file.stream, file.option(SOL_SOCKET, SO_LINGER));
}

int World::shutdown(File& file, int how) {
  trace("shutdown", file.fd, how);
  const bool read_side = how == SHUT_RD || how == SHUT_RDWR;
  const bool write_side = how == SHUT_WR || how == SHUT_RDWR;
  if (file.kind == FileKind::kListener) {
    if (!read_side) return 0;
    file.shut = true;
    listeners_.erase(file.order);
    for (Stream* waiting : file.queue) stream_close(*waiting, true);
    file.queue.clear();
    return 0;
  }
  if (file.connecting)
    die("shutdown of a connecting socket is not simulated: cancel and close", file.fd);
  Stream* stream = file.stream;
  if (!file.connected && read_side) file.shut = true;
  if (!file.connected || stream->dead || (stream->fin_sent && stream->fin_arrived))
    return -ENOTCONN;
  if (read_side) stream->shut_read = true;
  if (write_side) stream_shutdown_write(*stream);
  return 0;
}

// --- streams ---

int64_t World::stream_send(Stream& stream, std::string_view bytes) {
  if (stream.error != 0) return -std::exchange(stream.error, 0);
  if (stream.fin_sent || stream.dead) return -EPIPE;
  if (!stream.established) return -EAGAIN;
  Stream& to = *stream.other;
  if (stream.connection->unix_domain && to.closed) return -EPIPE;
  const size_t taken = std::min(bytes.size(), stream.room());
  if (taken == 0) return -EAGAIN;
  to.rx.append(bytes.substr(0, taken));
  arrival(to, [this, &to, taken] { deliver(to, taken); });
  return static_cast<int64_t>(taken);
}

int64_t World::stream_recv(Stream& stream, char* out, size_t bytes, bool peek) {
  if (stream.arrived == 0) {
    // After the peer's FIN there is only the end, whatever else happened (SOCK_DONE).
    if (stream.fin_arrived) return 0;
    if (stream.error != 0) return -std::exchange(stream.error, 0);
    return stream.shut_read || stream.dead ? 0 : -EAGAIN;
  }
  const size_t taken = std::min(bytes, stream.arrived);
  const std::string_view data = stream.rx.front(taken);
  data.copy(out, taken);
  if (peek) return static_cast<int64_t>(taken);
  stream.rx.drop(taken);
  stream.arrived -= taken;
  Peer* sender = stream.other->peer;
  if (sender != nullptr && sender->unsent() > 0) {
    at(now + stream.connection->latency_ns, [sender] { sender->pump_out(); });
  }
  return static_cast<int64_t>(taken);
}

void World::stream_shutdown_write(Stream& stream) {
  if (stream.fin_sent || stream.dead) return;
  stream.fin_sent = true;
  Stream& to = *stream.other;
  arrival(to, [this, &to] { deliver_fin(to); });
}

void World::stream_reset(Stream& stream) {
  if (stream.dead) return;
  stream.dead = true;
  Stream& to = *stream.other;
  // What has not arrived is lost or not, as the network likes.
  if (rng.chance(50)) {
    to.rx.truncate(to.arrived);
    to.cut = true;
  }
  arrival(to, [this, &to] { deliver_reset(to); });
}

void World::stream_close(Stream& stream, bool abort) {
  if (stream.closed) return;
  stream.closed = true;
  // The unread bytes stay where they are: the sender must not see room before it sees the reset.
  const bool unread = stream.arrived > 0;
  if (stream.dead || stream.vanished) return;
  // Closing with unread data is a reset (RFC 2525, 2.17), as on Linux.
  if (abort || unread) {
    stream_reset(stream);
  } else {
    stream_shutdown_write(stream);
  }
}

void World::arrival(Stream& to, std::function<void()> action) {
  uint64_t when = now + to.connection->latency_ns + rng.below(to.connection->latency_ns);
  if (when < to.last_arrival) when = to.last_arrival;
  to.last_arrival = when;
  at(when, std::move(action));
}

void World::deliver(Stream& to, size_t bytes) {
  bytes = std::min(bytes, to.rx.size() - to.arrived);  // a reset may have taken some
  if (bytes == 0 || to.dead || to.vanished) return;
  if (to.closed) return stream_reset(to);
  to.arrived += bytes;
  notify(to);
}

void World::deliver_fin(Stream& to) {
  if (to.dead || to.vanished || to.cut) return;
  to.fin_arrived = true;
  notify(to);
}

void World::deliver_reset(Stream& to) {
  if (to.dead || to.vanished) return;
  to.dead = true;
  to.error = to.fin_arrived ? EPIPE : ECONNRESET;
  to.rx.truncate(to.arrived);
  notify(to);
}

void World::notify(Stream& stream) {
  if (stream.peer != nullptr) stream.peer->pump_in();
}

uint32_t World::poll_mask(const File& file) const {
  if (file.kind == FileKind::kEvent) return POLLOUT | (file.counter > 0 ? POLLIN : 0);
  if (file.kind == FileKind::kListener) {
    if (file.shut) return POLLIN | POLLRDNORM | POLLRDHUP | POLLOUT | POLLWRNORM | POLLHUP;
    return file.queue.empty() ? 0 : POLLIN | POLLRDNORM;
  }
  if (file.connecting) return 0;
  if (!file.connected) return POLLOUT | POLLWRNORM | POLLHUP;
  const Stream& stream = *file.stream;
  const bool read_shut = stream.fin_arrived || stream.shut_read || stream.dead;
  const bool write_shut = stream.fin_sent || stream.dead;
  uint32_t mask = 0;
  if (read_shut && write_shut) mask |= POLLHUP;
  if (read_shut) mask |= POLLIN | POLLRDNORM | POLLRDHUP;
  if (stream.arrived > 0) mask |= POLLIN | POLLRDNORM;
  if (stream.writable()) mask |= POLLOUT | POLLWRNORM;
  if (stream.error != 0) mask |= POLLERR;
  return mask;
}

}  // namespace weir::sim
