#ifndef KDN_ACTORS_WIRE_H_
#define KDN_ACTORS_WIRE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "actors/messages.h"
#include "delivery/calibration_exchange.h"
#include "delivery/node_service.h"
#include "kv/chunk_key.h"
#include "kv/metric_values.h"
#include "placement/introduction.h"

// Conversions between KDN's types and the fields of actor messages.
namespace kdn::actors {

std::vector<char> PackKeys(absl::Span<const ChunkKey> keys);
// Drops a tail that is shorter than a key. The answer then has too few items,
// and the asking node treats it as no answer.
std::vector<ChunkKey> UnpackKeys(const std::vector<char>& bytes);

// The key and the placement key of one chunk. UnpackRef answers nullopt for
// bytes of another length.
std::vector<char> PackRef(const ChunkRef& ref);
std::optional<ChunkRef> UnpackRef(const std::vector<char>& bytes);

std::vector<char> PackIds(const delivery::CalibrationIds& ids);
// Drops a tail that is shorter than an id.
delivery::CalibrationIds UnpackIds(const std::vector<char>& bytes);

// A null `info` is a miss.
LookupItem ToWire(const storage::ObjectInfo* info);
LookupResult FromWire(const LookupItem& item, const NodeId& node);

StatusItem ToWire(const absl::Status& status);
absl::Status FromWire(const StatusItem& item);

CopyAnswer ToWire(const absl::StatusOr<delivery::PushReceipt>& result);
absl::StatusOr<delivery::PushReceipt> FromWire(const CopyAnswer& answer);

// Leaves out the metrics that are 0.
std::vector<MetricItem> ToWire(const MetricValues& values);
// Keeps the metrics that only a newer peer knows.
MetricValues FromWire(const std::vector<MetricItem>& items);

// The error that refuses a join. The node that asked logs the reason.
caf::error RefusalOf(const absl::Status& why);
// The reason of a refusal. Nullopt for any other error.
std::optional<std::string> RefusalIn(const caf::error& error);

IntroductionItem ToWire(const placement::Introduction& introduction);
placement::Introduction FromWire(const IntroductionItem& item);

}  // namespace kdn::actors

#endif  // KDN_ACTORS_WIRE_H_
