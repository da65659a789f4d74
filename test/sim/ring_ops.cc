// What each ring operation means to the simulated kernel. The order of checks is the real kernel's
// where it can be seen from outside; test/sim/seam_test.cc holds the two against each other.
#include <sim/ring_sim.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <poll.h>

#include <sim/sim_kernel.h>

namespace weir::sim {

namespace {

constexpr uint32_t kSendFlags = MSG_NOSIGNAL | MSG_WAITALL | MSG_DONTWAIT | MSG_MORE;
constexpr uint32_t kRecvFlags = MSG_NOSIGNAL | MSG_WAITALL | MSG_DONTWAIT | MSG_PEEK;

template <class T>
T* pointer(uint64_t address) {
  return reinterpret_cast<T*>(address);
}

bool multishot_recv(const io_uring_sqe& entry) {
  return entry.opcode == IORING_OP_RECV && (entry.ioprio & IORING_RECV_MULTISHOT) != 0;
}
bool multishot_accept(const io_uring_sqe& entry) {
  return entry.opcode == IORING_OP_ACCEPT && (entry.ioprio & IORING_ACCEPT_MULTISHOT) != 0;
}
bool poll_first(const io_uring_sqe& entry) {
  return (entry.opcode == IORING_OP_RECV || entry.opcode == IORING_OP_SEND ||
          entry.opcode == IORING_OP_SENDMSG) &&
         (entry.ioprio & IORING_RECVSEND_POLL_FIRST) != 0;
}

// The peer's address as the kernel gives it: as much as there is room for, and the true length.
void store_address(const io_uring_sqe& entry, const base::SocketAddress& address) {
  if (entry.addr == 0) return;
  auto* length = pointer<socklen_t>(entry.addr2);
  std::memcpy(pointer<void>(entry.addr), &address.base, std::min(*length, address.length));
  *length = address.length;
}

}  // namespace

void RingSim::unknown(const Operation& op, const char* what) const {
  world_.trace("not simulated", op.entry.opcode, op.entry.flags, op.entry.ioprio);
  world_.die(what, op.entry.opcode, op.entry.fd);
}

RingSim::Group* RingSim::group_of(const Operation& op) {
  const auto found = groups_.find(op.entry.buf_group);
  return found == groups_.end() ? nullptr : &found->second;
}

// --- submission ---

void RingSim::issue(const io_uring_sqe& entry) {
  ops_.push_back(std::make_unique<Operation>());
  Operation& op = *ops_.back();
  op.id = world_.next_op++;
  op.entry = entry;
  if ((entry.flags & ~IOSQE_BUFFER_SELECT) != 0) unknown(op, "sqe flags are not simulated");
  world_.trace("submission", static_cast<int64_t>(op.id), entry.opcode, entry.fd);
  prepare(op);
  // An operation that can go ahead does so now, unless it asked to poll first. In a run that
  // reorders it may just as well be looked at later.
  const bool later =
      poll_first(entry) || (world_.faults.reorder != 0 && world_.rng.chance(world_.faults.reorder));
  if (!later && !op.finished && due(op)) execute(op);
  op.armed = true;
  if (op.finished) sweep();
}

void RingSim::prepare(Operation& op) {
  const io_uring_sqe& entry = op.entry;
  const auto answer = [&op](int32_t result) {
    op.answered = true;
    op.answer = result;
  };
  switch (entry.opcode) {
    case IORING_OP_NOP: return answer(0);
    case IORING_OP_ASYNC_CANCEL:
    case IORING_OP_POLL_REMOVE: return answer(cancel(entry));
    case IORING_OP_TIMEOUT: return prepare_timeout(op);
    case IORING_OP_CLOSE: return answer(world_.close_file(entry.fd, "CLOSE"));
    default: break;
  }
  op.file = &world_.file(entry.fd, "an operation");
  ++op.file->ops;
  switch (entry.opcode) {
    case IORING_OP_ACCEPT: return prepare_accept(op);
    case IORING_OP_CONNECT: return prepare_connect(op);
    case IORING_OP_RECV:
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG: return prepare_transfer(op);
    case IORING_OP_SHUTDOWN: return answer(world_.shutdown(*op.file, static_cast<int>(entry.len)));
    case IORING_OP_POLL_ADD:
      if (entry.len != 0) unknown(op, "POLL_ADD with flags (multishot) is not simulated");
      return;
    case IORING_OP_READ:
      if (op.file->kind != FileKind::kEvent || entry.len != sizeof(uint64_t)) {
        unknown(op, "READ is simulated for 8 bytes of an eventfd only");
      }
      return;
    default: unknown(op, "an opcode that is not simulated");
  }
}

void RingSim::prepare_accept(Operation& op) {
  if (op.file->kind != FileKind::kListener) {
    op.answered = true;
    op.answer = -EINVAL;
    return;
  }
  if ((op.entry.ioprio & ~IORING_ACCEPT_MULTISHOT) != 0 || op.entry.file_index != 0) {
    unknown(op, "ACCEPT with these flags is not simulated");
  }
}

void RingSim::prepare_connect(Operation& op) {
  File& file = *op.file;
  base::SocketAddress to;
  const auto length = static_cast<socklen_t>(op.entry.off);
  if (file.kind != FileKind::kSocket || length > sizeof to.un) unknown(op, "a wrong CONNECT");
  std::memcpy(&to.base, pointer<void>(op.entry.addr), length);
  to.length = length;
  if (file.connected || file.connecting) {
    op.answered = true;
    op.answer = file.connected ? -EISCONN : -EALREADY;
    return;
  }
  world_.connect(file, to);
}

void RingSim::prepare_timeout(Operation& op) {
  if (op.entry.timeout_flags != 0 || op.entry.off != 0 || op.entry.len != 1) {
    unknown(op, "TIMEOUT is simulated as relative and without a count only");
  }
  const auto* limit = pointer<const __kernel_timespec>(op.entry.addr);
  op.fires_at = world_.now + static_cast<uint64_t>(limit->tv_sec) * kSecond +
                static_cast<uint64_t>(limit->tv_nsec);
}

void RingSim::prepare_transfer(Operation& op) {
  const io_uring_sqe& entry = op.entry;
  const bool receive = entry.opcode == IORING_OP_RECV;
  const bool select = (entry.flags & IOSQE_BUFFER_SELECT) != 0;
  const uint32_t known_ioprio = IORING_RECVSEND_POLL_FIRST | (receive ? IORING_RECV_MULTISHOT : 0u);
  if ((entry.ioprio & ~known_ioprio) != 0) unknown(op, "a transfer with these ioprio flags");
  if ((entry.msg_flags & ~(receive ? kRecvFlags : kSendFlags)) != 0) {
    unknown(op, "a transfer with these MSG_ flags is not simulated");
  }
  if (op.file->kind != FileKind::kSocket) {
    op.answered = true;
    op.answer = op.file->kind == FileKind::kEvent ? -ENOTSOCK : (receive ? -ENOTCONN : -EPIPE);
    return;
  }
  if (!receive && select) unknown(op, "a send from provided buffers is not simulated");
  if (multishot_recv(entry) &&
      (!select || entry.len != 0 || (entry.msg_flags & MSG_WAITALL) != 0)) {
    op.answered = true;
    op.answer = -EINVAL;
    return;
  }
  if (receive && !select && entry.len == 0) unknown(op, "RECV of no bytes");
  if (entry.opcode == IORING_OP_SENDMSG) {
    const auto* message = pointer<const msghdr>(entry.addr);
    if (message->msg_controllen != 0 || message->msg_namelen != 0) {
      unknown(op, "SENDMSG with a name or control data is not simulated");
    }
    op.parts.assign(message->msg_iov, message->msg_iov + message->msg_iovlen);
  } else if (!receive) {
    op.parts.push_back(iovec{pointer<void>(entry.addr), entry.len});
  }
}

// --- cancelling ---

int32_t RingSim::cancel(const io_uring_sqe& entry) {
  const bool poll_only = entry.opcode == IORING_OP_POLL_REMOVE;
  const uint32_t flags = poll_only ? 0 : entry.cancel_flags;
  constexpr uint32_t kKnown =
      IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ANY;
  if ((flags & ~kKnown) != 0 || (poll_only && entry.len != 0)) {
    world_.die("a cancel with these flags is not simulated", flags);
  }
  const bool by_file = (flags & IORING_ASYNC_CANCEL_FD) != 0;
  const bool all = (flags & (IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY)) != 0;
  const File* wanted = by_file ? &world_.file(entry.fd, "ASYNC_CANCEL") : nullptr;
  int32_t count = 0;
  // The last one is the cancel itself.
  for (size_t i = 0; i + 1 < ops_.size(); ++i) {
    Operation& op = *ops_[i];
    const bool cancels =
        op.entry.opcode == IORING_OP_ASYNC_CANCEL || op.entry.opcode == IORING_OP_POLL_REMOVE;
    if (op.finished || cancels) continue;
    if (poll_only && op.entry.opcode != IORING_OP_POLL_ADD) continue;
    const bool any = (flags & IORING_ASYNC_CANCEL_ANY) != 0;
    if (!any && (by_file ? op.file != wanted : op.entry.user_data != entry.addr)) continue;
    const int32_t result = cancel_one(op);
    if (!all) return result;
    if (result == 0) ++count;
  }
  return all ? count : -ENOENT;
}

int32_t RingSim::cancel_one(Operation& target) {
  if (target.answered || target.give_up_at != 0) return -EALREADY;
  if (world_.strike(world_.faults.cancel_race, world_.counts.cancel_race)) {
    world_.trace("fault: cancel race", static_cast<int64_t>(target.id));
    const uint64_t choice = world_.rng.below(3);
    const bool one_shot = !multishot_recv(target.entry) && !multishot_accept(target.entry);
    if (choice == 0 && one_shot && ready(target)) {
      execute(target);  // it had ended just before
      if (target.finished) return -ENOENT;
    }
    // It goes on for a while; what happens to it meanwhile counts. Only then is it cancelled.
    target.give_up_at = world_.now + 1 + world_.rng.below(5 * kMillisecond);
    return choice == 1 ? 0 : -EALREADY;
  }
  target.answered = true;
  target.answer = -ECANCELED;
  target.not_before = 0;
  return 0;
}

// --- completion ---

// Could it complete now? Must not change anything.
bool RingSim::ready(const Operation& op) const {
  const File* file = op.file;
  switch (op.entry.opcode) {
    case IORING_OP_TIMEOUT: return world_.now >= op.fires_at;
    case IORING_OP_ACCEPT: return file->shut || !file->queue.empty();
    case IORING_OP_CONNECT: return file->connect_result <= 0;
    case IORING_OP_READ: return file->counter > 0;
    case IORING_OP_POLL_ADD:
      return (world_.poll_mask(*file) & (op.entry.poll32_events | POLLERR | POLLHUP)) != 0;
    case IORING_OP_RECV: {
      if (file->connecting) return false;
      if (!file->connected || file->stream->can_read()) return true;
      if ((op.entry.msg_flags & MSG_DONTWAIT) != 0) return true;
      if (op.armed || poll_first(op.entry) || (op.entry.flags & IOSQE_BUFFER_SELECT) == 0)
        return false;
      // The first attempt picks a buffer before it looks for data: without one it fails at once.
      const auto group = groups_.find(op.entry.buf_group);
      return group == groups_.end() || group->second.left() == 0;
    }
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
      if (file->connecting) return false;
      if (!file->connected || (op.entry.msg_flags & MSG_DONTWAIT) != 0) return true;
      return op.armed ? file->stream->writable() : file->stream->can_send();
    default: return op.answered;
  }
}

void RingSim::finish(Operation& op, int32_t result, uint32_t flags) {
  const bool last = (flags & IORING_CQE_F_MORE) == 0;
  posted_.push_back(Posted{op.entry.user_data, result, flags, op.id, last ? op.file : nullptr});
  op.diced = false;
  op.not_before = 0;
  op.finished = last;
}

void RingSim::execute(Operation& op) {
  if (op.answered) {
    // A transfer that was cut short says how far it came.
    const bool partly = op.answer < 0 && op.transferred > 0;
    return finish(op, partly ? static_cast<int32_t>(op.transferred) : op.answer);
  }
  switch (op.entry.opcode) {
    case IORING_OP_TIMEOUT: return finish(op, -ETIME);
    case IORING_OP_ACCEPT: return execute_accept(op);
    case IORING_OP_CONNECT: {
      const int result = std::exchange(op.file->connect_result, 1);
      return finish(op, result);
    }
    case IORING_OP_READ: return execute_read(op);
    case IORING_OP_POLL_ADD: {
      const uint32_t wanted = op.entry.poll32_events | POLLERR | POLLHUP;
      return finish(op, static_cast<int32_t>(world_.poll_mask(*op.file) & wanted));
    }
    case IORING_OP_RECV: return execute_recv(op);
    default: return execute_send(op);
  }
}

void RingSim::execute_read(Operation& op) {
  std::memcpy(pointer<void>(op.entry.addr), &op.file->counter, sizeof op.file->counter);
  op.file->counter = 0;
  finish(op, sizeof(uint64_t));
}

void RingSim::execute_accept(Operation& op) {
  File& listener = *op.file;
  if (listener.shut) return finish(op, -EINVAL);
  if (world_.strike(world_.faults.no_files, world_.counts.no_files)) {
    world_.trace("fault: no files", listener.fd);
    return finish(op, -EMFILE);
  }
  base::SocketAddress from;
  const int fd = world_.accept(listener, &from);
  store_address(op.entry, from);
  const bool more = multishot_accept(op.entry) &&
                    !world_.strike(world_.faults.multishot_end, world_.counts.multishot_end);
  finish(op, fd, more ? IORING_CQE_F_MORE : 0);
}

bool RingSim::out_of_buffers(Group* group) {
  if (group == nullptr || group->left() == 0) return true;
  // With another one out this could be the moment before it comes back.
  if (group->left() == group->known) return false;
  return world_.strike(world_.faults.no_buffers, world_.counts.no_buffers);
}

void RingSim::execute_recv(Operation& op) {
  const io_uring_sqe& entry = op.entry;
  const bool select = (entry.flags & IOSQE_BUFFER_SELECT) != 0;
  char* out = pointer<char>(entry.addr) + op.transferred;
  size_t limit = entry.len - op.transferred;
  uint32_t flags = 0;
  Group* group = nullptr;
  if (select) {
    group = group_of(op);
    if (out_of_buffers(group)) return finish(op, -ENOBUFS);
    const io_uring_buf& buffer = group->memory->bufs[group->head & (group->entries - 1)];
    out = pointer<char>(buffer.addr);
    limit = entry.len == 0 ? buffer.len : std::min(entry.len, buffer.len);
    flags = IORING_CQE_F_BUFFER | (static_cast<uint32_t>(buffer.bid) << IORING_CQE_BUFFER_SHIFT);
  }
  if (!op.file->connected) return finish(op, op.file->shut ? 0 : -ENOTCONN);
  Stream& stream = *op.file->stream;
  const bool all = (entry.msg_flags & MSG_WAITALL) != 0;
  if (!all && limit > 1 && stream.arrived > 1 &&
      world_.strike(world_.faults.short_recv, world_.counts.short_recv)) {
    limit = 1 + world_.rng.below(std::min(limit, stream.arrived) - 1);
  }
  const int64_t got = world_.stream_recv(stream, out, limit, (entry.msg_flags & MSG_PEEK) != 0);
  if (got == -EAGAIN && (entry.msg_flags & MSG_DONTWAIT) == 0) return;
  if (got <= 0) {
    // The buffer was not used, so it stays the kernel's and no F_BUFFER is given.
    const bool partly = op.transferred > 0;
    return finish(op, partly ? static_cast<int32_t>(op.transferred) : static_cast<int32_t>(got));
  }
  if (all && static_cast<size_t>(got) < limit && !select) {
    op.transferred += static_cast<size_t>(got);
    return;
  }
  if (select) {
    group->available[static_cast<uint16_t>(flags >> IORING_CQE_BUFFER_SHIFT)] = 0;
    ++group->head;
  }
  if (stream.arrived > 0) flags |= IORING_CQE_F_SOCK_NONEMPTY;
  if (multishot_recv(entry) &&
      !world_.strike(world_.faults.multishot_end, world_.counts.multishot_end)) {
    flags |= IORING_CQE_F_MORE;
  }
  finish(op, static_cast<int32_t>(got + static_cast<int64_t>(op.transferred)), flags);
}

void RingSim::execute_send(Operation& op) {
  if (!op.file->connected) return finish(op, -EPIPE);
  const bool all = (op.entry.msg_flags & MSG_WAITALL) != 0;
  size_t skip = op.transferred;
  size_t total = 0;
  for (const iovec& part : op.parts) total += part.iov_len;
  size_t limit = total - skip;
  if (limit > 1 && world_.strike(world_.faults.short_send, world_.counts.short_send)) {
    limit = 1 + world_.rng.below(limit - 1);
  }
  size_t sent = 0;
  int64_t result = limit == 0 ? 0 : -EAGAIN;
  for (const iovec& part : op.parts) {
    if (skip >= part.iov_len) {
      skip -= part.iov_len;
      continue;
    }
    const std::string_view bytes(static_cast<const char*>(part.iov_base) + skip,
                                 std::min(part.iov_len - skip, limit - sent));
    skip = 0;
    if (bytes.empty()) break;
    result = world_.stream_send(*op.file->stream, bytes);
    if (result <= 0) break;
    sent += static_cast<size_t>(result);
    if (static_cast<size_t>(result) < bytes.size()) break;
  }
  if (sent == 0 && result == -EAGAIN && (op.entry.msg_flags & MSG_DONTWAIT) == 0) return;
  op.transferred += sent;
  const auto done = static_cast<int32_t>(op.transferred);
  if (result < 0 && sent == 0) return finish(op, done > 0 ? done : static_cast<int32_t>(result));
  if (all && op.transferred < total) return;  // with MSG_WAITALL the kernel goes on by itself
  finish(op, done);
}

}  // namespace weir::sim
