#include "rpc/client/knowledge.h"

#include "absl/strings/str_cat.h"
#include "rpc/client/kv_copy.h"
#include "rpc/client/wire.h"

namespace kdn::rpc {
namespace {

template <typename Request>
void FillChunks(absl::Span<const ChunkRef> chunks, Request& request) {
  auto list = request.initChunks(static_cast<unsigned>(chunks.size()));
  for (unsigned i = 0; i < chunks.size(); ++i) ToWire(chunks[i], list[i]);
}

}  // namespace

uint64_t ReachOf(const KvView& view) {
  return static_cast<uint64_t>(view.shape().layers - 1) *
             static_cast<uint64_t>(view.strides().layer) +
         FootprintOf(view.Layer(0));
}

absl::StatusOr<std::vector<LookupResult>> KnowledgeImpl::Lookup(
    absl::Span<const ChunkRef> chunks, absl::Duration timeout) {
  auto request = capability_.lookupRequest();
  FillChunks(chunks, request);
  request.setDeadlineMs(TimeoutToWire(timeout));
  auto answer = connection_->Call(kj::mv(request), timeout);
  if (!answer.ok()) return answer.status();
  const auto results = answer->getResults();
  if (absl::Status status = CheckCount(results.size(), chunks.size());
      !status.ok()) {
    return status;
  }
  std::vector<LookupResult> out;
  out.reserve(results.size());
  for (const auto result : results) out.push_back(FromWire(result));
  return out;
}

template <typename Request>
absl::StatusOr<std::vector<absl::Status>> KnowledgeImpl::CallForStatuses(
    Request request, absl::Span<const ChunkRef> chunks,
    absl::Duration timeout) {
  FillChunks(chunks, request);
  request.setDeadlineMs(TimeoutToWire(timeout));
  auto answer = connection_->Call(kj::mv(request), timeout);
  if (!answer.ok()) return answer.status();
  const auto statuses = answer->getStatuses();
  if (absl::Status status = CheckCount(statuses.size(), chunks.size());
      !status.ok()) {
    return status;
  }
  std::vector<absl::Status> out;
  out.reserve(statuses.size());
  for (const auto status : statuses) out.push_back(FromWire(status));
  return out;
}

absl::StatusOr<std::vector<absl::Status>> KnowledgeImpl::Pin(
    absl::Span<const ChunkRef> chunks, absl::Duration ttl,
    absl::Duration timeout) {
  if (ttl < absl::Milliseconds(1) || ttl > kTtlMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a pin of ", absl::FormatDuration(ttl),
                     ", expected 1 ms to ", absl::FormatDuration(kTtlMax)));
  }
  auto request = capability_.pinRequest();
  request.setTtlMs(static_cast<uint64_t>(absl::ToInt64Milliseconds(ttl)));
  return CallForStatuses(kj::mv(request), chunks, timeout);
}

absl::StatusOr<std::vector<absl::Status>> KnowledgeImpl::Unpin(
    absl::Span<const ChunkRef> chunks, absl::Duration timeout) {
  return CallForStatuses(capability_.unpinRequest(), chunks, timeout);
}

absl::StatusOr<std::vector<absl::Status>> KnowledgeImpl::Remove(
    absl::Span<const ChunkRef> chunks, absl::Duration timeout) {
  return CallForStatuses(capability_.removeRequest(), chunks, timeout);
}

}  // namespace kdn::rpc
