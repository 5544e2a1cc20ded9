//! Device trees: reading, writing, and the three that matter here (the host's, the system's, a guest's).

pub mod blob;
pub mod host;
pub mod writer;
