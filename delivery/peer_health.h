#ifndef KDN_DELIVERY_PEER_HEALTH_H_
#define KDN_DELIVERY_PEER_HEALTH_H_

#include <cstdint>
#include <map>
#include <optional>

#include "absl/time/time.h"
#include "kv/ids.h"

namespace kdn::delivery {

// How a fetch from a peer ended, as far as the peer's health is concerned.
enum class FetchEnd : uint8_t {
  kDone,       // the whole answer came
  kLate,       // the deadline passed first
  kBroken,     // the peer could not be reached, or the connection broke
  kWithdrawn,  // this node gave up: no evidence about the peer
};

// What a read order takes into account about a peer.
struct PeerGrade {
  // True when the peer just failed to answer: it is asked last.
  bool is_failing = false;
  // The time from a fetch to the first part of its answer; unset: unknown.
  std::optional<absl::Duration> latency;
};

// The grades of the peers about which something is known.
using PeerGrades = std::map<NodeId, PeerGrade>;

// How well a peer answers this node: its latency, its failures, and how many
// fetches wait for it. PeerHealth learns this from fetches, so that not every
// retrieve has to find out anew that a peer is slow or hung.
//
// Failing. A peer is failing after a fetch that broke or was not answered in
// time. A peer is also failing while fetches wait for it and it has sent
// nothing for kSilence. It stays failing for a while, which is longer after
// each failure in a row. Then one fetch tries the peer again. The peer is
// failing for all other fetches until that fetch is answered or the same time
// has passed again. One answer ends the failing.
//
// Evidence. Only clear evidence counts. A fetch that had little time, or that
// this node withdrew, counts neither for nor against the peer. An answer that
// began and then was slow is the link's fault (see LinkRate). The latency is
// unknown again when no answer has come for a while.
//
// Has no clock. Pure; thread-compatible.
class PeerHealth {
 public:
  // How long a peer is failing after a failure. Each further failure in a row
  // doubles the time, up to kBackoffMax.
  static constexpr absl::Duration kBackoff = absl::Seconds(1);
  static constexpr absl::Duration kBackoffMax = absl::Seconds(30);
  // A failure that comes so long after the last failure begins a new row.
  static constexpr absl::Duration kForgotten = absl::Minutes(5);
  // A late fetch that had less time than this does not count as a failure.
  static constexpr absl::Duration kPatience = absl::Milliseconds(250);
  static constexpr absl::Duration kSilence = absl::Seconds(1);
  // The latency is known after so many answers, and forgotten when no answer
  // has come for kLatencyFresh.
  static constexpr int kAnswersMin = 3;
  static constexpr absl::Duration kLatencyFresh = absl::Seconds(10);
  // The weight of an answer in the moving average of the latency.
  static constexpr double kWeight = 0.3;

  // A fetch will ask the peer. The fetch may have to wait for one of this
  // node's connections. Call it once for every fetch, before OnBegin: for all
  // other fetches, a failing peer goes on failing while this fetch tries the
  // peer again.
  void OnAsk(absl::Time now);
  // A fetch has a connection to the peer, or dials one. The time that a fetch
  // waits for one of this node's connections is not the peer's silence.
  void OnBegin(absl::Time now);
  // The first part of the answer to a fetch that began at `began` has come.
  void OnAnswer(absl::Time began, absl::Time now);
  // A further part of an answer has come.
  void OnProgress(absl::Time now);
  // Call it once for every fetch that began. `answered`: OnAnswer was called.
  void OnEnd(FetchEnd end, bool answered, absl::Time began, absl::Time now);

  // How many fetches have begun and are not answered.
  int waiting() const { return waiting_; }
  bool IsFailing(absl::Time now) const;
  std::optional<absl::Duration> LatencyAt(absl::Time now) const;
  PeerGrade GradeAt(absl::Time now) const;
  void CheckInvariants() const;

 private:
  absl::Duration Backoff() const;
  void Fail(absl::Time began, absl::Time now);

  int waiting_ = 0;
  // When the peer last sent a part of an answer, or when fetches began to wait
  // if that was later. Has a meaning only while fetches wait. A fetch that
  // tries a silent peer again sets it to kSilence ago.
  absl::Time silent_since_ = absl::InfinitePast();
  int failures_ = 0;  // in a row
  absl::Time last_failure_ = absl::InfinitePast();
  absl::Time retry_at_ = absl::InfinitePast();
  int answers_ = 0;  // in the latency, up to kAnswersMin
  double latency_s_ = 0;
  absl::Time last_answer_ = absl::InfinitePast();
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_PEER_HEALTH_H_
