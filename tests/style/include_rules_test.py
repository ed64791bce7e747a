#!/usr/bin/env python3
"""Checks that every #include points down the layers of the design, and that
classes that decide use no threads, no locks, no clock and no randomness.

    include_rules_test.py ROOT          checks the tree at ROOT
    include_rules_test.py --self-test   checks the checker
"""

import os
import re
import sys
import tempfile
import unittest

from source_tree import CPP_SUFFIXES, FREE_FOLDERS, LEVELS, read_tree, report

INCLUDE = re.compile(
    r'^[ \t]*#[ \t]*include(?:_next)?[ \t]*([<"])([^>"]+)[>"]', re.M)

CUDA_HEADER = re.compile(
    r"^(cuda|cublas|curand|nvrtc|nvtx|device_launch_parameters|"
    r"cooperative_groups|cub/|thrust/|nv/|cuda/)")


def folder_of(path):
    return path.split("/")[0]


def may_use_caf(path):
    return folder_of(path) in ("actors", "cli")


def may_use_kj(path):
    return folder_of(path) in ("rpc", "cli")


def may_use_nccl(path):
    return folder_of(path) == "nccl"


def may_use_cuda(path):
    return ("/cuda/" in path or path.startswith(("nccl/", "kv/cuda")))


# (name, function that matches an include, function that says which paths may
# include it, reason)
LIBRARIES = (
    ("CAF", lambda name: name.startswith("caf/"), may_use_caf,
     "CAF stays in actors/ and cli/: an upgrade of CAF must touch the shells "
     "only, and classes that decide must be testable without an actor system"),
    ("KJ and Cap'n Proto",
     lambda name: name.startswith(("kj/", "capnp/")) or
     name.endswith(".capnp.h"), may_use_kj,
     "KJ and Cap'n Proto stay in rpc/ and cli/: their promises belong to one "
     "thread, and their exceptions must not leave these folders"),
    ("NCCL", lambda name: name.split("/")[-1].startswith("nccl"), may_use_nccl,
     "nccl.h is included in nccl/ only: everything else must build and run "
     "on machines where there is no GPU"),
    ("CUDA", CUDA_HEADER.match, may_use_cuda,
     "CUDA headers stay under */cuda/, nccl/ and kv/cuda*: everything else "
     "must build and run on machines where there is no CUDA toolkit"),
)

# Subfolders (rooms) of one folder that must not include each other. Code that
# they share lies directly in the folder.
APART = ("rpc/bulk/", "rpc/client/", "rpc/control/", "rpc/gateway/")

# The classes that decide. The cluster, the simulator and the tests use the same
# classes.
PURE = ("delivery/", "kv/admission", "kv/histogram", "kv/log_limit",
        "kv/metric_table", "kv/metric_values", "kv/waiting_line", "placement/",
        "storage/block_source", "storage/counting_blocks", "storage/disk_policy",
        "storage/eviction_", "storage/lease_table", "storage/object_info",
        "storage/partition", "transfer/work_queue")

# (name, pattern)
IMPURE = (
    ("threads", re.compile(r"#include <(thread|future|condition_variable|latch|"
                           r"barrier|semaphore|stop_token)>")),
    ("locks", re.compile(r"#include <(mutex|shared_mutex)>|"
                         r'#include "absl/(synchronization/|'
                         r"base/thread_annotations)")),
    ("atomics", re.compile(r"#include <atomic>|std::atomic")),
    ("a clock", re.compile(r"\babsl::Now\(|\b\w*_clock::now\(|"
                           r"\bclock_gettime\(|\bgettimeofday\(|"
                           r'#include "kv/clock\.h"')),
    ("randomness", re.compile(r'#include <random>|#include "absl/random/|'
                              r"\bs?rand\(|\brandom_device\b")),
)
PURE_REASON = ("a class that decides takes events and the time as arguments, so "
               "that the cluster, the simulator and tests use the same class")

CLIENT_REASON = ("engines link the client library, so it may include only kv/, "
                 "rpc/ and the schema")


def includes_of(text):
    """Yields (line number, included name, whether in quotes) per include."""
    for match in INCLUDE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield line, match.group(2), match.group(1) == '"'


def check_layer(path, name):
    """The reason why `path` may not include our `name`, or None."""
    here, there = folder_of(path), folder_of(name)
    room, other = room_of(path), room_of(name)
    if room and other and room != other:
        return (f"{room} and {other} do not know each other: put code that both "
                f"need into {here}/")
    if not room and other and here == there:
        return f"code directly in {here}/ knows none of its rooms"
    if here == there or LEVELS[there] < LEVELS[here]:
        return None
    if there in FREE_FOLDERS:
        return f"nothing includes {there}/"
    if LEVELS[here] == LEVELS[there]:
        return (f"{here}/ and {there}/ are both level {LEVELS[here]} and must "
                "not know each other: connect them one level up")
    return (f"{here}/ is level {LEVELS[here]}, {there}/ is level "
            f"{LEVELS[there]}: includes point down only")


