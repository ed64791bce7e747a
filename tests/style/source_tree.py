"""Reads the project's own files for the style tests."""

import os

# The level of each folder. A file includes files of its own folder and of folders
# at lower levels. docs/architecture.md describes the folders.
LEVELS = {
    "kv": 0,
    "codec": 1,
    "placement": 1,
    "storage": 1,
    "model": 1,
    "nccl": 1,
    "blend": 2,
    "delivery": 2,
    "transfer": 3,
    "actors": 4,
    "rpc": 4,
    "sim": 4,
    "cli": 5,
}
# Folders that may include anything, and that nothing may include.
FREE_FOLDERS = ("tests", "bench")

CPP_SUFFIXES = (".h", ".cc", ".cu", ".cuh")


def is_skipped(folder, at_root):
    """Whether a folder has no sources: hidden folders, caches, and build folders
    at the root."""
    return (folder.startswith(".") or folder == "__pycache__" or
            at_root and folder.startswith("build"))


def read_tree(root, suffixes):
    """Maps the paths of the files with these suffixes, relative to root and with
    '/', to their texts."""
    tree = {}
    for base, folders, names in os.walk(root):
        folders[:] = sorted(
            f for f in folders if not is_skipped(f, base == root))
        for name in sorted(names):
            if name.endswith(suffixes):
                path = os.path.join(base, name)
                with open(path, encoding="utf-8") as file:
                    key = os.path.relpath(path, root).replace(os.sep, "/")
                    tree[key] = file.read()
    return tree


def report(title, errors):
    """Prints the errors. Returns the exit status of the test."""
    for error in errors:
        print(error)
    print(f"{title}: {len(errors) or 'no'} problems")
    return 1 if errors else 0
