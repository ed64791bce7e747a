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
  kBroken,     // there was no connection, or the connection broke
  kWithdrawn,  // this node gave up: says nothing of the peer
};

// What a read order needs to know of a peer at one moment.
struct PeerGrade {
  // The peer just failed to answer: only for what nobody else has.
  bool is_failing = false;
  // From a fetch to the first of its answer; unset: not known well enough.
  std::optional<absl::Duration> latency;
};

// The grades of the peers that something is known of.
using PeerGrades = std::map<NodeId, PeerGrade>;

// How well a peer answers this node, learnt from fetches: its latency, its
// failures, and how many fetches wait for it. Not every retrieve has to learn
// anew that a peer is slow or hung.
//
// A peer is failing after a fetch that broke or was not answered in time, and
// while fetches wait for it and none has been answered for kSilence. That is
// believed for a while only, longer after each failure in a row; then the next
// fetch tries the peer again, and the others wait for what comes of that fetch.
// One answer is enough to believe in the peer again. What is known of its
// latency is forgotten when it is not used. Only clear evidence counts: a fetch
// that had little time, or that this node withdrew, says nothing; nor does an
// answer that began and was slow, which is the link's (see LinkRate).
//
// Has no clock. Pure; thread-compatible.
class PeerHealth {
 public:
  // How long a failure is believed: doubled by each further one in a row.
  static constexpr absl::Duration kBackoff = absl::Seconds(1);
  static constexpr absl::Duration kBackoffMax = absl::Seconds(30);
  // Failures so long ago are not in a row with a new one.
  static constexpr absl::Duration kForgotten = absl::Minutes(5);
  // A fetch that had less time for an answer does not count as failed.
  static constexpr absl::Duration kPatience = absl::Milliseconds(250);
  static constexpr absl::Duration kSilence = absl::Seconds(1);
  // Fewer answers say nothing of the latency, nor do older ones.
  static constexpr int kAnswersMin = 3;
  static constexpr absl::Duration kLatencyFresh = absl::Seconds(10);
  // Of an answer in the latency's moving average.
  static constexpr double kWeight = 0.3;

  void OnBegin(absl::Time now);
  // The first of the answer to a fetch that began at `began` has come.
  void OnAnswer(absl::Time began, absl::Time now);
  // Every fetch that began ends so, once; `answered`: after OnAnswer.
  void OnEnd(FetchEnd end, bool answered, absl::Time began, absl::Time now);

  // Fetches that have begun and not been answered.
  int waiting() const { return waiting_; }
  bool IsFailing(absl::Time now) const;
  std::optional<absl::Duration> LatencyAt(absl::Time now) const;
  PeerGrade GradeAt(absl::Time now) const;
  void CheckInvariants() const;

 private:
  absl::Duration Backoff() const;
  void Fail(absl::Time began, absl::Time now);

  int waiting_ = 0;
  // The last answer, or when fetches began to wait; counts while they do.
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
