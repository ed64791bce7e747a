#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "kv/log.h"
#include "rpc/listener.h"
#include "tests/rpc/gateway/fixture.h"
#include "tests/rpc/gateway/raw_client.h"

namespace kdn::rpc {
namespace {

class RetrieveTest : public GatewayFixture {
 protected:
  // Stores `count` chunks over TCP and leaves the client connected to
  // `address`.
  std::unique_ptr<Knowledge> StoreChunks(const std::string& address,
                                         int count) {
    auto knowledge = OpenOn(address);
    for (int i = 0; i < count; ++i) {
      chunks_.push_back(MakeChunk(ns_, model_, 100 * i, 5 + i % 3));
      auto receipt =
          knowledge->Store(chunks_.back().spec, chunks_.back().view());
      EXPECT_TRUE(receipt.ok()) << receipt.status();
    }
    return knowledge;
  }
  KvShape ShapeOfSlice(const TestChunk& chunk, const KvSlice& slice) const {
    KvShape shape = chunk.shape;
    shape.layers = slice.layers();
    shape.kv_heads = slice.heads();
    return shape;
  }
  // A retrieve of all chunks into memory that the gateway does not share.
  struct InlineRetrieve {
    RetrieveSpec spec;
    std::vector<Landing> landings;  // by chunk
  };
  InlineRetrieve RetrieveAll() const {
    InlineRetrieve all;
    for (const TestChunk& chunk : chunks_) {
      all.landings.push_back(MakeLanding(chunk.shape,
                                         KvStrides::TokenMajor(chunk.shape),
                                         chunk.shape.bytes()));
      all.spec.chunks.push_back(
          {chunk.ref, chunk.spec.positions, all.landings.back().view});
    }
    return all;
  }
  std::vector<TestChunk> chunks_;
};

TEST_F(RetrieveTest, InlineIntoEveryLayout) {
  auto knowledge = StoreChunks(tcp_address(), 3);
  const KvSlice whole = WholeOf(model_);
  for (const TestChunk& chunk : chunks_) {
    const KvShape& shape = chunk.shape;
    KvStrides padded = KvStrides::HeadMajor(shape);
    padded.token += 3;
    padded.head = padded.token * shape.tokens + 5;
    padded.part = padded.head * shape.kv_heads + 7;
    padded.layer = 2 * padded.part + 11;
    for (const KvStrides& strides :
         {KvStrides::TokenMajor(shape), KvStrides::HeadMajor(shape), padded}) {
      Landing landing = MakeLanding(shape, strides, 8 * shape.bytes());
      std::vector<int> layers;
      auto outcomes = knowledge->Retrieve(
          {.chunks = {{chunk.ref, chunk.spec.positions, landing.view}}},
          [&](int, int layer) { layers.push_back(layer); });
      ASSERT_TRUE(outcomes.ok()) << outcomes.status();
      EXPECT_EQ((*outcomes)[0].kind, OutcomeKind::kHit);
      EXPECT_EQ((*outcomes)[0].source, NodeId("fake"));
      EXPECT_EQ((*outcomes)[0].wire_bytes, 42u);
      EXPECT_EQ(layers, std::vector<int>({0, 1, 2}));
      EXPECT_TRUE(SameKv(landing.view, chunk, whole));
    }
  }
}

TEST_F(RetrieveTest, CallsAreTimed) {
  auto knowledge = StoreChunks(tcp_address(), 2);
  ASSERT_TRUE(knowledge->Lookup({&chunks_[0].ref, 1}).ok());
  const KvShape& shape = chunks_[0].shape;
  Landing landing =
      MakeLanding(shape, KvStrides::TokenMajor(shape), shape.bytes());
  ASSERT_TRUE(
      knowledge
          ->Retrieve({.chunks = {{chunks_[0].ref, chunks_[0].spec.positions,
                                  landing.view}}})
          .ok());
  const MetricValues values = meters_->Read();
  EXPECT_EQ(values.histogram("store_commit_us").count(), 2u);
  EXPECT_EQ(values.histogram("lookup_us").count(), 1u);
  EXPECT_EQ(values.histogram("retrieve_us").count(), 1u);
  EXPECT_EQ(values.histogram("retrieve_first_layer_us").count(), 1u);
  EXPECT_LE(values.histogram("retrieve_first_layer_us").sum(),
            values.histogram("retrieve_us").sum());
}

// Passes bytes between Unix sockets and drops descriptors, as a proxy between
// containers may do.
class PlainProxy {
 public:
  PlainProxy(const std::string& path, const std::string& server)
      : path_(path), listening_(*ListenUnix(path)), thread_([this, server] {
          pollfd wait{listening_, POLLIN, 0};
          if (poll(&wait, 1, /*timeout_ms=*/20000) <= 0) return;
          Pass(accept(listening_, nullptr, nullptr), ConnectTo(server));
        }) {}
  ~PlainProxy() {
    thread_.join();
    close(listening_);
    unlink(path_.c_str());
  }

