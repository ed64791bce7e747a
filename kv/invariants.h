#ifndef KDN_KV_INVARIANTS_H_
#define KDN_KV_INVARIANTS_H_

// Calls object.CheckInvariants() in the builds where KDN_DCHECK checks: debug
// and sanitizer builds. A class that decides ends each event with this call.
#ifdef NDEBUG
#define KDN_DCHECK_INVARIANTS(object) static_cast<void>(0)
#else
#define KDN_DCHECK_INVARIANTS(object) (object).CheckInvariants()
#endif

#endif  // KDN_KV_INVARIANTS_H_
