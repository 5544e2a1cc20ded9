//! Any bytes as a domain's partial tree, in a system for Xen on QEMU's host.
#![no_main]

use libfuzzer_sys::fuzz_target;

const HOST: &[u8] = include_bytes!("../../manifest/tests/trees/virt-gicv3.dtb");
const SYSTEM: &[u8] = include_bytes!("../seeds/system_tree/xen.dtb");

fuzz_target!(|bytes: &[u8]| terrane_fuzz::boot(HOST, SYSTEM, bytes));
