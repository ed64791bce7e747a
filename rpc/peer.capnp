@0xd18f4b6e93a2c705;
# Headers of the bulk plane between nodes: objects over plain TCP. docs/protocol.md
# ("Between nodes") has the order of messages and bytes.
#
# A connection carries frames: 4 bytes little-endian length (at most
# frameBytesMax), then that many bytes of one Cap'n Proto message in the standard
# stream framing. Object bytes follow some frames raw, as many as the frame says.
# Either side hangs up on a frame that makes no sense.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("kdn::rpc::peer");

const frameBytesMax :UInt32 = 8388608;

struct Status {
  code @0 :UInt16;  # absl::StatusCode
  message @1 :Text;
}

struct MemberSettings {
  weight @0 :Float64;
  zone @1 :Text;  # empty: none
}

struct Introduction {
  # What two nodes compare before they exchange data. docs/protocol.md,
  # "Introductions and versions".
  cluster @0 :Text;  # the name in the configuration
  node @1 :Text;     # the node that speaks
  oldestVersion @2 :UInt32;
  newestVersion @3 :UInt32;
  replicas @4 :UInt32;
  shards @5 :UInt32;
  settings @6 :MemberSettings;      # of the node that speaks
  peerSettings @7 :MemberSettings;  # of the node that is spoken to; absent when
                                    # the node that speaks does not know it
}

struct Hello {
  # First frame in each direction; the caller speaks first.
  introduction @0 :Introduction;
  to @1 :Text;        # the node that the caller believes to speak to
  status @2 :Status;  # of the answer: why the server hangs up
}

struct ChunkRef {
  key @0 :Data;
  placement @1 :Data;
}

struct Request {
  # deadlineMs counts from when the server reads the frame.
  deadlineMs @0 :UInt32;
  union {
    fetch @1 :Fetch;
    push @2 :Push;
  }
}

struct Fetch {
  namespace @0 :Text;
  chunks @1 :List(ChunkRef);
  layerBegin @2 :UInt32;
  layerEnd @3 :UInt32;
  headBegin @4 :UInt32;
  headEnd @5 :UInt32;
  accept @6 :UInt8;
  budget @7 :Budget;
}

struct Budget {
  # What the answer may take of the link; the serving node, who knows the indexes,
  # chooses each layer's level so that it does.
  bytesMax @0 :UInt64;  # all ones: no limit
  bytesPerTokenMax @1 :Float64;
  # Where a chunk costs more a token, recomputing it is faster; 0: nobody knows.
  setupBytes @2 :UInt64;  # what the link would carry before the first byte comes
  leadingChunks @3 :Bool;
  # Chunks behind one that is recomputed are of no use.
  levelsTooSlow @4 :UInt8;
  # Bits as of accept: whoever asks decodes these more slowly than the engine would
  # recompute. A chunk held at no other accepted level is not sent.
}

struct FetchItem {
  # One frame per chunk, in groups: the items of a group, then, for each layer of
  # the slice and each hit of the group, that layer's streams, raw. A server ends
  # a group where the next chunk keeps it waiting, for memory or a disk. A hit's frame is
  # followed by prefixBytes raw bytes: header and index of the object.
  status @0 :Status;  # ok: a hit; notFound: a miss; else why it cannot be read
  levels @1 :List(UInt8);  # one a layer of the slice
  tier @2 :UInt8;
  objectBytes @3 :UInt64;
  prefixBytes @4 :UInt32;
  streamBytes @5 :UInt64;  # all layers of the slice together
  item @6 :UInt32;         # which of the chunks asked for
  endsGroup @7 :Bool;
  recompute @8 :Bool;
  # With ok: it is held, but the budget is not for it. Nothing follows the frame.
  version @9 :UInt64;      # of a copy that is held, and is no object; 0: none is
}

struct Push {
  # Answered by PushGo; if that is ok, objectBytes raw bytes follow from the
  # caller, and PushDone answers them.
  chunk @0 :ChunkRef;
  objectBytes @1 :UInt64;
  durability @2 :UInt8;
  ttlMs @3 :UInt64;  # held against eviction for so long; 0: not at all
}

struct Refusal {
  # Answers a request of a kind that the server does not know: unimplemented. Every
  # answer begins with its Status, so the caller reads this one as the answer that
  # it expects. The connection stays.
  status @0 :Status;
}

struct PushGo {
  status @0 :Status;
}

struct PushDone {
  status @0 :Status;
  version @1 :UInt64;
  existed @2 :Bool;
}
