#include "rpc/bulk/client.h"

#include <atomic>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "rpc/bulk/jobs.h"
#include "rpc/bulk/pool.h"

namespace kdn::rpc {
namespace {

// The status of a connection's exception. FAILED means that the peer sent
// something malformed, UNIMPLEMENTED that it sent an object that this node is
// too old to read.
absl::Status StatusOf(const NodeId& peer, const kj::Exception& broken) {
  const std::string text =
      absl::StrCat("peer ", peer.name(), ": ", broken.getDescription().cStr());
  switch (broken.getType()) {
    case kj::Exception::Type::FAILED:
      return absl::DataLossError(text);
    case kj::Exception::Type::OVERLOADED:
      return absl::ResourceExhaustedError(text);
    case kj::Exception::Type::UNIMPLEMENTED:
      return absl::UnimplementedError(text);
    default:
      return absl::UnavailableError(text);
  }
}

BulkTransport::Options WithDefaults(BulkTransport::Options options) {
  if (options.introduce == nullptr) {
    options.introduce = IntroduceByNameOnly(options.self);
  }
  return options;
}

class BulkTransportImpl final : public BulkTransport,
                                public kj::TaskSet::ErrorHandler {
 public:
  explicit BulkTransportImpl(Options options)
      : options_(WithDefaults(std::move(options))),
        tls_(nullptr, SSL_CTX_free) {
    if (options_.tls != nullptr) tls_ = options_.tls->NewSslContext();
    loop_.Run([&] { tasks_ = kj::heap<kj::TaskSet>(*this); });
  }
  ~BulkTransportImpl() noexcept override {
    Stop();
    loop_.Run([&] {
      tasks_ = nullptr;
      pools_.clear();
    });
  }

  delivery::FetchId Fetch(delivery::FetchRequest request,
                          std::unique_ptr<delivery::FetchSink> sink) override {
    return delivery::FetchId(Submit(std::make_shared<FetchJob>(
        std::move(request), std::move(sink), options_.meters.get())));
  }
  void CancelFetch(delivery::FetchId fetch) override {
    loop_.Post([this, fetch] { Cancel(fetch.value()); });
  }
  void Push(
      delivery::PushRequest request,
      delivery::Done<absl::StatusOr<delivery::PushReceipt>> done) override {
    Submit(std::make_shared<PushJob>(std::move(request), std::move(done),
                                     options_.meters.get()));
  }
  void FetchCalibration(
      const NodeId& peer, const codec::CalibrationId& id, uint64_t bytes_max,
      absl::Time deadline,
      delivery::Done<absl::StatusOr<std::vector<std::byte>>> done) override {
    Submit(std::make_shared<CalibrationJob>(
        peer, id, bytes_max, deadline, std::move(done), options_.meters.get()));
  }
  void FailPeer(const NodeId& peer) override {
    loop_.Post([this, peer] { Fail(&peer, "this node counts it as dead"); });
  }
  void Stop() override;

 private:
  struct Active {
    NodeId peer;
    kj::Own<kj::PromiseFulfiller<absl::Status>> abort;
  };

  // Returns the job's number.
  uint64_t Submit(std::shared_ptr<BulkJob> job);
  void Start(uint64_t id, std::shared_ptr<BulkJob> job);
  void Cancel(uint64_t id);
  kj::Promise<absl::Status> Drive(const std::shared_ptr<BulkJob>& job);
  void Account(const BulkJob& job, const absl::Status& status,
               absl::Duration took);
  BulkPool& PoolOf(const NodeId& peer);
  // Ends the pending requests to one peer, or to all peers (null).
  void Fail(const NodeId* peer, absl::string_view why);
  void taskFailed(kj::Exception&& broken) override {
    KDN_CHECK(false, broken.getDescription().cStr());
  }

  const Options options_;
  SslContext tls_;  // null: plaintext
  std::atomic<uint64_t> next_id_{0};
  EventLoop loop_;
  // Loop thread only.
  bool stopped_ = false;
  std::map<NodeId, std::shared_ptr<BulkPool>> pools_;
  std::map<uint64_t, Active> active_;  // by the job's number
  kj::Own<kj::TaskSet> tasks_;
};

uint64_t BulkTransportImpl::Submit(std::shared_ptr<BulkJob> job) {
  const uint64_t id = next_id_++;
  loop_.Post([this, id, job = std::move(job)]() mutable {
    Start(id, std::move(job));
  });
  return id;
}

// Ending the job closes its connection while the answer is under way, so that
// the peer stops sending.
void BulkTransportImpl::Cancel(uint64_t id) {
  const auto active = active_.find(id);
  if (active == active_.end()) return;
  active->second.abort->fulfill(
      absl::CancelledError("the caller cancelled it"));
}

BulkPool& BulkTransportImpl::PoolOf(const NodeId& peer) {
  std::shared_ptr<BulkPool>& pool = pools_[peer];
  if (pool == nullptr) {
    pool = std::make_shared<BulkPool>(loop_, options_, tls_.get(), peer);
  }
  return *pool;
}

void BulkTransportImpl::Start(uint64_t id, std::shared_ptr<BulkJob> job) {
  if (stopped_) {
    return job->Finish(absl::UnavailableError("the bulk transport is stopped"));
  }
  auto abort = kj::newPromiseAndFulfiller<absl::Status>();
  active_.emplace(id, Active{job->peer(), kj::mv(abort.fulfiller)});
  const absl::Duration left = std::clamp(job->deadline() - SteadyNow(),
                                         absl::ZeroDuration(), absl::Hours(1));
  const kj::TimePoint at = EventLoop::In(left);
  auto late = loop_.At(at).then([peer = job->peer()]() -> absl::Status {
    return absl::DeadlineExceededError(
        absl::StrCat("peer ", peer.name(), " did not answer in time"));
  });
  tasks_->add(
      Drive(job)
          .exclusiveJoin(kj::mv(abort.promise))
          .exclusiveJoin(kj::mv(late))
          .then([this, id, job, begun = SteadyNow()](absl::Status status) {
            active_.erase(id);
            Account(*job, status, SteadyNow() - begun);
            job->Finish(status);
          }));
}

void BulkTransportImpl::Account(const BulkJob& job, const absl::Status& status,
                                absl::Duration took) {
  if (status.ok()) {
    options_.meters->Record(job.latency(), took);
  } else if (!stopped_ && !absl::IsCancelled(status)) {
    LogWarning("bulk.request",
               absl::StrCat("a request to node ", job.peer().name(),
                            " failed: ", status.ToString()));
  }
}

kj::Promise<absl::Status> BulkTransportImpl::Drive(
    const std::shared_ptr<BulkJob>& job) {
  return kj::evalNow([&] {
           return PoolOf(job->peer())
               .Acquire(job->work_class(), job->requester());
         })
      .then([job](kj::Own<BulkPool::Lease> lease) {
        job->Begin();
        return BulkPool::Connect(kj::mv(lease));
      })
      .then([job](kj::Own<BulkPool::Lease> lease) {
        auto running = job->Run(lease->stream());
        return running.then(
            [lease = kj::mv(lease)](absl::Status status) mutable {
              lease->set_clean();
              return status;
            });
      })
      .catch_([peer = job->peer()](kj::Exception&& broken) {
        return StatusOf(peer, broken);
      });
}

void BulkTransportImpl::Fail(const NodeId* peer, absl::string_view why) {
  for (auto& [id, active] : active_) {
    if (peer != nullptr && active.peer != *peer) continue;
    active.abort->fulfill(absl::UnavailableError(
        absl::StrCat("peer ", active.peer.name(), ": ", why)));
  }
  for (auto& [id, pool] : pools_) {
    if (peer == nullptr || id == *peer) pool->CloseIdle();
  }
}

void BulkTransportImpl::Stop() {
  loop_.RunAsync([&] {
    stopped_ = true;
    Fail(nullptr, "the bulk transport is stopped");
    return tasks_->onEmpty();
  });
}

}  // namespace

std::unique_ptr<BulkTransport> BulkTransport::Start(Options options) {
  KDN_CHECK(options.resolve != nullptr, "a transport needs `resolve`");
  for (const WorkClass work_class : kWorkClasses) {
    KDN_CHECK(options.connections_per_peer_max[work_class] > 0,
              "each class of work needs a connection");
  }
  return std::make_unique<BulkTransportImpl>(std::move(options));
}

}  // namespace kdn::rpc
