#ifndef KDN_CLI_STATUS_JSON_H_
#define KDN_CLI_STATUS_JSON_H_

#include <string>
#include <vector>

#include "kv/answers.h"

namespace kdn::cli {

// The output of `kdn status --json`: a list of nodes. `calibrations` of a node
// are the ids of those that it has. All metrics of a node are in one object,
// under their whole names, so that no name of a newer node's metric collides
// with another key. Bytes that are not UTF-8 are replaced.
std::string StatusJson(const std::vector<NodeStatus>& nodes,
                       const std::vector<CalibrationEntry>& calibrations = {});

}  // namespace kdn::cli

#endif  // KDN_CLI_STATUS_JSON_H_
