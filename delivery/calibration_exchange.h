#ifndef KDN_DELIVERY_CALIBRATION_EXCHANGE_H_
#define KDN_DELIVERY_CALIBRATION_EXCHANGE_H_

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "codec/format/object.h"
#include "kv/ids.h"

namespace kdn::delivery {

using CalibrationIds = std::set<codec::CalibrationId>;

// An action: give a peer the ids of this node's calibrations, and ask for the
// peer's. Call OnAnswer or OnNoAnswer at the end.
struct TellCalibrations {
  NodeId peer;
  CalibrationIds ids;
};

// An action: get a calibration from a peer. Call OnFetched at the end.
struct FetchCalibration {
  NodeId peer;
  codec::CalibrationId id;
  absl::Time deadline;
};

// An action: a call of OnStore or OnNeed is over.
struct AnswerCalibration {
  uint64_t call = 0;
  absl::Status status;
};

using CalibrationAction =
    std::variant<TellCalibrations, FetchCalibration, AnswerCalibration>;

// How the nodes of a cluster come to have the same calibrations. A node tells
// every peer which calibrations it has: when the peer comes up, when the node
// gets another calibration, and from time to time. The peer answers with its
// own list. Each of the two then fetches what it lacks, so two nodes that reach
// each other for long enough have the same calibrations, whatever was lost
// before. No node decides for another one.
//
// Events in, actions out (TakeActions, after every event). Pure;
// thread-compatible.
class CalibrationExchange {
 public:
  struct Options {
    absl::Duration tell = absl::Seconds(10);  // how often a peer is told again
    // How soon a tell or a fetch that failed is repeated. The time doubles with
    // each failure of a fetch, up to retry_max.
    absl::Duration retry = absl::Milliseconds(500);
    absl::Duration retry_max = absl::Minutes(1);
    absl::Duration refused = absl::Hours(1);  // after a fetch that was refused
    absl::Duration fetch = absl::Minutes(1);  // the most time of a fetch
    int fetches_max = 2;                      // at one time
  };

  CalibrationExchange(const Options& options, CalibrationIds held)
      : options_(options), held_(std::move(held)) {}

  // A peer that speaks of calibrations is up, or is gone.
  void OnPeerUp(const NodeId& peer);
  void OnPeerDown(const NodeId& peer);
  // A peer has told this node its list. Ignored while the peer is not up.
  void OnPeerHas(const NodeId& peer, CalibrationIds ids);
  // A TellCalibrations has ended.
  void OnAnswer(const NodeId& peer, CalibrationIds ids, absl::Time now);
  void OnNoAnswer(const NodeId& peer, absl::Time now);
  // This node has the calibration now.
  void OnHeld(const codec::CalibrationId& id);
  // A FetchCalibration has ended. If it brought the calibration, OnHeld comes
  // first. `refused`: this node cannot keep the calibration, whoever sends it.
  void OnFetched(const codec::CalibrationId& id, absl::Time now,
                 bool refused = false);
  // A caller has stored a calibration here and waits for the other nodes. The
  // call ends when every peer that is up has the calibration. At the deadline
  // it ends with OK if `copies` nodes have it (or all, if there are fewer), and
  // else with UNAVAILABLE. REQUIRES: the calibration is held.
  void OnStore(uint64_t call, const codec::CalibrationId& id, int copies,
               absl::Time deadline);
  // A caller needs a calibration. The call ends with OK once it is held, and
  // with NOT_FOUND when every peer has answered and none has it, when a fetch
  // from each holder has failed, or at the deadline.
  void OnNeed(uint64_t call, const codec::CalibrationId& id,
              absl::Time deadline);

  std::vector<CalibrationAction> TakeActions(absl::Time now);
  // When TakeActions is due again without an event.
  absl::Time wake() const;

  const CalibrationIds& held() const { return held_; }
  // The peers that are up and have the calibration, as far as this node knows.
  std::vector<NodeId> HoldersOf(const codec::CalibrationId& id) const;
  void CheckInvariants() const;

 private:
  struct Peer {
    CalibrationIds has;
    absl::Time tell_at = absl::InfinitePast();
    bool telling = false;
    bool tell_again = false;  // the list has changed since it was told
  };
  struct Store {
    uint64_t call = 0;
    codec::CalibrationId id;
    int copies = 1;
    absl::Time deadline;
  };
  struct Need {
    uint64_t call = 0;
    codec::CalibrationId id;
    absl::Time deadline;
    std::set<NodeId> unheard;  // peers that have not answered since
  };
  struct Failures {
    int count = 0;
    absl::Time not_before = absl::InfinitePast();
    bool refused = false;
  };

  static void TellSoon(Peer& peer);
  CalibrationIds Missing() const;
  // Whether no fetch of the calibration is under way or due soon, because the
  // fetches from all holders have failed.
  bool HasFailed(const codec::CalibrationId& id, absl::Time now) const;
  bool IsNeeded(const codec::CalibrationId& id) const;
  bool IsOver(const Store& store, absl::Time now, absl::Status* status) const;
  bool IsOver(const Need& need, absl::Time now, absl::Status* status) const;
  template <typename Call>
  void EndCalls(std::vector<Call>& calls, absl::Time now,
                std::vector<CalibrationAction>& actions) const;
  void Tell(absl::Time now, std::vector<CalibrationAction>& actions);
  void Fetch(absl::Time now, std::vector<CalibrationAction>& actions);

  const Options options_;
  CalibrationIds held_;
  std::map<NodeId, Peer> peers_;  // that are up
  CalibrationIds fetching_;
  std::map<codec::CalibrationId, Failures> failures_;  // of fetches
  std::vector<Store> stores_;
  std::vector<Need> needs_;
};

}  // namespace kdn::delivery

#endif  // KDN_DELIVERY_CALIBRATION_EXCHANGE_H_
