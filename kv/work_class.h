#ifndef KDN_KV_WORK_CLASS_H_
#define KDN_KV_WORK_CLASS_H_

#include <array>
#include <cstdint>

#include "kv/check.h"
#include "kv/ids.h"

namespace kdn {

// The kinds of work that share the memory, the workers and the connections of a
// node. Each kind has a guaranteed part of them, so that no kind waits for
// another one to end.
enum class WorkClass : uint8_t {
  kRead,        // an engine waits for chunks
  kWrite,       // an engine waits until its chunks are stored
  kBackground,  // no engine waits: repair, hand-off, verification
};

// The order in which classes are served where nothing else decides.
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

// The engine session, the retrieve, the store or the peer that work is done
// for. Requesters of one class take turns.
using RequesterId = StrongInt<struct RequesterIdTag, uint64_t>;

}  // namespace kdn

#endif  // KDN_KV_WORK_CLASS_H_
