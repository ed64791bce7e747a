#include "rpc/gateway/retrieval.h"

#include <kj/debug.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "kv/log.h"
#include "rpc/wire.h"

namespace kdn::rpc {
namespace {

constexpr int kWindowsUnderWay = 2;
constexpr size_t kNoticesPerMessage = 1024;
constexpr size_t kMessageBytesMax = 8u << 20;
// Layers that the engine has not answered: enough to write one message while
// the engine works off others.
constexpr size_t kUnansweredBytes = 4u << 20;
constexpr uint16_t kDataMethod = 0;  // of LayerSink in kdn.capnp

}  // namespace

void LayerInbox::Push(LayerOrder::Ready layer) {
  bool first = false;
  {
    absl::MutexLock lock(&mutex_);
    first = layers_.empty();
    layers_.push_back(layer);
  }
  if (first) wake_();
}

std::vector<LayerOrder::Ready> LayerInbox::TakeAll() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(layers_, {});
}

Retrieval::Retrieval(std::shared_ptr<SessionState> session, RetrieveCall call,
                     kj::Maybe<wire::LayerSink::Client> sink,
                     CallDeadline deadline)
    : session_(std::move(session)),
      call_(std::move(call)),
      sink_(kj::mv(sink)),
      deadline_(deadline),
      first_layer_(std::make_shared<FirstLayer>(
          session_->gateway->options.meters, deadline.begun)),
      order_(static_cast<int>(call_.chunks.size()), call_.slice.layers(),
             LayersPerMessage()),
      outcomes_(call_.chunks.size()),
      settled_(call_.chunks.size()),
      answers_(*this) {
  CutIntoWindows();
}

Retrieval::~Retrieval() { Cancel(); }

KvShape Retrieval::ShapeOfSlice(int chunk) const {
  return KvShape{call_.slice.layers(), call_.slice.heads(),
                 static_cast<int>(call_.chunks[chunk].positions.size()),
                 call_.model->head_dim, call_.model->dtype};
}

int Retrieval::LayersPerMessage() const {
  if (call_.region != nullptr) return 1;
  size_t largest = 1;  // bytes of a layer
  for (int i = 0; i < static_cast<int>(call_.chunks.size()); ++i) {
    largest = std::max(largest, ShapeOfSlice(i).layer_bytes());
  }
  const size_t most = std::min(call_.message_bytes, kMessageBytesMax);
  return static_cast<int>(
      std::clamp<size_t>(most / largest, 1, call_.slice.layers()));
}

void Retrieval::CutIntoWindows() {
  const uint64_t bytes_max = call_.region != nullptr
                                 ? UINT64_MAX
                                 : session_->gateway->options.window_bytes;
  for (int i = 0; i < static_cast<int>(call_.chunks.size()); ++i) {
    const size_t bytes = ShapeOfSlice(i).bytes();
    if (windows_.empty() || windows_.back().bytes + bytes > bytes_max) {
      windows_.emplace_back();
      windows_.back().first = i;
    }
    windows_.back().count += 1;
    windows_.back().bytes += bytes;
    window_of_.push_back(static_cast<int>(windows_.size()) - 1);
  }
}

kj::Promise<absl::StatusOr<Retrieval::Outcomes>> Retrieval::Run() {
  if (windows_.empty()) return absl::StatusOr<Outcomes>(Outcomes{});
  auto paf = kj::newPromiseAndFulfiller<absl::Status>();
  finished_ = kj::mv(paf.fulfiller);
  inbox_ = std::make_shared<LayerInbox>(
      [loop = session_->loop().inbox(), weak = weak_from_this()] {
        loop->Post([weak] {
          if (auto self = weak.lock()) self->TakeLayers();
        });
      });
  StartWindows();
  return paf.promise
      .then(
          [this](absl::Status status) -> kj::Promise<absl::StatusOr<Outcomes>> {
            if (!status.ok())
              return absl::StatusOr<Outcomes>(std::move(status));
            return Farewell();
          })
      .exclusiveJoin(session_->loop().At(deadline_.at).then([this] {
        return OnDeadline();
      }));
}

