#ifndef KDN_RPC_BULK_SESSION_H_
#define KDN_RPC_BULK_SESSION_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "delivery/fetch_plan.h"
#include "delivery/serve_order.h"
#include "rpc/bulk/frame.h"
#include "rpc/bulk/push_room.h"
#include "rpc/bulk/server.h"
#include "rpc/call_deadline.h"
#include "rpc/tls/context.h"

namespace kdn::rpc {

// The parts that all sessions of one bulk server share.
struct BulkShared {
  BulkServer::Options options;
  SslContext tls{nullptr, SSL_CTX_free};  // null: plaintext
  delivery::PeerService* service = nullptr;
  EventLoop* loop = nullptr;
  std::shared_ptr<PushRoom> unreceived;  // see push_unreceived_max
};

// What a session tells the server of its connection.
struct BulkLink {
  // The node says that its name is this. False: it has too many connections.
  std::function<bool(const std::string& node)> greeted;
  // A request is being served, or no longer is.
  std::function<void(bool busy)> set_busy;
};

// The server's side of one connection: hello, then one request after the other.
// An exception ends this session only. Loop thread only.
class BulkSession {
 public:
  BulkSession(BulkShared& shared, kj::Own<kj::AsyncIoStream> stream,
              BulkLink link)
      : shared_(shared),
        loop_(*shared.loop),
        stream_(kj::mv(stream)),
        link_(std::move(link)) {}

  // Resolves or fails when the connection is to be closed.
  kj::Promise<void> Run();

 private:
  // One chunk of a fetch: the copy that this node has, and the levels to send.
  struct Item {
    unsigned number = 0;  // its index in the request
    absl::Status status;
    delivery::PeerService::Held held;
    ObjectVersion damaged;  // version of a copy that cannot be parsed
    std::optional<codec::ObjectIndex> index;
    SliceLayout layout;  // without levels: the engine recomputes the chunk

    bool is_sent() const { return status.ok() && !layout.levels.empty(); }
  };
  // A fetch in progress.
  struct Fetch {
    Fetch(const KvSlice& slice_in, LevelSet accept_in,
          uint16_t newest_format_in, const delivery::SendBudget& budget,
          size_t chunks)
        : slice(slice_in),
          accept(accept_in),
          newest_format(newest_format_in),
          plan(slice_in, accept_in, budget, chunks),
          order(chunks),
          items(chunks) {}

    const KvSlice slice;
    const LevelSet accept;
    const uint16_t newest_format;  // that the caller reads
    delivery::FetchPlan plan;
    delivery::ServeOrder order;
    std::vector<Item> items;  // by chunk; set when the chunk has been read
    std::vector<kj::Promise<void>> reads;
    kj::Own<kj::PromiseFulfiller<void>> all_read;
  };
  // Chunks of a fetch that are sent together.
  struct Group {
    std::vector<Item> items;
    std::vector<kj::Array<kj::byte>> frames;
    std::vector<kj::ArrayPtr<const kj::byte>> pieces;
    size_t first_stream = 0;  // among the pieces
  };
  struct Pushing {
    ChunkRef ref;
    uint64_t bytes = 0;
    Durability durability = Durability::kReplicated;
    absl::Time expires;
    CallDeadline deadline;
    std::shared_ptr<storage::ArenaBlock> block;
    std::unique_ptr<PushRoom::Pass> unreceived;
  };

  // Puts the connection under TLS, if this node uses TLS.
  kj::Promise<void> Secure();
  absl::Status Judge(const placement::Introduction& ours,
                     peer::Hello::Reader hello) const;
  // Answers the hello. False when the peer was refused.
  kj::Promise<bool> Greet(peer::Hello::Reader hello);
  kj::Promise<void> ServeRequests();
  kj::Promise<void> Serve(peer::Request::Reader request);
  // Answers a request that this server does not know, with a Refusal.
  kj::Promise<void> Refuse(const absl::Status& why);
  kj::Promise<void> ServeFetch(peer::Fetch::Reader fetch,
                               absl::Duration timeout);
  static Item ItemOf(unsigned number,
                     absl::StatusOr<delivery::PeerService::Held> held,
                     const Fetch& fetch);
  kj::Promise<void> SendGroups(std::shared_ptr<Fetch> fetch);
  // Decides the levels of each chunk of a group.
  static void Plan(Fetch& fetch, std::vector<Item>& items);
  // Resolves when a group is due to be sent.
  kj::Promise<void> AwaitGroup(Fetch& fetch);
  static std::vector<Item> TakeItems(Fetch& fetch);
  static std::shared_ptr<Group> Arrange(std::vector<Item> items,
                                        const KvSlice& slice);
  kj::Promise<void> ServeCalibration(peer::Calibration::Reader request,
                                     absl::Duration timeout);
  // Sends a calibration's bytes from `begin` on.
  kj::Promise<void> SendBytes(delivery::PeerService::FileBytes bytes,
                              size_t begin);
  kj::Promise<void> ServePush(peer::Push::Reader push, absl::Duration timeout);
  using Block = absl::StatusOr<std::shared_ptr<storage::ArenaBlock>>;
  // Takes memory for a push, once not too much memory waits for bytes.
  kj::Promise<Block> Reserve(std::shared_ptr<Pushing> push);
  kj::Promise<void> Go(std::shared_ptr<Pushing> push,
                       const absl::Status& status);
  kj::Promise<void> Receive(std::shared_ptr<Pushing> push, uint64_t done);
  kj::Promise<void> Commit(std::shared_ptr<Pushing> push);
  // Sends the pieces from `next` on, one block at a time.
  kj::Promise<void> SendFrom(std::shared_ptr<Group> group, size_t next);

  BulkShared& shared_;
  EventLoop& loop_;
  kj::Own<kj::AsyncIoStream> stream_;
  const BulkLink link_;
  std::string certified_;  // the name in the peer's certificate
  RequesterId requester_;  // stands for the name of the peer
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_BULK_SESSION_H_
