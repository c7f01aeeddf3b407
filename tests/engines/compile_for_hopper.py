"""Compile the kernel for an H100 and print: matrix instructions, conversions to TF32, powers, bytes of stack.

With an argument, of the products of halves.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from layerfreq.engines.cuda import engine as cuda
from layerfreq.engines.cuda.triton_kernels import add_exponentials

FLOATS = ("x", "x_rest", "x_size", "x_unit", "y", "y_rest", "y_size", "y_unit", "targets", "exponents")
POINTERS = {**dict.fromkeys(FLOATS, "*fp32"), **dict.fromkeys(("own", "tile_class", "tile_filled"), "*i32")}
POINTERS.update(sums="*fp64", x_halves="*fp16", y_halves="*fp16")
CONSTANTS = {
    "BLOCK_M": cuda.BLOCK_M,
    "BLOCK_N": cuda.BLOCK_N[0],
    "BLOCK_K": cuda.BLOCK_K,
    "CHAIN": cuda.CHAIN,
    "VECTORS": False,
    "DIRECT": False,
    "HALVES": len(sys.argv) > 1,
    "MATRIX_MODE": cuda.MATRIX_MODE,
}
names = add_exponentials.arg_names
kernel = triton.compile(
    ASTSource(
        fn=add_exponentials,
        signature={name: POINTERS.get(name, "constexpr" if name in CONSTANTS else "i32") for name in names},
        constexprs=CONSTANTS,
        attrs={
            (i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in POINTERS or name == "padded_rows"
        },
    ),
    target=GPUTarget("cuda", 90, 32),
    options={"num_warps": cuda.WARPS},
)
ptx = kernel.asm["ptx"]
with tempfile.TemporaryDirectory() as folder:
    binary = Path(folder) / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    use = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
stack = re.search(r"STACK:(\d+)", use)
print(len(re.findall(r"mma\S*(?:tf32|f16)", ptx)), ptx.count("cvt.rna.tf32"), ptx.count("ex2.approx"), stack.group(1))
