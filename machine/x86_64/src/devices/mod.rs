//! Models of the PC's devices and tables as a guest sees them: plain logic, without the CPU.
