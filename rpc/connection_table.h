#ifndef KDN_RPC_CONNECTION_TABLE_H_
#define KDN_RPC_CONNECTION_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace kdn::rpc {

// The connections of one server, and which of them make room when a newcomer
// finds none. A connection is given up only while it is silent or idle: a
// silent one before an idle one, of the peer that has the most of its kind, the
// oldest first. So a peer that opens many connections loses its own, and not
// those of others. Pure; not thread-safe.
class ConnectionTable {
 public:
  enum class Use {
    kSilent,  // the client has not said hello
    kIdle,    // closing the connection loses nothing
    kInUse,
  };
  // A class of peers. No class takes the connections that are kept for others.
  enum class Class { kRemote, kLocal };
  static Class ClassOf(bool local) {
    return local ? Class::kLocal : Class::kRemote;
  }
  struct Options {
    size_t connections_max = 0;
    // Of kSilent: enough for all honest peers that connect at the same time.
    size_t silent_max = 0;
    // Of one remote peer, when it has connected and once it has said who it is.
    size_t silent_per_peer_max = 0;
    size_t per_peer_max = 0;
    size_t kept_for_local = 0;
    size_t kept_for_remote = 0;
  };
  // Connections to hang up on; their owner calls Remove for each.
  using Victims = std::vector<uint64_t>;

  explicit ConnectionTable(const Options& options) : options_(options) {}

  // Adds a silent connection. Nullopt, and nothing changes, when there is no
  // room and no other connection may be given up. The victims no longer count.
  // REQUIRES: `id` is larger than every id before it.
  std::optional<Victims> Add(uint64_t id, Class peer_class, std::string peer);
  // The client has said who it is: the connection is now in use. Nullopt, and
  // nothing changes, when the peer has its share and none of its connections
  // may be given up. Then the owner hangs up on this connection, and calls
  // Remove.
  std::optional<Victims> SetPeer(uint64_t id, std::string peer);
  // Does nothing for a connection that was given up.
  void SetUse(uint64_t id, Use use);
  // The connection has ended. Does nothing if it was given up.
  void Remove(uint64_t id) { connections_.erase(id); }
  // Gives up an idle connection, of one class if `of` is set; nullopt when
  // there is none.
  std::optional<uint64_t> GiveUpIdle(std::optional<Class> of = std::nullopt);

  size_t size() const { return connections_.size(); }

 private:
  struct Connection {
    Class peer_class = Class::kRemote;
    std::string peer;
    Use use = Use::kSilent;
  };
  using Wanted = bool (*)(const Connection& connection,
                          const Connection& newcomer);
  size_t Count(Wanted wanted, const Connection& newcomer) const;
  // Gives up connections that `wanted` accepts until there are fewer than
  // `most` of them. False when too few can be given up.
  bool MakeRoom(Wanted wanted, size_t most, const Connection& newcomer,
                Victims* victims);
  std::optional<uint64_t> Victim(Wanted wanted,
                                 const Connection& newcomer) const;
  bool MakeRoomFor(const Connection& newcomer, Victims* victims);

  const Options options_;
  std::map<uint64_t, Connection> connections_;  // by id: the oldest first
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_CONNECTION_TABLE_H_
