#include "actors/calibration_actor.h"

#include <algorithm>
#include <chrono>
#include <tuple>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "actors/delay.h"
#include "actors/wire.h"
#include "kv/log.h"
#include "placement/introduction.h"

namespace kdn::actors {
namespace {

constexpr auto kTellTimeout = std::chrono::seconds(2);

delivery::CalibrationIds HeldOn(const transfer::CalibrationShelf& shelf) {
  delivery::CalibrationIds ids;
  for (const auto& entry : shelf.entries()) ids.insert(entry.id);
  return ids;
}

// Whether fetching the file again would end in the same way: there is no room
// for it, or it is no file that this version reads.
bool IsRefused(const absl::StatusOr<transfer::CalibrationShelf::Entry>& kept) {
  return absl::IsResourceExhausted(kept.status()) ||
         absl::IsDataLoss(kept.status()) ||
         absl::IsInvalidArgument(kept.status());
}

}  // namespace

void CalibrationActorState::Init(CalibrationActor::pointer self_in,
                                 NodeContext* node_in) {
  self = self_in;
  node = node_in;
  exchange.emplace(delivery::CalibrationExchange::Options(),
                   HeldOn(node->shelf));
  OnView();
}

CalibrationList CalibrationActorState::OwnList() const {
  return {node->self().name(), PackIds(exchange->held())};
}

CalibrationList CalibrationActorState::OnTold(const CalibrationList& theirs) {
  exchange->OnPeerHas(NodeId(theirs.node), UnpackIds(theirs.ids));
  Perform();
  return OwnList();
}

// A peer that has restarted has another node actor.
void CalibrationActorState::OnView() {
  const std::shared_ptr<const ClusterView> view = node->view.Get();
  for (auto it = live.begin(); it != live.end();) {
    const auto now = view->live.find(it->first);
    if (now != view->live.end() && now->second.node == it->second.node) {
      ++it;
      continue;
    }
    exchange->OnPeerDown(it->first);
    it = live.erase(it);
  }
  for (const auto& [id, peer] : view->live) {
    if (id == node->self() || live.count(id) > 0 ||
        peer.version < placement::kCalibrationsVersion) {
      continue;
    }
    live.emplace(id, peer);
    exchange->OnPeerUp(id);
  }
  Perform();
}

void CalibrationActorState::Store(const StoreCalibrationCall& call) {
  const uint64_t number = ++calls;
  stores.emplace(number, OpenStore{call.deadline, call.reply, {}});
  node->pool.Post(
      {WorkClass::kBackground, node->pool.NextRequester(), 0},
      [to = caf::actor_cast<CalibrationActor>(self), number, node = node,
       bytes = call.bytes] {
        caf::anon_send(
            to, CalibrationKept{codec::CalibrationId(), number,
                                node->shelf.Keep(std::move(*bytes),
                                                 node->clock->WallNow())});
      });
}

void CalibrationActorState::Need(const NeedCalibrationCall& call) {
  const uint64_t number = ++calls;
  needs.emplace(number, call);
  exchange->OnNeed(number, call.id, call.deadline);
  Perform();
}

void CalibrationActorState::List(const ListCalibrationsCall& call) const {
  std::vector<CalibrationEntry> entries;
  for (const auto& entry : node->shelf.entries()) {
    entries.push_back({entry.id, entry.model, entry.created, entry.bytes,
                       HoldersOf(entry.id)});
  }
  std::sort(entries.begin(), entries.end(),
            [](const CalibrationEntry& a, const CalibrationEntry& b) {
              return std::tie(a.model, b.created, b.id) <
                     std::tie(b.model, a.created, a.id);
            });
  call.reply(std::move(entries));
}

std::vector<NodeId> CalibrationActorState::HoldersOf(
    const codec::CalibrationId& id) const {
  std::vector<NodeId> holders = exchange->HoldersOf(id);
  holders.push_back(node->self());
  std::sort(holders.begin(), holders.end());
  return holders;
}

void CalibrationActorState::OnStoreKept(const CalibrationKept& kept) {
  const auto store = stores.find(kept.call);
  if (!kept.kept.ok()) {
    store->second.reply(kept.kept.status());
    stores.erase(store);
    return;
  }
  store->second.id = kept.kept->id;
  exchange->OnHeld(kept.kept->id);
  exchange->OnStore(kept.call, kept.kept->id, node->view.Get()->copies(),
                    store->second.deadline);
}

void CalibrationActorState::OnKept(const CalibrationKept& kept) {
  if (kept.call != 0) {
    OnStoreKept(kept);
  } else {
    if (kept.kept.ok()) {
      exchange->OnHeld(kept.id);
    } else {
      LogWarning(
          "calibration.fetch",
          absl::StrCat("calibration ", ShortHex(kept.id),
                       " has not come: ", kept.kept.status().ToString()));
    }
    exchange->OnFetched(kept.id, node->clock->Now(), IsRefused(kept.kept));
  }
  Perform();
}

void CalibrationActorState::Tick(uint64_t number) {
  if (number != ticks) return;  // another tick has replaced it
  tick_due = absl::InfiniteFuture();
  Perform();
}

void CalibrationActorState::Perform() {
  for (const delivery::CalibrationAction& action :
       exchange->TakeActions(node->clock->Now())) {
    std::visit([this](const auto& what) { Do(what); }, action);
  }
  WakeAt(exchange->wake());
}

void CalibrationActorState::Do(const delivery::TellCalibrations& tell) {
  self->request(live.at(tell.peer).node, kTellTimeout, CalibAtom::value,
                OwnList())
      .then(
          [this, peer = tell.peer](const CalibrationList& theirs) {
            exchange->OnAnswer(peer, UnpackIds(theirs.ids), node->clock->Now());
            Perform();
          },
          [this, peer = tell.peer](const caf::error&) {
            exchange->OnNoAnswer(peer, node->clock->Now());
            Perform();
          });
}

void CalibrationActorState::Do(const delivery::FetchCalibration& fetch) {
  using Bytes = absl::StatusOr<std::vector<std::byte>>;
  const auto to = caf::actor_cast<CalibrationActor>(self);
  node->transport->FetchCalibration(
      fetch.peer, fetch.id, node->shelf.bytes_max(), fetch.deadline,
      [to, id = fetch.id, node = node](Bytes bytes) {
        if (!bytes.ok()) {
          caf::anon_send(to, CalibrationKept{id, 0, bytes.status()});
          return;
        }
        node->pool.Post(
            {WorkClass::kBackground, node->pool.NextRequester(), 0},
            [to, id, node, bytes = *std::move(bytes)]() mutable {
              caf::anon_send(
                  to, CalibrationKept{
                          id, 0, node->shelf.KeepAs(id, std::move(bytes))});
            });
      });
}

void CalibrationActorState::Do(const delivery::AnswerCalibration& answer) {
  if (const auto need = needs.find(answer.call); need != needs.end()) {
    if (answer.status.ok()) {
      need->second.reply(true);
    } else {
      need->second.reply(answer.status);
    }
    needs.erase(need);
    return;
  }
  const auto store = stores.find(answer.call);
  const codec::CalibrationId& id = store->second.id;
  if (answer.status.ok()) {
    store->second.reply(CalibrationReceipt{id, HoldersOf(id)});
  } else {
    store->second.reply(answer.status);
  }
  stores.erase(store);
}

void CalibrationActorState::WakeAt(absl::Time wake) {
  if (wake >= tick_due) return;
  tick_due = wake;
  self->delayed_send(self, DelayUntil(wake, node->clock->Now()),
                     TickAtom::value, ++ticks);
}

CalibrationActor::behavior_type MakeCalibrationActor(
    CalibrationActor::stateful_pointer<CalibrationActorState> self,
    NodeContext* node) {
  CalibrationActorState* state = &self->state;
  state->Init(self, node);
  return {
      [state](CalibAtom, const CalibrationList& theirs) {
        return state->OnTold(theirs);
      },
      [state](const ViewChanged&) { state->OnView(); },
      [state](const StoreCalibrationCall& call) { state->Store(call); },
      [state](const NeedCalibrationCall& call) { state->Need(call); },
      [state](const ListCalibrationsCall& call) { state->List(call); },
      [state](const CalibrationKept& kept) { state->OnKept(kept); },
      [state](TickAtom, uint64_t number) { state->Tick(number); },
  };
}

}  // namespace kdn::actors