kj::Promise<absl::StatusOr<Retrieval::Outcomes>> Retrieval::OnDeadline() {
  Cancel();
  kj::Promise<void> still = kj::READY_NOW;
  // A cancelled call still writes the layers that it is decoding. After the
  // answer, the engine may use the region for other things.
  if (call_.region != nullptr && !windows_[0].answered) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    region_still_ = kj::mv(paf.fulfiller);
    still = kj::mv(paf.promise);
  }
  return still.then(
      [this]() -> absl::StatusOr<Outcomes> { return OutcomesByNow(); });
}

void Retrieval::StartWindows() {
  while (active_windows_ < kWindowsUnderWay &&
         next_window_ < static_cast<int>(windows_.size())) {
    ++active_windows_;
    StartWindow(next_window_++);
  }
}

void Retrieval::StartWindow(int index) {
  Window& window = windows_[index];
  if (call_.region != nullptr) return AskNode(index);
  // The continuation uses `this` without a reference: this object owns the
  // promise.
  window_promises_.push_back(
      session_->gateway->scratch
          ->Acquire(window.bytes, RequesterId(session_->id.value()))
          .then(
              [this, index](absl::StatusOr<std::shared_ptr<Scratch>> scratch) {
                if (!scratch.ok()) return Fail(scratch.status());
                windows_[index].scratch = *std::move(scratch);
                AskNode(index);
              })
          .eagerlyEvaluate(nullptr));
}

void Retrieval::AskNode(int index) {
  Window& window = windows_[index];
  delivery::RetrieveRequest request{.model = call_.model,
                                    .ns = call_.ns,
                                    .chunks = {},
                                    .slice = call_.slice,
                                    .accept = call_.accept,
                                    .deadline = deadline_.of_node};
  request.prefill_tokens_per_second = call_.prefill_tokens_per_second;
  request.reuse = call_.reuse;
  request.session = session_->id;
  request.chunks_beside =
      static_cast<int>(std::count(settled_.begin(), settled_.end(), false)) -
      window.count;
  std::byte* next = window.scratch ? window.scratch->data() : nullptr;
  for (int i = window.first; i < window.first + window.count; ++i) {
    delivery::RetrieveChunk& chunk = call_.chunks[i];
    if (next != nullptr) {
      const KvShape shape = ShapeOfSlice(i);
      const KvStrides strides = call_.inline_layout == wire::Layout::HEAD_MAJOR
                                    ? KvStrides::HeadMajor(shape)
                                    : KvStrides::TokenMajor(shape);
      window.views.emplace_back(next, shape, strides);
      chunk.destination = window.views.back();
      next += shape.bytes();
    }
    request.chunks.push_back(std::move(chunk));
  }
  window.cancellation = request.cancellation;

  delivery::NodeService::OnLayer on_layer = [timer = first_layer_](int, int) {
    timer->OnLayer();
  };
  if (sink_ != nullptr) {
    on_layer = [inbox = inbox_, timer = first_layer_, first = window.first](
                   int chunk, int layer) {
      timer->OnLayer();
      inbox->Push(LayerOrder::Ready{first + chunk, layer});
    };
  }
  auto expected = session_->loop().Expect<Outcomes>();
  session_->node().Retrieve(
      std::move(request), std::move(on_layer),
      [scratch = window.scratch, region = call_.region,
       done = std::move(expected.done)](Outcomes outcomes) mutable {
        done(std::move(outcomes));
      });
  window_promises_.push_back(
      AnswerOrStatus(kj::mv(expected.promise))
          .catch_([](kj::Exception&& broken) -> absl::StatusOr<Outcomes> {
            LogError("gateway.retrieve", broken.getDescription().cStr());
            return absl::UnavailableError("the node dropped a retrieve");
          })
          .then([this, index](absl::StatusOr<Outcomes> outcomes) {
            OnAnswer(index, std::move(outcomes));
          })
          .eagerlyEvaluate(nullptr));
}

