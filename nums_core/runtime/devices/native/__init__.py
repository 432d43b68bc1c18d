"""Native CPU kernels, made when first needed: LLVM IR written by Python, compiled for the processor at hand by llvmlite.

    jit        text of a module -> a function called through ctypes, without the interpreter's lock
    emit       writing IR: vectors of float32, loads of packed bytes, loops
    unpack     blocks of quantised weights -> vectors in registers
    products   x @ w.T with packed w, and unpacking to memory

No compiler is needed on the user's machine; without llvmlite every caller has a way in NumPy.
"""
