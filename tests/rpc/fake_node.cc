#include "tests/rpc/fake_node.h"

#include <algorithm>
#include <cstring>

#include "rpc/client/kv_copy.h"

namespace kdn::rpc {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

}  // namespace

class FakeChunkWriter final : public delivery::ChunkWriter {
 public:
  FakeChunkWriter(FakeNode* node, delivery::StoreRequest request)
      : node_(node), request_(std::move(request)) {
    chunk_.shape = ShapeOf(*request_.model,
                           static_cast<int>(request_.identity.tokens.size()));
    chunk_.bytes.resize(chunk_.shape.bytes());
    chunk_.positions = request_.positions;
    chunk_.levels = request_.levels;
  }
  void PutLayers(int first, const KvView& kv,
                 delivery::Done<absl::Status> done) override {
    node_->CountLayer(kv.shape().layers);
    node_->Do([this, first, kv, done = std::move(done)]() mutable {
      node_->CountLayer(-kv.shape().layers);
      for (int i = 0; i < kv.shape().layers; ++i) {
        PackLayer(
            kv.Layer(i), DenseLayout::kTokenMajor,
            chunk_.bytes.data() + (first + i) * chunk_.shape.layer_bytes());
      }
      done(absl::OkStatus());
    });
  }
  void Commit(delivery::Done<absl::StatusOr<StoreReceipt>> done) override {
    node_->Do([this, done = std::move(done)]() mutable {
      const ChunkKey key = KeyOf(request_.identity, request_.depth);
      StoreReceipt receipt{.key = key,
                           .version = ObjectVersion(7),
                           .existed = false,
                           .bytes = chunk_.bytes.size(),
                           .holders = {NodeId("fake"), NodeId("b")}};
      {
        absl::MutexLock lock(&node_->mutex_);
        receipt.existed =
            !node_->chunks_
                 .emplace(FakeNode::Name(request_.identity.ns.name(), key),
                          std::move(chunk_))
                 .second;
      }
      done(std::move(receipt));
    });
  }

 private:
  FakeNode* node_;
  delivery::StoreRequest request_;
  FakeNode::Chunk chunk_;
};

FakeNode::FakeNode() : worker_([this] { Work(); }) {}

FakeNode::~FakeNode() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  worker_.join();
}

void FakeNode::Do(Task task) {
  absl::MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
}

void FakeNode::Work() {
  for (;;) {
    std::vector<Task> tasks;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(
          +[](FakeNode* self) ABSL_EXCLUSIVE_LOCKS_REQUIRED(self->mutex_) {
            return self->stop_ || (!self->silent_ && !self->tasks_.empty());
          },
          this));
      if (tasks_.empty()) return;
      tasks.swap(tasks_);
    }
    for (Task& task : tasks) task();
  }
}

void FakeNode::BeSilent() {
  absl::MutexLock lock(&mutex_);
  silent_ = true;
}

void FakeNode::Speak() {
  absl::MutexLock lock(&mutex_);
  silent_ = false;
}

void FakeNode::set_before_layer(std::function<void(int, int)> hook) {
  absl::MutexLock lock(&mutex_);
  before_layer_ = std::move(hook);
}

void FakeNode::set_outcome(const ChunkKey& key, ChunkOutcome outcome) {
  absl::MutexLock lock(&mutex_);
  outcomes_[key] = std::move(outcome);
}

void FakeNode::set_begin_store(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  begin_store_ = std::move(status);
}

int FakeNode::sessions_open() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(sessions_.size());
}

int FakeNode::layers_waiting() const {
  absl::MutexLock lock(&mutex_);
  return layers_waiting_;
}

void FakeNode::CountLayer(int by) {
  absl::MutexLock lock(&mutex_);
  layers_waiting_ += by;
}

int FakeNode::pins_made() const {
  absl::MutexLock lock(&mutex_);
  return pins_made_;
}

int FakeNode::pins() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(pins_.size());
}

int FakeNode::retrieves_cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

bool FakeNode::WaitForSessionsOpen(int count) const {
  auto reached = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return static_cast<int>(sessions_.size()) == count;
  };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&reached), kPatience);
}

bool FakeNode::WaitForCancelled(int count) const {
  auto reached = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return cancelled_ >= count;
  };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&reached), kPatience);
}

std::vector<int32_t> FakeNode::stored_positions(const ChunkKey& key) const {
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, chunk] : chunks_) {
    if (name.second == key) return chunk.positions;
  }
  return {};
}

