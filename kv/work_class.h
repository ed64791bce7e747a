#ifndef KDN_KV_WORK_CLASS_H_
#define KDN_KV_WORK_CLASS_H_

#include <array>
#include <cstdint>

#include "kv/check.h"
#include "kv/ids.h"

namespace kdn {

// The kinds of work that share the memory, the workers and the connections of a
// node. Reads and writes are guaranteed a part of each of these resources, and
// background work a part of the workers and the connections, so that no kind of
// work has to wait until another kind ends.
enum class WorkClass : uint8_t {
  kRead,        // an engine waits for chunks
  kWrite,       // an engine waits until its chunks are stored
  kBackground,  // no engine waits: building shard maps, verifying a copy
};

// The order in which classes are served when nothing else decides.
inline constexpr std::array<WorkClass, 3> kWorkClasses = {
    WorkClass::kRead, WorkClass::kWrite, WorkClass::kBackground};

// One value for each class.
template <typename T>
struct PerClass {
  T read{};
  T write{};
  T background{};

  T& operator[](WorkClass work_class) { return Of(*this, work_class); }
  const T& operator[](WorkClass work_class) const {
    return Of(*this, work_class);
  }

 private:
  template <typename Self>
  static auto& Of(Self& self, WorkClass work_class) {
    switch (work_class) {
      case WorkClass::kRead:
        return self.read;
      case WorkClass::kWrite:
        return self.write;
      case WorkClass::kBackground:
        return self.background;
    }
    check_internal::Fail(__FILE__, __LINE__, "work_class", "no such class");
  }
};

// Names what the work is done for: an engine session, a retrieve, a store.
// Requesters of one class take turns.
using RequesterId = StrongInt<struct RequesterIdTag, uint64_t>;

}  // namespace kdn

#endif  // KDN_KV_WORK_CLASS_H_
