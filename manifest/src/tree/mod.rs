//! Device trees: reading, writing, and the three that matter here (the host's, the system's, a guest's).

pub mod blob;
mod cells;
pub mod edit;
pub mod guest;
pub mod host;
pub mod system;
pub mod writer;