delivery::StoreRequest FakeNode::last_store() const {
  absl::MutexLock lock(&mutex_);
  return *last_store_;
}

void FakeNode::BeginStore(
    delivery::StoreRequest request,
    delivery::Done<absl::StatusOr<std::unique_ptr<delivery::ChunkWriter>>>
        done) {
  {
    absl::MutexLock lock(&mutex_);
    last_store_ = std::make_unique<delivery::StoreRequest>(request);
  }
  Do([this, request = std::move(request), done = std::move(done)]() mutable {
    absl::Status status;
    {
      absl::MutexLock lock(&mutex_);
      status = begin_store_;
    }
    if (!status.ok()) return done(std::move(status));
    done(std::make_unique<FakeChunkWriter>(this, std::move(request)));
  });
}

void FakeNode::Lookup(
    std::vector<ChunkRef> chunks, Namespace ns, absl::Time,
    delivery::Done<absl::StatusOr<std::vector<LookupResult>>> done) {
  Do([this, chunks = std::move(chunks), ns = std::move(ns),
      done = std::move(done)]() mutable {
    std::vector<LookupResult> results(chunks.size());
    {
      absl::MutexLock lock(&mutex_);
      for (size_t i = 0; i < chunks.size(); ++i) {
        const auto found = chunks_.find(Name(ns.name(), chunks[i].key));
        if (found == chunks_.end()) continue;
        results[i] = {.hit = true,
                      .node = self(),
                      .tier = Tier::kDisk,
                      .levels = found->second.levels,
                      .bytes = found->second.bytes.size(),
                      .version = ObjectVersion(7)};
      }
    }
    done(std::move(results));
  });
}

ChunkOutcome FakeNode::Deliver(const delivery::RetrieveRequest& request,
                               int index, const OnLayer& on_layer) {
  const delivery::RetrieveChunk& asked = request.chunks[index];
  ChunkOutcome outcome;
  std::function<void(int, int)> before_layer;
  Chunk chunk;
  {
    absl::MutexLock lock(&mutex_);
    if (auto told = outcomes_.find(asked.ref.key); told != outcomes_.end()) {
      return told->second;
    }
    auto found = chunks_.find(Name(request.ns.name(), asked.ref.key));
    if (found == chunks_.end()) return outcome;
    chunk = found->second;
    before_layer = before_layer_;
  }
  const LevelSet offered = chunk.levels & request.accept;
  if (offered.empty()) return outcome;
  const KvShape& shape = asked.destination.shape();
  const KvView all(chunk.bytes.data(), chunk.shape,
                   KvStrides::TokenMajor(chunk.shape));
  for (int step = 0; step < shape.layers; ++step) {
    const int layer = layers_backwards_ ? shape.layers - 1 - step : step;
    if (before_layer) before_layer(index, layer);
    if (request.cancellation->cancelled()) {
      absl::MutexLock lock(&mutex_);
      ++cancelled_;
      outcome.kind = OutcomeKind::kFailed;
      outcome.why = absl::CancelledError("nobody wants it");
      return outcome;
    }
    for (int part = 0; part < 2; ++part) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        for (int token = 0; token < shape.tokens; ++token) {
          std::memcpy(
              asked.destination.Rows(layer, static_cast<KvPart>(part), head)
                  .At(token),
              all.At(request.slice.layer_begin + layer,
                     static_cast<KvPart>(part), request.slice.head_begin + head,
                     token),
              shape.head_bytes());
        }
      }
    }
    on_layer(index, layer);
  }
  outcome.kind = OutcomeKind::kHit;
  outcome.level = offered.Best();
  outcome.source = self();
  outcome.version = ObjectVersion(7);
  outcome.wire_bytes = 42;
  return outcome;
}

void FakeNode::Retrieve(delivery::RetrieveRequest request, OnLayer on_layer,
                        delivery::Done<std::vector<ChunkOutcome>> done) {
  Do([this, request = std::move(request), on_layer = std::move(on_layer),
      done = std::move(done)]() mutable {
    std::vector<ChunkOutcome> outcomes;
    for (int i = 0; i < static_cast<int>(request.chunks.size()); ++i) {
      outcomes.push_back(Deliver(request, i, on_layer));
    }
    done(std::move(outcomes));
  });
}

