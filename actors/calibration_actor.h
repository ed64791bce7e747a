#ifndef KDN_ACTORS_CALIBRATION_ACTOR_H_
#define KDN_ACTORS_CALIBRATION_ACTOR_H_

#include <map>
#include <optional>
#include <vector>

#include "actors/messages.h"
#include "actors/node_context.h"
#include "delivery/calibration_exchange.h"

namespace kdn::actors {

// The shell around one delivery::CalibrationExchange: tells peers, fetches from
// them, and keeps what has come on the node's shelf.
struct CalibrationActorState {
  static inline const char* name = "calibration";

  void Init(CalibrationActor::pointer self, NodeContext* node);
  CalibrationList OnTold(const CalibrationList& theirs);
  void OnView();
  void Store(const StoreCalibrationCall& call);
  void Need(const NeedCalibrationCall& call);
  void List(const ListCalibrationsCall& call) const;
  void OnKept(const CalibrationKept& kept);
  void Tick(uint64_t number);
  // The only place that sends, requests or schedules.
  void Perform();

  // A store that waits for other nodes. It does not hold the file.
  struct OpenStore {
    absl::Time deadline;
    Reply<CalibrationReceipt> reply;
    codec::CalibrationId id;  // once this node keeps it
  };

  CalibrationActor::pointer self = nullptr;
  NodeContext* node = nullptr;
  std::optional<delivery::CalibrationExchange> exchange;
  LiveNodes live;  // the peers that speak of calibrations
  uint64_t calls = 0;
  std::map<uint64_t, OpenStore> stores;
  std::map<uint64_t, NeedCalibrationCall> needs;
  uint64_t ticks = 0;
  absl::Time tick_due = absl::InfiniteFuture();

 private:
  void Do(const delivery::TellCalibrations& tell);
  void Do(const delivery::FetchCalibration& fetch);
  void Do(const delivery::AnswerCalibration& answer);
  void OnStoreKept(const CalibrationKept& kept);
  CalibrationList OwnList() const;
  std::vector<NodeId> HoldersOf(const codec::CalibrationId& id) const;
  void WakeAt(absl::Time wake);
};

// REQUIRES: the node has published a view.
CalibrationActor::behavior_type MakeCalibrationActor(
    CalibrationActor::stateful_pointer<CalibrationActorState> self,
    NodeContext* node);

}  // namespace kdn::actors

#endif  // KDN_ACTORS_CALIBRATION_ACTOR_H_