def room_of(path):
    """The room in APART of a file, or None."""
    return next((room for room in APART if path.startswith(room)), None)


def check_purity(path, text):
    """Returns one text for each line of a class in PURE that is not pure."""
    if not path.startswith(PURE):
        return []
    errors = []
    for number, line in enumerate(text.split("\n"), 1):
        code = line.split("//")[0]
        errors += [f"{path}:{number}: {what} here: {PURE_REASON}"
                   for what, pattern in IMPURE if pattern.search(code)]
    return errors


def check_include(path, name, quoted):
    """The reasons why `path` may not include `name`."""
    parts = name.split("/")
    if quoted and len(parts) < 2 or "." in parts or ".." in parts:
        yield "write the path from the project root, \"folder/file.h\""
        return
    for title, matches, allowed, reason in LIBRARIES:
        if matches(name) and not allowed(path):
            yield f"{title} here: {reason}"
    generated = name.endswith(".capnp.h")
    if (folder_of(path), folder_of(name)) == ("cli", "bench"):
        return  # the command `kdn bench` runs the code of bench/
    if folder_of(name) in FREE_FOLDERS:
        yield f"nothing includes {folder_of(name)}/"
    elif folder_of(name) in LEVELS and not generated:
        reason = check_layer(path, name)
        if reason:
            yield reason


def check_client(tree):
    """Checks all includes of the client library, direct and indirect."""
    errors = []
    todo = sorted(p for p in tree if p.startswith("rpc/client/"))
    seen = set(todo)
    while todo:
        path = todo.pop(0)
        for line, name, _ in includes_of(tree[path]):
            if folder_of(name) in LEVELS and folder_of(name) not in ("kv",
                                                                     "rpc"):
                errors.append(f"{path}:{line}: {name}: {CLIENT_REASON}")
            if name in tree and name not in seen:
                seen.add(name)
                todo.append(name)
    return errors


def check_tree(tree):
    """Returns one text per forbidden include. `tree` maps paths to texts."""
    errors = []
    for path, text in tree.items():
        if folder_of(path) in FREE_FOLDERS:
            continue
        if folder_of(path) not in LEVELS:
            errors.append(f"{path}: C++ in a folder without a level; give it "
                          "one in tests/style/source_tree.py and a line in the "
                          "README's folder table")
            continue
        for line, name, quoted in includes_of(text):
            for reason in check_include(path, name, quoted):
                errors.append(f"{path}:{line}: {name}: {reason}")
        errors += check_purity(path, text)
    return errors + check_client(tree)


