#ifndef KDN_TESTS_RPC_FAULTY_PROXY_H_
#define KDN_TESTS_RPC_FAULTY_PROXY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kdn::rpc {

// A TCP proxy that passes bytes on, and does one bad thing to what the server
// sends, or passes it on no faster than it may. Blocking sockets on threads of
// its own; ends its connections when destroyed.
class FaultyProxy {
 public:
  struct Fault {
    std::optional<uint64_t> flip_bit_at = {};  // of the server's bytes
    std::optional<uint64_t> stall_at = {};  // passes nothing on after so many
    std::optional<uint64_t> cut_at = {};    // hangs up after so many
  };
  FaultyProxy(uint16_t server_port, Fault fault);
  ~FaultyProxy();
  uint16_t port() const { return port_; }
  // Of what the server sends, all connections together; 0: as fast as it comes.
  void set_bytes_per_second(double rate) { bytes_per_second_ = rate; }

 private:
  void Accept();
  void Pump(int from, int to, bool faulty);
  // Sends what the server sent as the pace allows. False when nobody listens.
  bool SendPaced(int to, const uint8_t* bytes, size_t count);

  const uint16_t server_port_;
  const Fault fault_;
  int listening_ = -1;
  uint16_t port_ = 0;
  absl::Mutex mutex_;
  std::vector<int> sockets_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> pumps_ ABSL_GUARDED_BY(mutex_);
  std::atomic<double> bytes_per_second_{0};
  absl::Time free_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::thread acceptor_;
};

// Connects to a local port; -1 when refused.
int ConnectLocal(uint16_t port);
// Sends all of it and reads until the other side hangs up or is quiet for
// `quiet_ms`. Returns what came.
std::vector<uint8_t> Exchange(int fd, const std::vector<uint8_t>& bytes,
                              int quiet_ms);

}  // namespace kdn::rpc

#endif  // KDN_TESTS_RPC_FAULTY_PROXY_H_
