//! Any bytes as a system's device tree, on QEMU's host.
#![no_main]

use libfuzzer_sys::fuzz_target;

const HOST: &[u8] = include_bytes!("../../manifest/tests/trees/virt-gicv3.dtb");
const PARTIAL: &[u8] = include_bytes!("../seeds/partial_tree/gpio.dtb");

fuzz_target!(|bytes: &[u8]| terrane_fuzz::boot(HOST, bytes, PARTIAL));
