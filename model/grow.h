#ifndef KDN_MODEL_GROW_H_
#define KDN_MODEL_GROW_H_

#include <cstddef>

#include "kv/line_vector.h"

namespace kdn::model {

// Makes room for `count` elements. Memory that is large enough stays as it is.
template <typename T>
void Grow(LineVector<T>& memory, size_t count) {
  if (memory.size() < count) memory.resize(count);
}

}  // namespace kdn::model

#endif  // KDN_MODEL_GROW_H_
