//! An append-only, hash-chained log on a disk.
