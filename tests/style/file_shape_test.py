#!/usr/bin/env python3
"""Checks the shape of source files: length, header guards, tabs, left-over marks.

    file_shape_test.py ROOT          checks the tree at ROOT
    file_shape_test.py --self-test   checks the checker
"""

import re
import sys
import unittest

from source_tree import CPP_SUFFIXES, FREE_FOLDERS, read_tree, report

# Nine of ten files have at most LINES_P90_MAX lines, and every file has at most
# LINES_MAX: a longer file does more than one thing.
LINES_P90_MAX = 300
LINES_MAX = 700

TEXT_SUFFIXES = CPP_SUFFIXES + (".capnp", ".py", ".cmake", ".yaml",
                                "CMakeLists.txt")
# The marks are written in two halves, so that this file passes its own test.
LEFT_OVER = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")
COMMENT_OR_BLANK = re.compile(r"\s*(//.*)?$")


def is_production(path):
    return (path.endswith(CPP_SUFFIXES) and
            path.split("/")[0] not in FREE_FOLDERS)


def check_lengths(tree):
    lengths = sorted((text.count("\n"), path) for path, text in tree.items()
                     if is_production(path))
    errors = [f"{path}: {lines} lines, more than {LINES_MAX}: split it by what "
              "its parts do" for lines, path in lengths if lines > LINES_MAX]
    if lengths:
        p90 = lengths[(len(lengths) * 9 - 1) // 10][0]
        if p90 > LINES_P90_MAX:
            longest = ", ".join(f"{path} {lines}"
                                for lines, path in lengths[-5:][::-1])
            errors.append(f"the 90th percentile of lines per file is {p90}, "
                          f"more than {LINES_P90_MAX}; longest: {longest}")
    return errors


def guard_of(path):
    return "KDN_" + re.sub(r"[^A-Z0-9]", "_", path.upper()) + "_"


def check_guard(path, text):
    guard = guard_of(path)
    code = [line for line in text.split("\n")
            if not COMMENT_OR_BLANK.match(line)]
    if code[:2] != [f"#ifndef {guard}", f"#define {guard}"]:
        return [f"{path}: must begin with the guard {guard}"]
    if not text.endswith(f"\n#endif  // {guard}\n"):
        return [f"{path}: must end with '#endif  // {guard}'"]
    return []


def check_lines(path, text):
    errors = []
    for number, line in enumerate(text.split("\n"), 1):
        if "\t" in line:
            errors.append(f"{path}:{number}: a tab: indent with spaces")
        if LEFT_OVER.search(line):
            errors.append(f"{path}:{number}: a left-over mark: finish it or "
                          "file an issue")
    if text and not text.endswith("\n"):
        errors.append(f"{path}: no newline at the end")
    return errors


def check_tree(tree):
    """Returns one text per problem. `tree` maps paths to texts."""
    errors = check_lengths(tree)
    for path, text in tree.items():
        errors += check_lines(path, text)
        if path.endswith((".h", ".cuh")):
            errors += check_guard(path, text)
    return errors


class SelfTest(unittest.TestCase):
    HEADER = ("#ifndef KDN_KV_A_B_H_\n#define KDN_KV_A_B_H_\n\n"
              "#endif  // KDN_KV_A_B_H_\n")

    def assert_bad(self, path, text, reason):
        errors = check_tree({path: text})
        self.assertEqual(len(errors), 1, errors)
        self.assertIn(reason, errors[0])

    def test_good_files(self):
        self.assertEqual(check_tree({
            "kv/a_b.h": "// Licence.\n\n" + self.HEADER,
            "kv/a_b.cc": '#include "kv/a_b.h"\n',
            "tests/kv/a_b_test.cc": "\n" * 5000,
        }), [])

    def test_guards(self):
        self.assert_bad("kv/other.h", self.HEADER, "KDN_KV_OTHER_H_")
        self.assert_bad("kv/a_b.h", "#pragma once\n", "must begin")
        self.assert_bad("kv/a_b.h", "#include <map>\n" + self.HEADER,
                        "must begin")
        self.assert_bad("kv/a_b.h", self.HEADER + "\nint x;\n", "must end")

    def test_guard_of_a_test_header_names_its_path(self):
        self.assertEqual(guard_of("tests/kv/fake.h"), "KDN_TESTS_KV_FAKE_H_")

    def test_lines(self):
        self.assert_bad("kv/a.cc", "\tint x;\n", "kv/a.cc:1: a tab")
        self.assert_bad("kv/a.cc", "\n// TO" "DO: later\n", "kv/a.cc:2")
        self.assert_bad("kv/a.cc", "int x;", "no newline")

    def test_one_long_file_is_bad(self):
        tree = {f"kv/{i}.cc": "\n" * 10 for i in range(20)}
        tree["kv/long.cc"] = "\n" * 701
        self.assertEqual(len(check_tree(tree)), 1)
        tree["kv/long.cc"] = "\n" * 700
        self.assertEqual(check_tree(tree), [])

    def test_many_longish_files_are_bad(self):
        tree = {f"kv/{i}.cc": "\n" * (301 if i < 11 else 10)
                for i in range(100)}
        self.assertIn("percentile", check_tree(tree)[0])
        tree["kv/0.cc"] = "\n"
        self.assertEqual(check_tree(tree), [])


def main(arguments):
    if arguments == ["--self-test"]:
        unittest.main(argv=["file_shape_test"])
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    tree = read_tree(arguments[0], TEXT_SUFFIXES)
    return report(f"shape of {len(tree)} files", check_tree(tree))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
