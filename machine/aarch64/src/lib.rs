//! Room under construction.
#![no_std]
extern crate alloc;
