#ifndef KDN_TRANSFER_TRAFFIC_METER_H_
#define KDN_TRANSFER_TRAFFIC_METER_H_

#include <atomic>
#include <cstdint>

#include "delivery/peer_transport.h"

namespace kdn::transfer {

// Counts delivery::PeerTraffic for the client and the server of a node's bulk
// plane. Thread-safe.
class TrafficMeter {
 public:
  void AddIn(uint64_t bytes) { in_ += bytes; }
  void AddOut(uint64_t bytes) { out_ += bytes; }
  delivery::PeerTraffic traffic() const { return {in_, out_}; }

 private:
  std::atomic<uint64_t> in_{0};
  std::atomic<uint64_t> out_{0};
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_TRAFFIC_METER_H_
