//! Room under construction.
#![no_std]
