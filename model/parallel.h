#ifndef KDN_MODEL_PARALLEL_H_
#define KDN_MODEL_PARALLEL_H_

#ifdef _OPENMP
#include <omp.h>
#endif

// Loops over all cores, by OpenMP's threads. For the sources of model/ only:
// they are compiled with OpenMP where the compiler has it.
namespace kdn::model {

// The most threads that a loop of this thread uses.
inline int ThreadsMax() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// Whose tasks a thread takes.
enum class Tasks {
  kAny,    // the next one: for tasks that take different times
  kRange,  // neighbours: for tasks that read memory behind one another
};

// Calls body(task, thread) for each task in [0, tasks), on several threads if
// `wide`. thread < ThreadsMax(); tasks with the same thread do not overlap.
template <typename Body>
void ParallelFor(int tasks, bool wide, Tasks kind, const Body& body) {
#ifdef _OPENMP
  if (kind == Tasks::kRange) {
#pragma omp parallel for schedule(static) if (wide && tasks > 1)
    for (int task = 0; task < tasks; ++task) body(task, omp_get_thread_num());
    return;
  }
#pragma omp parallel for schedule(dynamic) if (wide && tasks > 1)
  for (int task = 0; task < tasks; ++task) body(task, omp_get_thread_num());
#else
  static_cast<void>(wide);
  static_cast<void>(kind);
  for (int task = 0; task < tasks; ++task) body(task, 0);
#endif
}

}  // namespace kdn::model

#endif  // KDN_MODEL_PARALLEL_H_