 private:
  static int ConnectTo(const std::string& path) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    path.copy(at.sun_path, sizeof(at.sun_path) - 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
    return fd;
  }
  // Passes bytes until one side hangs up.
  static void Pass(int a, int b) {
    pollfd ends[2] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
    for (bool open = true; open;) {
      poll(ends, 2, -1);
      for (int i = 0; i < 2 && open; ++i) {
        if (ends[i].revents == 0) continue;
        char buffer[4096];
        const ssize_t n = recv(ends[i].fd, buffer, sizeof(buffer), 0);
        open = n > 0 && send(ends[1 - i].fd, buffer, static_cast<size_t>(n),
                             MSG_NOSIGNAL) == n;
      }
    }
    close(a);
    close(b);
  }

  const std::string path_;
  const int listening_;
  std::thread thread_;
};

TEST_F(RetrieveTest, WithoutADescriptorTheKvPassesTheSocket) {
  const std::string path = directory_ + "/proxy.sock";
  PlainProxy proxy(path, directory_ + "/engine.sock");
  std::vector<std::string> lines;
  SetLogSink([&](LogSeverity, absl::string_view, absl::string_view line) {
    lines.emplace_back(line);
  });
  auto knowledge = OpenOn(absl::StrCat("unix:", path));
  EXPECT_TRUE(client_->shares_memory()) << "nothing else is known yet";
  auto region = client_->OpenMemory(1 << 16);
  ASSERT_TRUE(region.ok()) << region.status();
  EXPECT_FALSE((*region)->shared());
  EXPECT_FALSE(client_->shares_memory());
  EXPECT_TRUE(client_->OpenMemory(1 << 12).ok());
  SetLogSink(nullptr);
  ASSERT_EQ(lines.size(), 1u) << "said once";
  EXPECT_THAT(lines[0], testing::HasSubstr("passes the socket"));

  const TestChunk chunk = MakeChunk(ns_, model_, 3);
  std::memcpy((*region)->data(), chunk.bytes.data(), chunk.bytes.size());
  const KvStrides strides = KvStrides::TokenMajor(chunk.shape);
  auto stream =
      knowledge->BeginStore(chunk.spec, kDefaultTimeout, region->get());
  ASSERT_TRUE(stream.ok()) << stream.status();
  const KvView stored((*region)->data(), chunk.shape, strides);
  for (int layer = 0; layer < model_.num_layers; ++layer) {
    ASSERT_TRUE((*stream)->PutLayer(stored.Layer(layer)).ok());
  }
  ASSERT_TRUE((*stream)->Commit().ok());
  const MutableKvView got((*region)->data() + (1 << 15), chunk.shape, strides);
  auto outcomes =
      knowledge->Retrieve({.chunks = {{chunk.ref, chunk.spec.positions, got}}});
  ASSERT_TRUE(outcomes.ok()) << outcomes.status();
  EXPECT_EQ((*outcomes)[0].kind, OutcomeKind::kHit);
  EXPECT_TRUE(SameKv(got, chunk, WholeOf(model_)));
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().memory_bytes == 0; }))
      << "a region that nobody can map is kept";
  stream->reset();
  knowledge = nullptr;
  region->reset();
  client_ = nullptr;
}

TEST_F(RetrieveTest, OverTcpARegionIsNotShared) {
  OpenOn(tcp_address());
  EXPECT_FALSE(client_->shares_memory());
  auto region = client_->OpenMemory(1 << 12);
  ASSERT_TRUE(region.ok()) << region.status();
  EXPECT_FALSE((*region)->shared());
}

