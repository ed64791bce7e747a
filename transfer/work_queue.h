#ifndef KDN_TRANSFER_WORK_QUEUE_H_
#define KDN_TRANSFER_WORK_QUEUE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kv/check.h"
#include "kv/work_class.h"

namespace kdn::transfer {

// Where a task belongs in the queue.
struct WorkOrder {
  WorkClass work_class;     // no default, so that no caller forgets it
  RequesterId requester{};  // the retrieve or the store that needs the task
  int layer = 0;
};

// The order in which workers take tasks. Classes that have tasks share the
// workers by kWeights, counted in tasks, so that no class stops another class.
// In a class the requesters take turns, one task a turn, so that a large
// retrieve does not delay a small one that comes later. The tasks of one
// requester go in the order of their layers, so that an engine can compute on
// layer 0 of all its chunks while layer 1 is still being decoded. Tasks of one
// layer go in the order of their arrival.
//
// Representation: per class a list of requesters in the order of their turns,
// per requester a heap. Post and TakeNext take time logarithmic in the tasks of
// one requester. Pure.
template <typename Task>
class WorkQueue {
 public:
  // When every class always has tasks, of 12 tasks 8 are reads, 3 writes and 1
  // background work.
  static constexpr PerClass<uint64_t> kWeights = {
      .read = 8, .write = 3, .background = 1};

  void Post(const WorkOrder& order, Task task) {
    ClassQueue& queue = queues_[order.work_class];
    // A class gets no credit for the time in which it had no task.
    if (queue.turns.empty()) queue.time = std::max(queue.time, time_);
    const auto [known, is_new] =
        queue.by_id.try_emplace(order.requester, queue.turns.end());
    if (is_new) {
      queue.turns.push_back(Requester{order.requester, {}});
      known->second = std::prev(queue.turns.end());
    }
    std::vector<Entry>& tasks = known->second->tasks;
    tasks.push_back(Entry{order.layer, arrivals_++, std::move(task)});
    std::push_heap(tasks.begin(), tasks.end());
    ++size_;
  }

  // REQUIRES: not empty.
  Task TakeNext() {
    KDN_CHECK(size_ > 0, "no task is left");
    const WorkClass work_class = NextClass();
    ClassQueue& queue = queues_[work_class];
    time_ = queue.time;
    queue.time += kTurn / kWeights[work_class];
    std::vector<Entry>& tasks = queue.turns.front().tasks;
    std::pop_heap(tasks.begin(), tasks.end());
    Task task = std::move(tasks.back().task);
    tasks.pop_back();
    --size_;
    if (tasks.empty()) {
      queue.by_id.erase(queue.turns.front().id);
      queue.turns.pop_front();
    } else {
      queue.turns.splice(queue.turns.end(), queue.turns, queue.turns.begin());
    }
    return task;
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  void CheckInvariants() const {
    size_t size = 0;
    for (const WorkClass work_class : kWorkClasses) {
      const ClassQueue& queue = queues_[work_class];
      KDN_CHECK(queue.by_id.size() == queue.turns.size(),
                "a requester has one turn");
      for (const Requester& requester : queue.turns) {
        KDN_CHECK(!requester.tasks.empty(), "a turn without a task");
        KDN_CHECK(&*queue.by_id.at(requester.id) == &requester,
                  "a requester is found by its id");
        size += requester.tasks.size();
      }
      KDN_CHECK(queue.turns.empty() || queue.time >= time_,
                "a class lags behind");
    }
    KDN_CHECK(size == size_, "the size is right");
  }

 private:
  // The virtual time that a class of weight 1 pays for a task. It is a multiple
  // of every weight.
  static constexpr uint64_t kTurn = 24;

  struct Entry {
    int layer = 0;
    uint64_t arrival = 0;
    Task task;
    // The largest entry is served first.
    bool operator<(const Entry& other) const {
      return std::pair(other.layer, other.arrival) < std::pair(layer, arrival);
    }
  };
  struct Requester {
    RequesterId id;
    std::vector<Entry> tasks;  // a heap, never empty
  };
  using Turns = std::list<Requester>;
  struct ClassQueue {
    Turns turns;
    absl::flat_hash_map<RequesterId, typename Turns::iterator> by_id;
    uint64_t time = 0;  // virtual time that the class has paid for its tasks
  };

  // Of the classes with tasks, the one that has paid least. Of equal classes,
  // the first.
  WorkClass NextClass() const {
    const WorkClass* next = nullptr;
    for (const WorkClass& work_class : kWorkClasses) {
      if (queues_[work_class].turns.empty()) continue;
      if (next == nullptr || queues_[work_class].time < queues_[*next].time) {
        next = &work_class;
      }
    }
    return *next;
  }

  PerClass<ClassQueue> queues_;
  uint64_t time_ = 0;  // time of the class that was served last, before it paid
  uint64_t arrivals_ = 0;
  size_t size_ = 0;
};

}  // namespace kdn::transfer

#endif  // KDN_TRANSFER_WORK_QUEUE_H_
