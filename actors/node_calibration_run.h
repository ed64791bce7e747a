#ifndef KDN_ACTORS_NODE_CALIBRATION_RUN_H_
#define KDN_ACTORS_NODE_CALIBRATION_RUN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "actors/node_context.h"
#include "codec/calibration/calibrator.h"
#include "delivery/node_service.h"

namespace kdn::actors {

// A calibration that this node makes of an engine's KV, as background work of
// its pool. A node makes one at a time, because the sample takes up to a
// quarter of the node's memory. The tasks on the pool share State, so that they
// end safely when the engine goes away.
class NodeCalibrationRun final : public delivery::CalibrationRun {
 public:
  // `service` stores the calibration, and outlives the run.
  static absl::StatusOr<std::unique_ptr<delivery::CalibrationRun>> Begin(
      NodeContext* node, delivery::NodeService* service,
      const ModelSpec& model);

  void Add(const KvView& kv, std::vector<int32_t> positions,
           std::vector<double> importance,
           delivery::Done<absl::StatusOr<Count>> done) override;
  void Finish(delivery::CalibrationChoice choice, absl::Time deadline,
              delivery::Done<absl::StatusOr<CalibrationReceipt>> done) override;

 private:
  struct State {
    State(NodeContext* node_in, delivery::NodeService* service_in,
          codec::Calibrator calibrator_in)
        : node(node_in),
          service(service_in),
          calibrator(std::move(calibrator_in)) {}
    ~State() { End(); }
    // Frees the sample, and lets the node begin another run.
    void End() {
      if (!calibrator) return;
      calibrator.reset();
      node->calibrating = false;
    }
    NodeContext* const node;
    delivery::NodeService* const service;
    std::optional<codec::Calibrator> calibrator;  // unset: the run is over
  };
  explicit NodeCalibrationRun(std::shared_ptr<State> state)
      : state_(std::move(state)) {}
  static absl::StatusOr<Count> AddNow(State& state, const KvView& kv,
                                      absl::Span<const int32_t> positions,
                                      absl::Span<const double> importance);
  static absl::StatusOr<std::vector<std::byte>> Make(
      const State& state, const delivery::CalibrationChoice& choice);

  const std::shared_ptr<State> state_;
};

}  // namespace kdn::actors

#endif  // KDN_ACTORS_NODE_CALIBRATION_RUN_H_