TEST_F(RetrieveTest, SharedMemoryInEveryLayoutAndSlice) {
  auto knowledge = StoreChunks(unix_address(), 2);
  auto region = client_->OpenMemory(1 << 20);
  ASSERT_TRUE(region.ok()) << region.status();
  for (const KvSlice& slice : {WholeOf(model_), KvSlice{1, 3, 1, 2}}) {
    for (bool head_major : {false, true}) {
      RetrieveSpec spec;
      spec.slice = slice;
      std::byte* next = (*region)->data() + 64;
      for (const TestChunk& chunk : chunks_) {
        const KvShape shape = ShapeOfSlice(chunk, slice);
        const KvStrides strides = head_major ? KvStrides::HeadMajor(shape)
                                             : KvStrides::TokenMajor(shape);
        spec.chunks.push_back({chunk.ref, chunk.spec.positions,
                               MutableKvView(next, shape, strides)});
        next += shape.bytes() + 32;
      }
      std::vector<std::vector<int>> layers(2);
      auto outcomes = knowledge->Retrieve(
          spec, [&](int chunk, int layer) { layers[chunk].push_back(layer); });
      ASSERT_TRUE(outcomes.ok()) << outcomes.status();
      for (int i = 0; i < 2; ++i) {
        EXPECT_EQ((*outcomes)[i].kind, OutcomeKind::kHit);
        EXPECT_EQ(static_cast<int>(layers[i].size()), slice.layers());
        EXPECT_TRUE(SameKv(spec.chunks[i].destination, chunks_[i], slice));
      }
      std::memset((*region)->data(), 0, (*region)->size());
      ASSERT_TRUE(knowledge->Retrieve(spec).ok()) << "without a listener";
      EXPECT_TRUE(SameKv(spec.chunks[1].destination, chunks_[1], slice));
    }
  }
}

TEST_F(RetrieveTest, LayersThatCompleteInReverseComeInOrder) {
  auto knowledge = StoreChunks(tcp_address(), 2);
  node_.set_layers_backwards(true);
  const InlineRetrieve all = RetrieveAll();
  std::vector<std::vector<int>> layers(2);
  ASSERT_TRUE(knowledge
                  ->Retrieve(all.spec,
                             [&](int chunk, int layer) {
                               layers[chunk].push_back(layer);
                             })
                  .ok());
  EXPECT_EQ(layers[0], std::vector<int>({0, 1, 2}));
  EXPECT_EQ(layers[1], std::vector<int>({0, 1, 2}));
}

TEST_F(RetrieveTest, EachChunkHasItsOwnOutcome) {
  auto knowledge = StoreChunks(tcp_address(), 3);
  ChunkOutcome damaged;
  damaged.kind = OutcomeKind::kFailed;
  damaged.why = absl::DataLossError("every copy is damaged");
  node_.set_outcome(chunks_[1].ref.key, damaged);
  chunks_.push_back(MakeChunk(ns_, model_, 7000));
  const InlineRetrieve all = RetrieveAll();
  auto outcomes = knowledge->Retrieve(all.spec);
  ASSERT_TRUE(outcomes.ok()) << outcomes.status();
  EXPECT_EQ((*outcomes)[0].kind, OutcomeKind::kHit);
  EXPECT_EQ((*outcomes)[1].kind, OutcomeKind::kFailed);
  EXPECT_TRUE(absl::IsDataLoss((*outcomes)[1].why));
  EXPECT_EQ((*outcomes)[2].kind, OutcomeKind::kHit);
  EXPECT_EQ((*outcomes)[3].kind, OutcomeKind::kMiss);
}

// Two clients retrieve many windows at once, with little scratch memory.
TEST_F(RetrieveTest, ScratchIsBoundedAndShared) {
  Gateway::Options options;
  const size_t chunk_bytes = MakeChunk(ns_, model_, 1, 7).shape.bytes();
  options.window_bytes = chunk_bytes;
  options.scratch_bytes_max = 3 * chunk_bytes;
  StartGateway(options);
  auto knowledge = StoreChunks(tcp_address(), 30);
  std::atomic<uint64_t> most{0};
  node_.set_before_layer([&](int, int) {
    most = std::max<uint64_t>(most, gateway_->usage().scratch_bytes);
  });
  auto deliver = [&](Knowledge* from) {
    const InlineRetrieve all = RetrieveAll();
    auto outcomes = from->Retrieve(all.spec);
    ASSERT_TRUE(outcomes.ok()) << outcomes.status();
    for (size_t i = 0; i < chunks_.size(); ++i) {
      EXPECT_EQ((*outcomes)[i].kind, OutcomeKind::kHit);
      EXPECT_TRUE(SameKv(all.landings[i].view, chunks_[i], WholeOf(model_)));
    }
  };
  std::thread other([&] {
    auto client = Client::Connect(tcp_address());
    ASSERT_TRUE(client.ok());
    auto own = (*client)->Open(ns_, model_);
    ASSERT_TRUE(own.ok());
    deliver(own->get());
  });
  deliver(knowledge.get());
  other.join();
  EXPECT_GT(most.load(), 0u);
  EXPECT_LE(most.load(), options.scratch_bytes_max);
  const TestChunk large = MakeChunk(ns_, model_, 9000, 64);
  Landing landing = MakeLanding(large.shape, KvStrides::HeadMajor(large.shape),
                                large.shape.bytes());
  EXPECT_TRUE(absl::IsResourceExhausted(
      knowledge
          ->Retrieve(
              {.chunks = {{large.ref, large.spec.positions, landing.view}}})
          .status()));
}

