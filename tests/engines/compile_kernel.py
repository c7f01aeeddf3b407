"""Compile the kernel for GPUs of some compute capabilities, such as 80 90, without any of them; one line for each.

Printed are: matrix instructions, conversions to TF32, powers, bytes of stack, bytes of shared memory. With "halves"
instead of MATRIX_MODE's products those of two float16.
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
    "HALVES": "halves" in sys.argv,
}
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
names = add_exponentials.arg_names
for arch in (int(argument) for argument in sys.argv[1:] if argument.isdigit()):
    constants = {**CONSTANTS, "MATRIX_MODE": cuda.matrix_mode((arch // 10, arch % 10))}
    kernel = triton.compile(
        ASTSource(
            fn=add_exponentials,
            signature={name: POINTERS.get(name, "constexpr" if name in constants else "i32") for name in names},
            constexprs=constants,
            attrs={
                (i,): [["tt.divisibility", 16]]
                for i, name in enumerate(names)
                if name in POINTERS or name == "padded_rows"
            },
        ),
        target=GPUTarget("cuda", arch, 32),
        options=cuda.compiling(),
    )
    ptx = kernel.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        use = subprocess.run([TOOL, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    counts = [len(re.findall(r"mma\S*(?:tf32|f16)", ptx)), ptx.count("cvt.rna.tf32"), ptx.count("ex2.approx")]
    print(*counts, re.search(r"STACK:(\d+)", use).group(1), kernel.metadata.shared)
