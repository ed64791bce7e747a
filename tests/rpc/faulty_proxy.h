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

// A TCP proxy. It passes bytes on, but does one fault to the bytes of the
// server, or passes them on at a limited rate. It uses blocking sockets on
// threads of its own. The destructor ends its connections.
class FaultyProxy {
 public:
  struct Fault {
    // Offsets in the bytes that the server sends on one connection.
    std::optional<uint64_t> flip_bit_at = {};  // a bit of this byte is flipped
    std::optional<uint64_t> stall_at = {};     // no byte is passed on from here
    std::optional<uint64_t> cut_at = {};       // the proxy hangs up here
  };
  FaultyProxy(uint16_t server_port, Fault fault);
  ~FaultyProxy();
  uint16_t port() const { return port_; }
  // Limits the server's bytes of all connections together; 0: no limit.
  void set_bytes_per_second(double rate) { bytes_per_second_ = rate; }

 private:
  void Accept();
  void Pump(int from, int to, bool faulty);
  // Passes bytes of the server on at the limited rate. False when the client
  // has hung up.
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

// Connects to a local port. Returns the socket; -1 when the connection is
// refused.
int ConnectLocal(uint16_t port);
// Sends the bytes, and reads until the other side hangs up or has sent nothing
// for `quiet_ms`. Returns the bytes that came.
std::vector<uint8_t> Exchange(int fd, const std::vector<uint8_t>& bytes,
                              int quiet_ms);

}  // namespace kdn::rpc

#endif  // KDN_TESTS_RPC_FAULTY_PROXY_H_