TEST_F(RetrieveTest, ClientThatHangsUpMidStreamCancelsAndFreesEverything) {
  auto knowledge = StoreChunks(tcp_address(), 2);
  absl::Notification reached, go_on;
  node_.set_before_layer([&](int, int layer) {
    if (layer != 1 || reached.HasBeenNotified()) return;
    reached.Notify();
    go_on.WaitForNotification();
  });
  std::thread engine([&] {
    auto client = Client::Connect(tcp_address());
    ASSERT_TRUE(client.ok());
    auto own = (*client)->Open(ns_, model_);
    ASSERT_TRUE(own.ok());
    Landing landing =
        MakeLanding(chunks_[0].shape, KvStrides::TokenMajor(chunks_[0].shape),
                    chunks_[0].shape.bytes());
    // Gives up, then hangs up, while the node still works on the call.
    auto outcomes = (*own)->Retrieve(
        {.chunks = {{chunks_[0].ref, chunks_[0].spec.positions, landing.view}}},
        nullptr, absl::Milliseconds(50));
    EXPECT_TRUE(!outcomes.ok() || (*outcomes)[0].kind == OutcomeKind::kFailed);
  });
  reached.WaitForNotification();
  EXPECT_GT(gateway_->usage().scratch_bytes, 0u);
  engine.join();
  EXPECT_TRUE(node_.WaitForSessionsOpen(1));
  EXPECT_GT(gateway_->usage().scratch_bytes, 0u)
      << "the node still writes there";
  go_on.Notify();
  EXPECT_TRUE(node_.WaitForCancelled(1));
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().scratch_bytes == 0; }));
}

TEST_F(RetrieveTest, RegionOutlivesItsClientWhileTheNodeWrites) {
  auto knowledge = StoreChunks(tcp_address(), 1);
  absl::Notification reached, go_on;
  node_.set_before_layer([&](int, int) {
    if (reached.HasBeenNotified()) return;
    reached.Notify();
    go_on.WaitForNotification();
  });
  std::thread engine([&] {
    auto client = Client::Connect(unix_address());
    ASSERT_TRUE(client.ok());
    auto own = (*client)->Open(ns_, model_);
    auto region = (*client)->OpenMemory(1 << 16);
    ASSERT_TRUE(own.ok() && region.ok());
    const MutableKvView view((*region)->data(), chunks_[0].shape,
                             KvStrides::TokenMajor(chunks_[0].shape));
    auto outcomes = (*own)->Retrieve(
        {.chunks = {{chunks_[0].ref, chunks_[0].spec.positions, view}}},
        nullptr, absl::Milliseconds(50));
    EXPECT_TRUE(!outcomes.ok() || (*outcomes)[0].kind == OutcomeKind::kFailed);
  });
  reached.WaitForNotification();
  engine.join();
  EXPECT_TRUE(node_.WaitForSessionsOpen(1));
  EXPECT_GT(gateway_->usage().memory_bytes, 0u);
  go_on.Notify();
  EXPECT_TRUE(node_.WaitForCancelled(1));
  EXPECT_TRUE(Eventually([&] { return gateway_->usage().memory_bytes == 0; }));
}

TEST_F(RetrieveTest, AcceptingALevelAcceptsNoOther) {
  auto knowledge = OpenOn(tcp_address());
  TestChunk chunk = MakeChunk(ns_, model_, 7);
  chunk.spec.levels = LevelSet::Of(Level::kBase1);
  ASSERT_TRUE(knowledge->Store(chunk.spec, chunk.view()).ok());
  Landing landing = MakeLanding(chunk.shape, KvStrides::TokenMajor(chunk.shape),
                                chunk.shape.bytes());
  const auto get = [&](LevelSet accept) {
    const auto outcomes = knowledge->Retrieve(
        {.chunks = {{chunk.ref, chunk.spec.positions, landing.view}},
         .accept = accept});
    EXPECT_TRUE(outcomes.ok()) << outcomes.status();
    return outcomes.ok() ? outcomes->front() : ChunkOutcome();
  };
  EXPECT_EQ(get(LevelSet::All()).level, Level::kBase1);
  EXPECT_EQ(get(LevelSet::Of(Level::kBase)).level, Level::kBase);
  EXPECT_EQ(get(LevelSet::Of(Level::kBase1)).level, Level::kBase1);
  for (const Level level : {Level::kLossless, Level::kInt8, Level::kBase2}) {
    EXPECT_EQ(get(LevelSet::Of(level)).kind, OutcomeKind::kMiss) << Name(level);
  }
}