void FakeNode::Pin(std::vector<ChunkRef> chunks, Namespace ns,
                   SessionId session, absl::Time, absl::Time,
                   delivery::Done<std::vector<absl::Status>> done) {
  Do([this, chunks = std::move(chunks), ns = std::move(ns), session,
      done = std::move(done)]() mutable {
    std::vector<absl::Status> statuses;
    {
      absl::MutexLock lock(&mutex_);
      for (const ChunkRef& ref : chunks) {
        const bool found = chunks_.count(Name(ns.name(), ref.key)) > 0;
        if (found) pins_.emplace(session.value(), ref.key);
        pins_made_ += found ? 1 : 0;
        statuses.push_back(found ? absl::OkStatus()
                                 : absl::NotFoundError("nobody has it"));
      }
    }
    done(std::move(statuses));
  });
}

void FakeNode::Unpin(std::vector<ChunkRef> chunks, Namespace, SessionId session,
                     absl::Time,
                     delivery::Done<std::vector<absl::Status>> done) {
  Do([this, chunks = std::move(chunks), session,
      done = std::move(done)]() mutable {
    std::vector<absl::Status> statuses;
    {
      absl::MutexLock lock(&mutex_);
      for (const ChunkRef& ref : chunks) {
        const bool found = pins_.erase({session.value(), ref.key}) > 0;
        statuses.push_back(found ? absl::OkStatus()
                                 : absl::NotFoundError("not pinned"));
      }
    }
    done(std::move(statuses));
  });
}

void FakeNode::Remove(std::vector<ChunkRef> chunks, Namespace ns, SessionId,
                      absl::Time,
                      delivery::Done<std::vector<absl::Status>> done) {
  Do([this, chunks = std::move(chunks), ns = std::move(ns),
      done = std::move(done)]() mutable {
    std::vector<absl::Status> statuses;
    {
      absl::MutexLock lock(&mutex_);
      for (const ChunkRef& ref : chunks) {
        const bool found = chunks_.erase(Name(ns.name(), ref.key)) > 0;
        statuses.push_back(found ? absl::OkStatus()
                                 : absl::NotFoundError("nobody has it"));
      }
    }
    done(std::move(statuses));
  });
}

// Takes any bytes as a calibration of the model whose fingerprint is zero.
void FakeNode::StoreCalibration(
    std::vector<std::byte> bytes, absl::Time,
    delivery::Done<absl::StatusOr<CalibrationReceipt>> done) {
  Do([this, bytes = std::move(bytes), done = std::move(done)]() mutable {
    const CalibrationId id(Sha256Of(
        {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
    const std::vector<NodeId> holders = {NodeId("fake"), NodeId("b")};
    {
      absl::MutexLock lock(&mutex_);
      calibrations_.push_back({id, ModelFingerprint(),
                               absl::FromUnixSeconds(1234), bytes.size(),
                               holders});
    }
    done(CalibrationReceipt{id, holders});
  });
}

void FakeNode::Calibrations(
    delivery::Done<absl::StatusOr<std::vector<CalibrationEntry>>> done) {
  Do([this, done = std::move(done)]() mutable {
    std::vector<CalibrationEntry> all;
    {
      absl::MutexLock lock(&mutex_);
      all = calibrations_;
    }
    done(std::move(all));
  });
}

absl::StatusOr<std::unique_ptr<delivery::CalibrationRun>>
FakeNode::BeginCalibration(const ModelSpec&) {
  return absl::UnimplementedError("this node makes no calibrations");
}

SessionId FakeNode::OpenSession() {
  absl::MutexLock lock(&mutex_);
  sessions_.insert(next_session_);
  return SessionId(next_session_++);
}

void FakeNode::CloseSession(SessionId session) {
  absl::MutexLock lock(&mutex_);
  sessions_.erase(session.value());
  std::erase_if(pins_,
                [&](const auto& pin) { return pin.first == session.value(); });
}

void FakeNode::Status(absl::Time,
                      delivery::Done<std::vector<NodeStatus>> done) {
  Do([this, done = std::move(done)]() mutable {
    std::vector<NodeStatus> nodes(2);
    nodes[0].id = self();
    nodes[0].alive = true;
    nodes[0].metrics["lookups"] = 11;
    nodes[0].metrics["disk_io_uring"] = 1;
    nodes[0].metrics["uptime_s"] = 5;
    nodes[1].id = NodeId("dead");
    done(std::move(nodes));
  });
}

}  // namespace kdn::rpc
