"""What compiled loops have in common, wherever they are: how numba is loaded, where its work is kept, LLVM's words."""
