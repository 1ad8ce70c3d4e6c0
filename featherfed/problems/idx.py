"""The IDX files of MNIST, mapped into memory: phones on one machine share the pages, and nothing is read in vain.

A header of big-endian 32-bit numbers (magic 0x0000_08_0d for d dimensions of unsigned bytes, then each dimension), and
the bytes (LeCun, Cortes and Burges, "The MNIST database"). torchvision reads them too, but importing it costs a phone
170 MB of private memory and seconds; here it only downloads (`images.py`).
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featherfed.errors import DataError

U8 = npt.NDArray[np.uint8]
_MAGIC = 0x0800


def map_idx(path: Path, dimensions: int) -> U8:
    """Return the read-only array of `dimensions` axes in an IDX file; raises `DataError` if it is not one."""
    header_bytes = 4 * (1 + dimensions)
    try:
        with open(path, "rb") as file:
            header = np.frombuffer(file.read(header_bytes), ">u4")
            size = path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not an IDX file: its header is cut off") from error
    if len(header) != 1 + dimensions or header[0] != _MAGIC + dimensions:
        raise DataError(f"{path} is not an IDX file of unsigned bytes with {dimensions} dimensions")
    shape = tuple(int(length) for length in header[1:])
    if size != header_bytes + math.prod(shape):
        raise DataError(f"{path} has {size} bytes, its header says {header_bytes + math.prod(shape)}")
    return np.memmap(path, np.uint8, "r", header_bytes, shape)
