#ifndef KDN_RPC_BULK_JOBS_H_
#define KDN_RPC_BULK_JOBS_H_

#include <atomic>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "delivery/peer_transport.h"
#include "kv/meters.h"
#include "rpc/bulk/frame.h"

namespace kdn::rpc {

// One request of a BulkTransport, and how its result reaches the caller.
// Created on the caller's thread, then used on the loop thread only. Finish is
// called exactly once, as the last call.
class BulkJob {
 public:
  virtual ~BulkJob() = default;
  virtual const NodeId& peer() const = 0;
  virtual absl::Time deadline() const = 0;
  virtual WorkClass work_class() const = 0;
  virtual RequesterId requester() const = 0;
  // The histogram of the times that such requests take.
  virtual Metric latency() const = 0;
  // The job has got the lease of a connection: its wait is over, and the time
  // from now on is time that the peer takes.
  virtual void Begin() {}
  // Sends the request and reads the whole answer, on a connection that has said
  // hello. The status is the peer's answer. After an exception the connection
  // cannot be used again.
  virtual kj::Promise<absl::Status> Run(kj::AsyncIoStream& stream) = 0;
  virtual void Finish(const absl::Status& status) = 0;
};

class FetchJob final : public BulkJob {
 public:
  FetchJob(delivery::FetchRequest request,
           std::unique_ptr<delivery::FetchSink> sink, Meters* meters)
      : request_(std::move(request)), sink_(std::move(sink)), meters_(meters) {}
  ~FetchJob() noexcept override = default;

  const NodeId& peer() const override { return request_.peer; }
  absl::Time deadline() const override { return request_.deadline; }
  WorkClass work_class() const override { return WorkClass::kRead; }
  RequesterId requester() const override { return request_.requester; }
  Metric latency() const override { return "peer_fetch_us"; }
  void Begin() override { sink_->OnBegin(); }
  kj::Promise<absl::Status> Run(kj::AsyncIoStream& stream) override;
  void Finish(const absl::Status& status) override;

 private:
  // A chunk that the peer sends, and where its streams go.
  struct Hit {
    int item = 0;
    std::vector<uint64_t> layer_bytes;
    std::byte* next = nullptr;
    bool skipped = false;  // its streams are read and dropped
  };

  // Reads the rest of the answer: items, and the layers of each group.
  kj::Promise<void> ReadItems(kj::AsyncIoStream& stream);
  kj::Promise<void> ReadItem(kj::AsyncIoStream& stream,
                             peer::FetchItem::Reader header);
  kj::Promise<void> ReadGroup(kj::AsyncIoStream& stream);
  kj::Promise<void> ReadHit(kj::AsyncIoStream& stream, int item,
                            peer::FetchItem::Reader header);
  void Accept(Hit hit, codec::ObjectIndex index, std::vector<Level> levels,
              Tier tier, uint64_t stream_bytes);
  kj::Promise<void> ReadLayers(kj::AsyncIoStream& stream, int layer,
                               size_t hit);
  kj::Promise<void> ReadOnlyHit(kj::AsyncIoStream& stream, int layer,
                                uint64_t ready);
  kj::Promise<void> Skip(kj::AsyncIoStream& stream, uint64_t bytes);

  delivery::FetchRequest request_;
  std::unique_ptr<delivery::FetchSink> sink_;
  Meters* meters_;
  std::vector<Hit> hits_;     // of the group that is being read
  std::vector<bool> seen_;    // by chunk: its item has come
  size_t unseen_ = 0;         // chunks whose item has not come
  kj::Array<kj::byte> junk_;  // skipped bytes are read into it
};

class PushJob final : public BulkJob {
 public:
  PushJob(delivery::PushRequest request,
          delivery::Done<absl::StatusOr<delivery::PushReceipt>> done,
          Meters* meters)
      : request_(std::move(request)), done_(std::move(done)), meters_(meters) {}
  ~PushJob() noexcept override = default;

  const NodeId& peer() const override { return request_.peer; }
  absl::Time deadline() const override { return request_.deadline; }
  WorkClass work_class() const override { return request_.work_class; }
  RequesterId requester() const override { return request_.requester; }
  Metric latency() const override { return "peer_push_us"; }
  kj::Promise<absl::Status> Run(kj::AsyncIoStream& stream) override;
  void Finish(const absl::Status& status) override;

 private:
  kj::Promise<void> SendFrom(kj::AsyncIoStream& stream, size_t sent);
  kj::Promise<absl::Status> ReadReceipt(kj::AsyncIoStream& stream);

  delivery::PushRequest request_;
  delivery::Done<absl::StatusOr<delivery::PushReceipt>> done_;
  Meters* meters_;
  delivery::PushReceipt receipt_;
};

// Gets the bytes of a calibration's file.
class CalibrationJob final : public BulkJob {
 public:
  using Bytes = std::vector<std::byte>;
  CalibrationJob(NodeId peer, const codec::CalibrationId& id,
                 uint64_t bytes_max, absl::Time deadline,
                 delivery::Done<absl::StatusOr<Bytes>> done, Meters* meters)
      : peer_(std::move(peer)),
        id_(id),
        bytes_max_(bytes_max),
        deadline_(deadline),
        done_(std::move(done)),
        meters_(meters) {}
  ~CalibrationJob() noexcept override = default;

  const NodeId& peer() const override { return peer_; }
  absl::Time deadline() const override { return deadline_; }
  WorkClass work_class() const override { return WorkClass::kBackground; }
  RequesterId requester() const override { return {}; }
  Metric latency() const override { return "peer_calibration_us"; }
  kj::Promise<absl::Status> Run(kj::AsyncIoStream& stream) override;
  void Finish(const absl::Status& status) override;

 private:
  kj::Promise<absl::Status> ReadFrom(kj::AsyncIoStream& stream, size_t begin,
                                     uint64_t bytes);

  const NodeId peer_;
  const codec::CalibrationId id_;
  const uint64_t bytes_max_;
  const absl::Time deadline_;
  delivery::Done<absl::StatusOr<Bytes>> done_;
  Meters* meters_;
  Bytes bytes_;
};

// The wire's deadlineMs for `deadline`: at least 1.
uint32_t MillisUntil(absl::Time deadline);

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_JOBS_H_
