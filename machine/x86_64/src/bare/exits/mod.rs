//! What a guest is left for, by subject.

pub mod hypercall;
pub mod memory;
pub mod port;
pub mod registers;
