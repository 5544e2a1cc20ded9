//! Large machines.
