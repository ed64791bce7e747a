#ifndef KDN_ACTORS_WIRE_H_
#define KDN_ACTORS_WIRE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "actors/messages.h"
#include "delivery/node_service.h"
#include "kv/chunk_key.h"
#include "kv/metric_values.h"
#include "placement/introduction.h"

// Between our types and what actor messages carry.
namespace kdn::actors {

std::vector<char> PackKeys(absl::Span<const ChunkKey> keys);
// A tail that is no whole key is dropped: the answer is then too short and the
// asker treats it as none.
std::vector<ChunkKey> UnpackKeys(const std::vector<char>& bytes);

// One chunk.
std::vector<char> PackRef(const ChunkRef& ref);
std::optional<ChunkRef> UnpackRef(const std::vector<char>& bytes);

// Null: a miss.
LookupItem ToWire(const storage::ObjectInfo* info);
LookupResult FromWire(const LookupItem& item, const NodeId& node);

StatusItem ToWire(const absl::Status& status);
absl::Status FromWire(const StatusItem& item);

CopyAnswer ToWire(const absl::StatusOr<delivery::PushReceipt>& result);
absl::StatusOr<delivery::PushReceipt> FromWire(const CopyAnswer& answer);

// A metric that is 0 is left out.
std::vector<MetricItem> ToWire(const MetricValues& values);
// Metrics that only a newer peer knows are kept.
MetricValues FromWire(const std::vector<MetricItem>& items);

// A join is refused, for a reason that the asker logs.
caf::error RefusalOf(const absl::Status& why);
// The reason, when the error is a refusal.
std::optional<std::string> RefusalIn(const caf::error& error);

IntroductionItem ToWire(const placement::Introduction& introduction);
placement::Introduction FromWire(const IntroductionItem& item);

}  // namespace kdn::actors

#endif  // KDN_ACTORS_WIRE_H_
