//! Any bytes as a host's device tree, with a system of two domains.
#![no_main]

use libfuzzer_sys::fuzz_target;

const SYSTEM: &[u8] = include_bytes!("../seeds/system_tree/two-domains.dtb");
const PARTIAL: &[u8] = include_bytes!("../seeds/partial_tree/gpio.dtb");

fuzz_target!(|bytes: &[u8]| terrane_fuzz::boot(bytes, SYSTEM, PARTIAL));
