//! Links a bare-metal guest as a position-independent arm64 Image. On the workstation it does nothing.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=../rt/link.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bins=-T{here}/../rt/link.ld");
    // The toolchain's `core` isn't position-independent: its tables of pointers are in read-only sections.
    for argument in ["-pie", "--no-dynamic-linker", "-znotext", "-znorelro"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
