#include "rpc/connection_table.h"

#include <utility>

namespace kdn::rpc {

size_t ConnectionTable::Count(Wanted wanted, const Connection& newcomer) const {
  size_t count = 0;
  for (const auto& [id, connection] : connections_) {
    if (wanted(connection, newcomer)) ++count;
  }
  return count;
}

std::optional<uint64_t> ConnectionTable::Victim(
    Wanted wanted, const Connection& newcomer) const {
  for (const Use use : {Use::kSilent, Use::kIdle}) {
    std::map<std::string, std::pair<size_t, uint64_t>> of_peer;  // and oldest
    for (const auto& [id, connection] : connections_) {
      if (connection.use != use || !wanted(connection, newcomer)) continue;
      auto& [count, oldest] =
          of_peer.try_emplace(connection.peer, 0, id).first->second;
      ++count;
    }
    std::optional<uint64_t> victim;
    size_t most = 0;
    for (const auto& [peer, found] : of_peer) {
      if (found.first <= most) continue;
      most = found.first;
      victim = found.second;
    }
    if (victim) return victim;
  }
  return std::nullopt;
}

bool ConnectionTable::MakeRoom(Wanted wanted, size_t most,
                               const Connection& newcomer, Victims* victims) {
  while (Count(wanted, newcomer) >= most) {
    const std::optional<uint64_t> victim = Victim(wanted, newcomer);
    if (!victim) return false;
    connections_.erase(*victim);
    victims->push_back(*victim);
  }
  return true;
}

bool ConnectionTable::MakeRoomFor(const Connection& newcomer,
                                  Victims* victims) {
  const bool remote = newcomer.peer_class == Class::kRemote;
  const size_t of_peer = newcomer.use == Use::kSilent
                             ? options_.silent_per_peer_max
                             : options_.per_peer_max;
  const size_t kept =
      remote ? options_.kept_for_local : options_.kept_for_remote;
  return (!remote || MakeRoom(
                         [](const Connection& c, const Connection& n) {
                           return c.peer_class == n.peer_class &&
                                  c.peer == n.peer;
                         },
                         of_peer, newcomer, victims)) &&
         MakeRoom(
             [](const Connection& c, const Connection& n) {
               return c.peer_class == n.peer_class;
             },
             options_.connections_max - kept, newcomer, victims) &&
         MakeRoom([](const Connection& c,
                     const Connection&) { return c.use == Use::kSilent; },
                  options_.silent_max, newcomer, victims) &&
         MakeRoom([](const Connection&, const Connection&) { return true; },
                  options_.connections_max, newcomer, victims);
}

std::optional<ConnectionTable::Victims> ConnectionTable::Add(uint64_t id,
                                                             Class peer_class,
                                                             std::string peer) {
  Connection newcomer{peer_class, std::move(peer), Use::kSilent};
  Victims victims;
  const std::map<uint64_t, Connection> before = connections_;
  if (!MakeRoomFor(newcomer, &victims)) {
    connections_ = before;
    return std::nullopt;
  }
  connections_.emplace(id, std::move(newcomer));
  return victims;
}

std::optional<ConnectionTable::Victims> ConnectionTable::SetPeer(
    uint64_t id, std::string peer) {
  const std::map<uint64_t, Connection> before = connections_;
  auto known = connections_.extract(id);
  if (known.empty()) return Victims();  // it was given up
  known.mapped().peer = std::move(peer);
  known.mapped().use = Use::kInUse;
  Victims victims;
  if (!MakeRoomFor(known.mapped(), &victims)) {
    connections_ = before;
    return std::nullopt;
  }
  connections_.insert(std::move(known));
  return victims;
}

void ConnectionTable::SetUse(uint64_t id, Use use) {
  const auto found = connections_.find(id);
  if (found != connections_.end()) found->second.use = use;
}

std::optional<uint64_t> ConnectionTable::GiveUpIdle(std::optional<Class> of) {
  const Wanted idle = [](const Connection& c, const Connection&) {
    return c.use == Use::kIdle;
  };
  const Wanted idle_of_class = [](const Connection& c, const Connection& n) {
    return c.use == Use::kIdle && c.peer_class == n.peer_class;
  };
  Connection like;
  if (of) like.peer_class = *of;
  const std::optional<uint64_t> victim =
      Victim(of ? idle_of_class : idle, like);
  if (victim) connections_.erase(*victim);
  return victim;
}

}  // namespace kdn::rpc
