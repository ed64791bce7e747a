#ifndef KDN_ACTORS_HELD_KEYS_H_
#define KDN_ACTORS_HELD_KEYS_H_

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "kv/chunk_key.h"

namespace kdn::actors {

// The keys that leases or TTLs hold against eviction in one partition. The
// storage actor writes every change; the disk tier's threads read.
// Thread-safe.
class HeldKeys {
 public:
  void Set(const ChunkKey& key, bool held) {
    absl::MutexLock lock(&mutex_);
    if (held) {
      keys_.insert(key);
    } else {
      keys_.erase(key);
    }
  }
  bool Has(const ChunkKey& key) const {
    absl::ReaderMutexLock lock(&mutex_);
    return keys_.contains(key);
  }

 private:
  mutable absl::Mutex mutex_;
  absl::flat_hash_set<ChunkKey> keys_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kdn::actors

#endif  // KDN_ACTORS_HELD_KEYS_H_
