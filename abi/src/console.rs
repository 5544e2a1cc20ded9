//! `console_io` (`xen.h`).

/// `CONSOLEIO_write`: a count and a buffer.
pub const WRITE: u64 = 0;
/// `CONSOLEIO_read`: a count and a buffer; the result is the count read.
pub const READ: u64 = 1;
