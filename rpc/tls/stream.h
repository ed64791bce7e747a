#ifndef KDN_RPC_TLS_STREAM_H_
#define KDN_RPC_TLS_STREAM_H_

#include <kj/async-io.h>
#include <openssl/ssl.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kdn::rpc {

// One end of a TLS connection, as a stream of KJ. It encrypts what is written
// to it and decrypts what is read from it; the encrypted bytes pass an inner
// stream, usually a TCP connection. It exists instead of KJ's kj::TlsContext
// for two reasons. KJ moves 8 KiB at a time, which halves the rate of large
// objects. And KJ does not say why a certificate was refused when both sides
// show one.
//
// A failed handshake is a FAILED exception that says what is wrong with the
// certificate or the protocol. After the handshake, every error of TLS is a
// DISCONNECTED exception: the connection is broken, and no more is known of
// what the other side sent. The end of the inner stream is the end of this
// stream, with or without the close_notify of TLS; all protocols above it say
// how many bytes come. Loop thread only.
class TlsIoStream final : public kj::AsyncIoStream {
 public:
  using Pieces = kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>>;

  // The server's end. Resolves after the handshake, in which the client has
  // shown a certificate if `context` demands one.
  static kj::Promise<kj::Own<TlsIoStream>> Accept(
      kj::Own<kj::AsyncIoStream> inner, SSL_CTX& context);
  // The client's end. The server must show a certificate that `context` trusts
  // and that names `host`: a host name or a numeric address.
  static kj::Promise<kj::Own<TlsIoStream>> Connect(
      kj::Own<kj::AsyncIoStream> inner, SSL_CTX& context,
      const std::string& host);
  // Use Accept or Connect.
  TlsIoStream(kj::Own<kj::AsyncIoStream> inner, SSL_CTX& context);
  ~TlsIoStream() noexcept;

  // One key of TLS 1.3 encrypts this many bytes. AES-GCM allows 2^24.5 records
  // (RFC 8446, section 5.5), 390 GB in records of 16 KiB, and OpenSSL does not
  // count them.
  static constexpr uint64_t kKeyBytes = 64ull << 30;
  void set_key_bytes(uint64_t bytes) { key_bytes_ = bytes; }

  // The common name of the other side's certificate; empty if it showed none.
  std::string peer_name() const;

  kj::Promise<size_t> tryRead(void* buffer, size_t bytes_min,
                              size_t bytes_max) override;
  kj::Promise<void> write(const void* buffer, size_t size) override;
  kj::Promise<void> write(Pieces pieces) override;
  kj::Promise<void> whenWriteDisconnected() override {
    return inner_->whenWriteDisconnected();
  }
  void shutdownWrite() override;
  void abortRead() override { inner_->abortRead(); }
  void getsockopt(int level, int option, void* value,
                  kj::uint* length) override {
    inner_->getsockopt(level, option, value, length);
  }
  void setsockopt(int level, int option, const void* value,
                  kj::uint length) override {
    inner_->setsockopt(level, option, value, length);
  }
  void getsockname(sockaddr* address, kj::uint* length) override {
    inner_->getsockname(address, length);
  }
  void getpeername(sockaddr* address, kj::uint* length) override {
    inner_->getpeername(address, length);
  }

 private:
  struct Bio;  // the functions through which OpenSSL moves encrypted bytes

  kj::Promise<void> Handshake();
  kj::Exception HandshakeError() const;
  kj::Promise<size_t> ReadMore(kj::byte* to, size_t bytes_min, size_t bytes_max,
                               size_t done);
  // Bytes to write: the rest of a piece, and the pieces behind it.
  struct Plain {
    kj::ArrayPtr<const kj::byte> first;
    Pieces rest;
  };
  // Encrypts and sends bytes batch by batch.
  kj::Promise<void> WriteMore(Plain plain);
  // Encrypts the next record of `plain`, and removes its bytes. False when the
  // connection is broken.
  bool WriteRecord(Plain* plain);
  // Tells the other side of an error, then fails with it.
  template <typename T>
  kj::Promise<T> Fail(kj::Exception why);
  // Reads encrypted bytes. They are not lost when the caller no longer waits.
  kj::Promise<void> Fill();
  void OnFilled(size_t bytes);
  // Sends the encrypted bytes that wait. Goes on when the caller no longer
  // waits.
  kj::Promise<void> Flush();

  kj::Own<kj::AsyncIoStream> inner_;
  const std::unique_ptr<SSL, void (*)(SSL*)> ssl_;
  std::string host_;  // that the other side's certificate must name, or empty
  // Encrypted bytes that have come: OpenSSL has taken those before in_begin_.
  kj::Array<kj::byte> in_;
  size_t in_begin_ = 0;
  size_t in_end_ = 0;
  bool has_begun_ = false;  // the other side has sent a byte
  kj::byte first_byte_ = 0;
  bool in_closed_ = false;     // the inner stream has ended
  size_t fill_bytes_;          // the size of `in_` for the next read
  std::vector<kj::byte> out_;  // encrypted bytes to send
  size_t answered_ = 0;        // bytes of OpenSSL's own answers that wait
  uint64_t encrypted_ = 0;     // bytes since the last change of keys
  uint64_t key_bytes_ = kKeyBytes;
  // The tasks use all of the above, so they come last and are destroyed first.
  bool filling_ = false;
  kj::ForkedPromise<void> fill_;
  kj::ForkedPromise<void> flush_;
  kj::Promise<void> shutdown_ = nullptr;
};

}  // namespace kdn::rpc

#endif  // KDN_RPC_TLS_STREAM_H_
