"""Datasets as uint8 tensors: `load.load` reads, `get.get` and `get.check` obtain, `fingerprint.fingerprint` identifies."""