class SelfTest(unittest.TestCase):
    def refused(self, path, *includes):
        text = "".join(f"#include {name}\n" for name in includes)
        return check_tree({path: text})

    def assert_good(self, path, *includes):
        self.assertEqual(self.refused(path, *includes), [])

    def assert_bad(self, path, include, reason):
        errors = self.refused(path, include)
        self.assertEqual(len(errors), 1, errors)
        self.assertIn(f"{path}:1: ", errors[0])
        self.assertIn(reason, errors[0])

    def test_down_and_own_folder_are_good(self):
        self.assert_good("codec/a.cc", '"codec/a.h"', '"kv/ids.h"', "<vector>")
        self.assert_good("delivery/a.h", '"codec/a.h"', '"placement/b.h"')
        self.assert_good("cli/main.cc", '"actors/node.h"', '"rpc/gateway/gateway.h"')
        self.assert_good("kv/a.cc", '"absl/status/status.h"')

    def test_up_is_bad(self):
        self.assert_bad("kv/a.h", '"codec/a.h"', "point down only")
        self.assert_bad("storage/a.h", '"actors/a.h"', "point down only")

    def test_sideways_is_bad(self):
        self.assert_bad("codec/a.h", '"storage/a.h"', "both level 1")
        self.assert_bad("actors/a.h", '"rpc/wire.h"', "both level 4")
        self.assert_bad("sim/a.h", '"actors/a.h"', "both level 4")
        self.assert_bad("delivery/a.h", '"blend/a.h"', "both level 2")

    def test_rooms_apart(self):
        self.assert_good("rpc/bulk/a.cc", '"rpc/bulk/a.h"', '"rpc/wire.h"',
                         '"transfer/work_pool.h"')
        self.assert_good("codec/decoder.cc", '"codec/format/object.h"')
        self.assert_bad("rpc/bulk/a.cc", '"rpc/gateway/a.h"', "each other")
        self.assert_bad("rpc/wire.cc", '"rpc/client/a.h"', "knows none")

    def assert_impure(self, path, line, what):
        errors = check_tree({path: line + "\n"})
        self.assertEqual(len(errors), 1, errors)
        self.assertIn(f"{path}:1: {what} here", errors[0])

    def test_what_decides_is_pure(self):
        self.assert_impure("delivery/a.cc", "#include <thread>", "threads")
        self.assert_impure("placement/a.h", "#include <mutex>", "locks")
        self.assert_impure("delivery/a.h",
                           '#include "absl/synchronization/mutex.h"', "locks")
        self.assert_impure("storage/partition.h", "std::atomic<int> a;",
                           "atomics")
        self.assert_impure("delivery/a.cc", "auto now = absl::Now();", "a clock")
        self.assert_impure("delivery/a.cc",
                           "std::chrono::steady_clock::now();", "a clock")
        self.assert_impure("placement/a.cc", "#include <random>", "randomness")
        self.assertEqual(check_tree({
            "transfer/a.h": "#include <mutex>\n",
            "storage/arena.h": '#include "absl/synchronization/mutex.h"\n',
            "delivery/a.h": "// not absl::Now()\nabsl::Time now;\n",
        }), [])

    def test_libraries_stay_where_they_belong(self):
        self.assert_good("actors/a.cc", "<caf/all.hpp>")
        self.assert_good("rpc/a.cc", "<kj/async.h>", '"rpc/kdn.capnp.h"')
        self.assert_good("codec/cuda/a.cu", "<cuda_runtime.h>", "<cub/cub.cuh>")
        self.assert_good("kv/cuda_memory.cc", "<cuda_runtime_api.h>")
        self.assert_good("nccl/a.cc", "<nccl.h>", "<cuda_runtime.h>")
        self.assert_bad("delivery/a.cc", "<caf/all.hpp>", "actors/ and cli/")
        self.assert_bad("rpc/a.cc", "<caf/all.hpp>", "actors/ and cli/")
        self.assert_bad("actors/a.cc", "<kj/async.h>", "rpc/ and cli/")
        self.assert_bad("actors/a.cc", '"rpc/kdn.capnp.h"', "rpc/ and cli/")
        self.assert_bad("codec/a.cc", "<cuda_runtime.h>", "toolkit")
        self.assert_bad("codec/cuda/a.cu", "<nccl.h>", "no GPU")

    def test_client_reaches_no_further_than_kv(self):
        tree = {
            "rpc/client/client.cc": '#include "rpc/wire.h"\n',
            "rpc/wire.h": '#include "kv/ids.h"\n#include "storage/arena.h"\n',
        }
        errors = check_tree(tree)
        self.assertEqual(len(errors), 1, errors)
        self.assertIn("rpc/wire.h:2: storage/arena.h", errors[0])
        del tree["rpc/client/client.cc"]
        self.assertEqual(check_tree(tree), [])

    def test_tests_and_bench_are_free_but_never_included(self):
        self.assert_good("tests/kv/a.cc", '"cli/a.h"', "<caf/all.hpp>")
        self.assert_good("bench/a.cc", '"rpc/client/client.h"', '"codec/a.h"')
        self.assert_bad("kv/a.cc", '"tests/kv/fake.h"', "nothing includes")
        self.assert_good("cli/a.cc", '"bench/a.h"')
        self.assert_bad("rpc/a.cc", '"bench/a.h"', "nothing includes")

    def test_spelling(self):
        self.assert_bad("kv/a.cc", '"ids.h"', "project root")
        self.assert_bad("kv/a.cc", '"../codec/a.h"', "project root")
        self.assert_bad("kv/a.cc", '"kv/../codec/a.h"', "project root")
        self.assert_bad("kv/a.cc", '<./codec/a.h>', "project root")
        self.assertEqual(
            check_tree({"kv/a.cc": '#include_next "codec/a.h"\n'})[0][:11],
            "kv/a.cc:1: ")
        self.assertEqual(
            check_tree({"kv/a.cc": ' # include  "codec/a.h"\n'})[0][:11],
            "kv/a.cc:1: ")
        self.assertEqual(check_tree({"kv/a.cc": '// #include "cli/a.h"\n'}), [])

    def test_a_folder_without_level_is_bad(self):
        self.assertIn("without a level", self.refused("util/a.h")[0])

    def test_folders_named_build_are_read_below_the_root(self):
        with tempfile.TemporaryDirectory() as root:
            for folder in ("kv/build", "build"):
                os.makedirs(f"{root}/{folder}")
                with open(f"{root}/{folder}/a.cc", "w", encoding="utf-8"):
                    pass
            self.assertEqual(list(read_tree(root, CPP_SUFFIXES)),
                             ["kv/build/a.cc"])


def main(arguments):
    if arguments == ["--self-test"]:
        unittest.main(argv=["include_rules_test"])
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    tree = read_tree(arguments[0], CPP_SUFFIXES)
    return report(f"includes of {len(tree)} files", check_tree(tree))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