void Retrieval::OnAnswer(int index, absl::StatusOr<Outcomes> outcomes) {
  Window& window = windows_[index];
  TakeLayers();
  if (!outcomes.ok()) return Fail(outcomes.status());
  KDN_CHECK(static_cast<int>(outcomes->size()) == window.count,
            "the node must answer for each chunk");
  std::move(outcomes->begin(), outcomes->end(),
            outcomes_.begin() + window.first);
  window.answered = true;
  if (region_still_.get() != nullptr) region_still_->fulfill();
  FinishWindowIfDone(index);
}

void Retrieval::TakeLayers() {
  const size_t before = to_send_.size();
  for (const LayerOrder::Ready& ready : inbox_->TakeAll()) {
    order_.Complete(ready.chunk, ready.layer, to_send_);
  }
  // Of the layers that arrived together, the engine computes the lowest first.
  std::stable_sort(
      to_send_.begin() + static_cast<int64_t>(before), to_send_.end(),
      [](const auto& a, const auto& b) { return a.layer < b.layer; });
  for (size_t i = before; i < to_send_.size(); ++i) {
    ++windows_[window_of_[to_send_[i].chunk]].unsent;
  }
  Send();
}

void Retrieval::Send() {
  if (sending_ || to_send_.empty()) return;
  sending_ = true;
  send_promise_ = SendAll().eagerlyEvaluate(
      [this](kj::Exception&& broken) { Fail(FromException(broken)); });
}

kj::Promise<void> Retrieval::SendAll() {
  if (next_to_send_ == to_send_.size()) {
    to_send_.clear();
    next_to_send_ = 0;
    sending_ = false;
    return kj::READY_NOW;
  }
  // An engine that takes no layers holds scratch for which other engines wait.
  // The time that answers to other calls of the engine need does not count for
  // the shorter limit.
  const absl::Duration most = session_->gateway->options.engine_stall_max;
  return Within(session_->loop(), most, WhenWritable())
      .then([this] {
        return SendOne().exclusiveJoin(FailWhenStalled(EventLoop::Now()));
      })
      .then([this] { return SendAll(); });
}

kj::Promise<void> Retrieval::FailWhenStalled(kj::TimePoint since) {
  const Gateway::Options& options = session_->gateway->options;
  const absl::Duration look =
      std::min(options.engine_stall_max, options.engine_stall_contended_max);
  return session_->loop()
      .At(EventLoop::In(look))
      .then([this, since,
             most = options.engine_stall_max]() -> kj::Promise<void> {
        const absl::Duration stalled =
            absl::Microseconds((EventLoop::Now() - since) / kj::MICROSECONDS);
        const bool contended =
            call_.region == nullptr && session_->gateway->scratch->AnotherWaits(
                                           RequesterId(session_->id.value()));
        if (stalled < most && !contended) return FailWhenStalled(since);
        return KJ_EXCEPTION(
            DISCONNECTED, "the engine took no layer for too long",
            absl::FormatDuration(stalled).c_str(),
            contended ? "other engines wait for the memory" : "");
      });
}

// Waits while much is queued for the client: the window of a stream bounds only
// its own messages, and a client may have many retrieves.
kj::Promise<void> Retrieval::WhenWritable() {
  EngineMessages* messages = session_->link->messages;
  if (messages == nullptr) {
    return KJ_EXCEPTION(DISCONNECTED, "the engine has gone");
  }
  return messages->WhenWritable();
}

kj::Promise<void> Retrieval::SendOne() {
  return call_.region != nullptr ? SendNotices()
                                 : SendData(to_send_[next_to_send_]);
}

kj::Promise<void> Retrieval::SendNotices() {
  const size_t begin = next_to_send_;
  const size_t count = std::min(kNoticesPerMessage, to_send_.size() - begin);
  next_to_send_ += count;
  auto request = KJ_ASSERT_NONNULL(sink_).readyRequest();
  auto layers = request.initLayers(static_cast<unsigned>(count));
  for (size_t i = 0; i < count; ++i) {
    const LayerOrder::Ready& ready = to_send_[begin + i];
    layers[static_cast<unsigned>(i)].setChunk(
        static_cast<uint32_t>(ready.chunk));
    layers[static_cast<unsigned>(i)].setLayer(
        static_cast<uint32_t>(ready.layer));
  }
  return request.send().then([this, count] {
    windows_[0].unsent -= static_cast<int>(count);
    FinishWindowIfDone(0);
  });
}

