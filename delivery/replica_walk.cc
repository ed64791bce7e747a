#include "delivery/replica_walk.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "kv/check.h"

namespace kdn::delivery {

ReplicaWalk::ReplicaWalk(std::vector<std::vector<NodeId>> candidates) {
  items_.reserve(candidates.size());
  unsettled_ = static_cast<int>(candidates.size());
  for (std::vector<NodeId>& order : candidates) {
    Item item;
    item.candidates = std::move(order);
    item.why = absl::NotFoundError("no node holds it");
    if (item.candidates.empty()) Settle(item);
    items_.push_back(std::move(item));
  }
}

std::vector<Ask> ReplicaWalk::TakeAsks() {
  std::vector<Ask> asks;
  absl::flat_hash_map<NodeId, size_t> ask_of;
  for (size_t i = 0; i < items_.size(); ++i) {
    Item& item = items_[i];
    if (item.phase != Phase::kDue) continue;
    item.phase = Phase::kAsked;
    const NodeId& node = item.candidates[item.at];
    const auto [it, is_new] = ask_of.try_emplace(node, asks.size());
    if (is_new) asks.push_back(Ask{node, {}});
    asks[it->second].items.push_back(static_cast<int>(i));
  }
  return asks;
}

void ReplicaWalk::Found(int item) {
  KDN_CHECK(asked(item), "only an asked item can be found");
  items_[item].why = absl::OkStatus();
  Settle(items_[item]);
}

void ReplicaWalk::MoveOn(int i, const absl::Status& why) {
  Item& item = items_[i];
  KDN_CHECK(item.phase == Phase::kAsked, "only an asked item can move on");
  KDN_CHECK(!why.ok(), "moving on needs a reason");
  if (!absl::IsNotFound(why) && absl::IsNotFound(item.why)) item.why = why;
  ++item.at;
  if (item.at < item.candidates.size()) {
    item.phase = Phase::kDue;
  } else {
    Settle(item);
  }
}

void ReplicaWalk::Abandon(const absl::Status& why) {
  for (Item& item : items_) {
    if (item.phase == Phase::kSettled) continue;
    item.why = why;
    Settle(item);
  }
}

const NodeId& ReplicaWalk::node(int item) const {
  KDN_CHECK(asked(item), "an item that is not asked is at no node");
  return items_[item].candidates[items_[item].at];
}

void ReplicaWalk::Settle(Item& item) {
  item.phase = Phase::kSettled;
  --unsettled_;
}

void ReplicaWalk::CheckInvariants() const {
  const auto unsettled = std::count_if(
      items_.begin(), items_.end(),
      [](const Item& item) { return item.phase != Phase::kSettled; });
  KDN_CHECK(unsettled == unsettled_, "unsettled items are miscounted");
  for (const Item& item : items_) {
    KDN_CHECK(item.phase == Phase::kSettled || item.at < item.candidates.size(),
              "an unsettled item has a candidate");
  }
}

}  // namespace kdn::delivery
