#ifndef KDN_KV_INVARIANTS_H_
#define KDN_KV_INVARIANTS_H_

// Calls object.CheckInvariants() in the builds in which KDN_DCHECK checks:
// debug and sanitizer builds. A class that makes decisions calls it at the end
// of each event.
#ifdef NDEBUG
#define KDN_DCHECK_INVARIANTS(object) static_cast<void>(0)
#else
#define KDN_DCHECK_INVARIANTS(object) (object).CheckInvariants()
#endif

#endif  // KDN_KV_INVARIANTS_H_
