#ifndef KDN_KV_HOST_PORT_H_
#define KDN_KV_HOST_PORT_H_

#include <cstdint>
#include <string>

namespace kdn {

// "host:port", or "[host]:port" for an IPv6 address.
inline std::string HostPort(const std::string& host, uint16_t port) {
  const bool six = host.find(':') != std::string::npos;
  return (six ? "[" + host + "]:" : host + ":") + std::to_string(port);
}

}  // namespace kdn

#endif  // KDN_KV_HOST_PORT_H_