TEST_F(RetrieveTest, AMissingCalibrationReachesTheEngine) {
  auto knowledge = StoreChunks(tcp_address(), 1);
  const TestChunk& chunk = chunks_[0];
  ChunkOutcome failed;
  failed.kind = OutcomeKind::kFailed;
  failed.why = absl::FailedPreconditionError("coded with calibration 01ab");
  node_.set_outcome(chunk.ref.key, failed);
  Landing landing = MakeLanding(chunk.shape, KvStrides::TokenMajor(chunk.shape),
                                chunk.shape.bytes());
  const auto outcomes = knowledge->Retrieve(
      {.chunks = {{chunk.ref, chunk.spec.positions, landing.view}}});
  ASSERT_TRUE(outcomes.ok()) << outcomes.status();
  EXPECT_EQ(outcomes->front().kind, OutcomeKind::kFailed);
  EXPECT_EQ(outcomes->front().why, failed.why);
}

TEST_F(RetrieveTest, ARegionIsNotWrittenAfterTheAnswer) {
  auto knowledge = StoreChunks(tcp_address(), 1);
  absl::Notification reached, go_on;
  node_.set_before_layer([&](int, int) {
    if (reached.HasBeenNotified()) return;
    reached.Notify();
    go_on.WaitForNotification();
  });
  RawClient raw(unix_address());
  wire::Knowledge::Client own = raw.Open(ns_, model_);
  auto open = raw.Session().openMemoryRequest();
  open.setBytes(1 << 16);
  const auto memory = raw.Send(kj::mv(open));
  ASSERT_TRUE(memory.ok()) << memory.status();
  auto retrieve = own.retrieveRequest();
  auto body = retrieve.initRequest();
  auto chunk = body.initChunks(1)[0];
  ToWire(chunks_[0].ref, chunk.initRef());
  const std::vector<int32_t>& positions = chunks_[0].spec.positions;
  FillList(positions,
           chunk.initPositions(static_cast<unsigned>(positions.size())));
  ToWire(KvStrides::TokenMajor(chunks_[0].shape), chunk.initStrides());
  body.getDestination().setMemory(memory->getMemory());
  retrieve.setDeadlineMs(300);
  bool answered = false;
  kj::Promise<void> answer = retrieve.send()
                                 .then([&](auto&&) { answered = true; })
                                 .eagerlyEvaluate([](kj::Exception&& broken) {
                                   ADD_FAILURE()
                                       << broken.getDescription().cStr();
                                 });
  // The node is still busy with the layer when this call ends, at its own,
  // later deadline.
  auto later = own.lookupRequest();
  ToWire(chunks_[0].ref, later.initChunks(1)[0]);
  later.setDeadlineMs(600);
  EXPECT_TRUE(absl::IsDeadlineExceeded(raw.StatusOf(kj::mv(later))));
  EXPECT_TRUE(reached.HasBeenNotified());
  EXPECT_FALSE(answered) << "the node still writes there";
  go_on.Notify();
  EXPECT_TRUE(raw.loop().WaitVoid(kj::mv(answer), absl::Seconds(20)).ok());
  EXPECT_TRUE(answered);
}

TEST_F(RetrieveTest, InvalidRequestsAreRefused) {
  auto knowledge = StoreChunks(tcp_address(), 1);
  const TestChunk& chunk = chunks_[0];
  Landing landing = MakeLanding(chunk.shape, KvStrides::TokenMajor(chunk.shape),
                                chunk.shape.bytes());
  RetrieveSpec good{
      .chunks = {{chunk.ref, chunk.spec.positions, landing.view}}};
  RetrieveSpec bad = good;
  bad.chunks[0].positions.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(knowledge->Retrieve(bad).status()));
  bad = good;
  bad.chunks[0].positions[0] = -1;
  EXPECT_TRUE(absl::IsInvalidArgument(knowledge->Retrieve(bad).status()));
  bad = good;
  bad.slice = KvSlice{0, 4, 0, 2};
  EXPECT_TRUE(absl::IsInvalidArgument(knowledge->Retrieve(bad).status()));
  bad = good;
  bad.accept = LevelSet();
  EXPECT_TRUE(knowledge->Retrieve(bad).ok()) << "no level given: any will do";
  EXPECT_TRUE(knowledge->Retrieve(good).ok());
  EXPECT_TRUE(knowledge->Retrieve({})->empty());
}

}  // namespace
}  // namespace kdn::rpc
