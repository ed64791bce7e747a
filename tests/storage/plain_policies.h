#ifndef KDN_TESTS_STORAGE_PLAIN_POLICIES_H_
#define KDN_TESTS_STORAGE_PLAIN_POLICIES_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

#include "storage/eviction_lru.h"
#include "storage/eviction_s3fifo.h"

namespace kdn::storage {

// Plain versions of the policies, with which tests compare the real ones:
// caches of objects of weight 1 that keep whole hashes in vectors and deques.

class PlainLru {
 public:
  explicit PlainLru(uint32_t capacity) : capacity_(capacity) {}
  bool Request(uint64_t hash) {
    const bool hit = Remove(hash);
    if (order_.size() == capacity_) order_.erase(order_.begin());
    order_.push_back(hash);
    return hit;
  }
  bool Remove(uint64_t hash) { return std::erase(order_, hash) > 0; }
  std::vector<uint64_t> objects() const { return order_; }

 private:
  const uint32_t capacity_;
  std::vector<uint64_t> order_;  // least recently used first
};

// Algorithm 1 of the S3-FIFO paper.
class PlainS3Fifo {
 public:
  explicit PlainS3Fifo(uint32_t capacity)
      : capacity_(capacity), main_max_(capacity - capacity / 10) {}
  bool Request(uint64_t hash) {
    for (std::deque<Object>* queue : {&small_, &main_}) {
      const auto found = Find(*queue, hash);
      if (found == queue->end()) continue;
      found->reads = std::min(3, found->reads + 1);
      return true;
    }
    if (small_.size() + main_.size() == capacity_) EvictOne();
    if (std::erase(ghosts_, hash) > 0) {
      main_.push_back({hash, 0});
    } else {
      small_.push_back({hash, 0});
    }
    return false;
  }
  bool Remove(uint64_t hash) {
    const auto same = [&](const Object& object) { return object.hash == hash; };
    return std::erase_if(small_, same) + std::erase_if(main_, same) > 0;
  }
  std::vector<uint64_t> objects() const {
    std::vector<uint64_t> all;
    for (const Object& object : small_) all.push_back(object.hash);
    for (const Object& object : main_) all.push_back(object.hash);
    return all;
  }

 private:
  struct Object {
    uint64_t hash;
    int reads;
  };
  static std::deque<Object>::iterator Find(std::deque<Object>& queue,
                                           uint64_t hash) {
    return std::find_if(queue.begin(), queue.end(), [&](const Object& object) {
      return object.hash == hash;
    });
  }
  void EvictOne() {
    const bool from_main = main_.size() > main_max_ || small_.empty();
    if (from_main ? !EvictMain() : !EvictSmall()) EvictMain();
  }
  bool EvictSmall() {
    while (!small_.empty()) {
      const Object oldest = small_.front();
      small_.pop_front();
      if (oldest.reads >= 2) {
        main_.push_back({oldest.hash, 0});
        continue;
      }
      ghosts_.push_back(oldest.hash);
      if (ghosts_.size() > main_max_) ghosts_.pop_front();
      return true;
    }
    return false;
  }
  bool EvictMain() {
    while (!main_.empty()) {
      const Object oldest = main_.front();
      main_.pop_front();
      if (oldest.reads == 0) return true;
      main_.push_back({oldest.hash, oldest.reads - 1});
    }
    return false;
  }

  const size_t capacity_;
  const size_t main_max_;
  std::deque<Object> small_;
  std::deque<Object> main_;
  std::deque<uint64_t> ghosts_;
};

template <typename Policy>
struct PlainOf;
template <>
struct PlainOf<LruPolicy> {
  using Cache = PlainLru;
};
template <>
struct PlainOf<S3FifoPolicy> {
  using Cache = PlainS3Fifo;
};

}  // namespace kdn::storage

#endif  // KDN_TESTS_STORAGE_PLAIN_POLICIES_H_
