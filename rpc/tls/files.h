#ifndef KDN_RPC_TLS_FILES_H_
#define KDN_RPC_TLS_FILES_H_

#include <string>

namespace kdn::rpc {

// Paths of PEM files.
struct TlsFiles {
  std::string ca;  // certificates of the authorities to trust
  std::string
      certificate;  // own certificate, and the chain up to the authority
  std::string key;  // private key of `certificate`
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_TLS_FILES_H_