kj::Promise<void> Retrieval::SendData(LayerOrder::Ready next) {
  ++next_to_send_;
  const int index = window_of_[next.chunk];
  const Window& window = windows_[index];
  const MutableKvView layers =
      window.views[next.chunk - window.first].Layers(next.layer, next.count);
  const size_t bytes = layers.shape().bytes();
  // Not dataRequest(): Cap'n Proto bounds the bytes of such calls by the send
  // buffer of the socket, which may be less than two messages.
  auto request = KJ_ASSERT_NONNULL(sink_).typelessRequest(
      capnp::typeId<wire::LayerSink>(), kDataMethod,
      capnp::MessageSize{bytes / sizeof(capnp::word) + 64, 0});
  auto data = request.initAs<wire::LayerSink::DataParams>();
  data.setChunk(static_cast<uint32_t>(next.chunk));
  data.setLayer(static_cast<uint32_t>(next.layer));
  data.setCount(static_cast<uint32_t>(next.count));
  data.setBytes(capnp::Data::Reader(
      reinterpret_cast<const kj::byte*>(layers.base()), bytes));
  unanswered_bytes_ += bytes;
  answers_.add(request.send().then([this, bytes](auto&&) {
    unanswered_bytes_ -= bytes;
    if (answered_.get() != nullptr) answered_->fulfill();
  }));
  --windows_[index].unsent;
  FinishWindowIfDone(index);
  return WhenEngineKeepsUp();
}

kj::Promise<void> Retrieval::WhenEngineKeepsUp() {
  if (unanswered_bytes_ <= kUnansweredBytes) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  answered_ = kj::mv(paf.fulfiller);
  return paf.promise.then([this] { return WhenEngineKeepsUp(); });
}

void Retrieval::taskFailed(kj::Exception&& broken) {
  Fail(FromException(broken));
}

void Retrieval::FinishWindowIfDone(int index) {
  Window& window = windows_[index];
  if (!window.answered || window.unsent > 0) return;
  for (int i = window.first; i < window.first + window.count; ++i) {
    settled_[i] = true;
  }
  window.scratch = nullptr;
  --active_windows_;
  if (++finished_windows_ == static_cast<int>(windows_.size())) {
    finished_->fulfill(absl::OkStatus());
  } else {
    StartWindows();
  }
}

// When the client has answered the last call, it has received every layer,
// because calls to one sink arrive in order.
kj::Promise<absl::StatusOr<Retrieval::Outcomes>> Retrieval::Farewell() {
  KJ_IF_MAYBE (sink, sink_) {
    return sink->doneRequest().send().then(
        [this](auto&&) -> absl::StatusOr<Outcomes> { return outcomes_; },
        [](kj::Exception&& broken) -> absl::StatusOr<Outcomes> {
          return FromException(broken);
        });
  }
  return absl::StatusOr<Outcomes>(outcomes_);
}

Retrieval::Outcomes Retrieval::OutcomesByNow() const {
  Outcomes outcomes = outcomes_;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    if (settled_[i]) continue;
    outcomes[i].kind = OutcomeKind::kFailed;
    outcomes[i].why = absl::DeadlineExceededError(
        absl::StrCat("chunk ", i, " of ", outcomes.size(),
                     " was not complete by the deadline"));
  }
  return outcomes;
}

void Retrieval::Fail(absl::Status why) {
  Cancel();
  finished_->fulfill(std::move(why));
}

void Retrieval::Cancel() {
  for (Window& window : windows_) {
    if (window.cancellation != nullptr) window.cancellation->Cancel();
  }
}

}  // namespace kdn::rpc
