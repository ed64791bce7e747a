#include "storage/eviction_s3fifo.h"

#include "kv/check.h"

namespace kdn::storage {

Slot S3FifoPolicy::Insert(const Cached& object) {
  KDN_CHECK(object.weight > 0, "an object takes room");
  const Slot slot =
      slab_.Add({object.hash, kNoSlot, kNoSlot, object.weight, 0, false});
  Push(slot, ghosts_.Take(object.hash));
  return slot;
}

void S3FifoPolicy::Evict(Slot slot) {
  if (!slab_[slot].in_main) ghosts_.Remember(slab_[slot].hash, GhostsMax());
  Erase(slot);
}

void S3FifoPolicy::Erase(Slot slot) {
  Pop(slot);
  slab_.Remove(slot);
}

void S3FifoPolicy::MoveToMain(Slot slot) {
  Pop(slot);
  slab_[slot].reads = 0;
  Push(slot, /*in_main=*/true);
}

void S3FifoPolicy::Push(Slot slot, bool in_main) {
  slab_[slot].in_main = in_main;
  Queue& queue = in_main ? main_ : small_;
  queue.order.PushBack(slab_, slot);
  queue.weight += slab_[slot].weight;
}

void S3FifoPolicy::Pop(Slot slot) {
  Queue& queue = slab_[slot].in_main ? main_ : small_;
  queue.order.Remove(slab_, slot);
  queue.weight -= slab_[slot].weight;
}

uint32_t S3FifoPolicy::GhostsMax() const {
  const uint64_t mean =
      std::max<uint64_t>(1, (small_.weight + main_.weight) / slab_.size());
  return static_cast<uint32_t>(
      std::min<uint64_t>(main_max_ / mean, kNoSlot.value() / 2));
}

void S3FifoPolicy::Reserve(uint32_t objects) {
  slab_.Reserve(objects);
  ghosts_.Reserve(objects - objects / 10);
}

void S3FifoPolicy::CheckInvariants() const {
  for (const Queue* queue : {&small_, &main_}) {
    uint64_t weight = 0;
    queue->order.CheckInvariants(slab_, [&](const Node& node) {
      weight += node.weight;
      KDN_CHECK(node.in_main == (queue == &main_), "an object is misfiled");
      KDN_CHECK(node.reads <= kReadsMax, "reads are counted up to three");
    });
    KDN_CHECK(weight == queue->weight, "a queue's weight is wrong");
  }
  KDN_CHECK(small_.order.size() + main_.order.size() == slab_.size(),
            "an object has no place");
  ghosts_.CheckInvariants();
}

}  // namespace kdn::storage
