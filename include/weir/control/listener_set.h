// The listening sockets of the process: one SO_REUSEPORT socket per core for TCP, one shared socket
// (duplicated per core) for Unix. Control opens them, so that errors are known before anything
// changes; cores own the descriptors once they have been sent.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

#include <weir/base/ip.h>
#include <weir/control/config/config.h>

namespace weir::control {

// Tells the file of a Unix socket from one that another process has put in its place.
struct FileMark {
  uint64_t device = 0;
  uint64_t inode = 0;  // 0: there was no file
  int64_t changed_s = 0;
  int64_t changed_ns = 0;
  friend bool operator==(const FileMark&, const FileMark&) = default;
};

struct OpenListener {
  uint32_t id = 0;
  std::string name;
  std::string configured;     // the address as written: what a reload compares
  base::SocketAddress bound;  // with the port that port 0 became
  uint32_t backlog = 0;
  bool tls = false;
  uint16_t redirect_https = 0;
  FileMark file;         // of a Unix socket
  std::vector<int> fds;  // one per core; empty once sent
};

struct ListenerError {
  config::Place place;
  std::string text;  // a sentence that names the address
};

class ListenerSet {
 public:
  explicit ListenerSet(uint32_t cores) noexcept : cores_(cores) {}
  ListenerSet(const ListenerSet&) = delete;
  ListenerSet& operator=(const ListenerSet&) = delete;
  ~ListenerSet();

  struct Change {
    std::vector<OpenListener> opened;    // with their descriptors
    std::vector<uint32_t> removed;       // ids
    std::vector<uint32_t> succeeded;     // those of them whose port is in `opened` as well
    std::vector<OpenListener> switched;  // stay, with another `tls` or `redirect_https`: these
    std::vector<std::string> warnings;
  };
  // What has to change to get from the present set to `wanted`. Sockets are opened, nothing is
  // removed yet; on an error those that were opened are closed again.
  std::expected<Change, ListenerError> plan(const std::vector<config::Listener>& wanted, bool cbpf);
  // Makes the change the present. Its descriptors belong to the caller from then on.
  void commit(const Change& change);
  // A core has closed its socket of a removed listener. Until all have, its port counts as ours.
  void note_closed(uint32_t id);
  // Gives up a change that was planned.
  static void abandon(Change& change) noexcept;

  [[nodiscard]] const std::vector<OpenListener>& present() const noexcept { return present_; }

 private:
  std::expected<OpenListener, ListenerError> open(const config::Listener& listener, bool cbpf,
                                                  std::vector<std::string>& warnings);
  std::vector<bool> match(const std::vector<config::Listener>& wanted, Change& change) const;
  [[nodiscard]] bool own_port(uint16_t port) const noexcept;

  uint32_t cores_;
  uint32_t next_id_ = 1;
  std::vector<OpenListener> present_;
  struct Closing {
    uint32_t id = 0;
    uint16_t port = 0;
    uint32_t cores = 0;  // that have not closed it yet
  };
  std::vector<Closing> closing_;
  std::vector<OpenListener> opening_;  // while a plan is made
};

}  // namespace weir::control
