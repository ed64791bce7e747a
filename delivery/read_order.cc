#include "delivery/read_order.h"

#include <algorithm>
#include <iterator>
#include <optional>

namespace kdn::delivery {
namespace {

PeerGrade GradeOf(const PeerGrades& grades, const NodeId& node) {
  const auto it = grades.find(node);
  return it == grades.end() ? PeerGrade() : it->second;
}

using Nodes = std::vector<NodeId>::iterator;

// The least known latency of the nodes; unset: no latency is known.
std::optional<absl::Duration> LeastLatency(Nodes begin, Nodes end,
                                           const PeerGrades& grades) {
  std::optional<absl::Duration> least;
  for (auto node = begin; node != end; ++node) {
    const auto latency = GradeOf(grades, *node).latency;
    if (latency && (!least || *latency < *least)) least = latency;
  }
  return least;
}

void MoveSlowBehind(Nodes begin, Nodes end, const PeerGrades& grades) {
  const auto least = LeastLatency(begin, end, grades);
  if (!least) return;
  const absl::Duration limit = *least * kSlowFactor + kSlowMargin;
  std::stable_partition(begin, end, [&](const NodeId& node) {
    return GradeOf(grades, node).latency.value_or(limit) <= limit;
  });
}

}  // namespace

std::vector<NodeId> ReadOrder(std::vector<NodeId> owners, const NodeId& self,
                              int replicas, const PeerGrades& grades) {
  auto holder = owners.begin();
  const auto holders_end =
      owners.begin() + std::min<ptrdiff_t>(replicas, std::ssize(owners));
  const auto own = std::find(owners.begin(), holders_end, self);
  if (own != holders_end) {
    std::rotate(owners.begin(), own, own + 1);
    ++holder;
  }
  if (grades.empty()) return owners;
  MoveSlowBehind(holder, holders_end, grades);
  std::stable_partition(holder, owners.end(), [&](const NodeId& node) {
    return node == self || !GradeOf(grades, node).is_failing;
  });
  return owners;
}

}  // namespace kdn::delivery
