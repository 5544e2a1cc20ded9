//! Links a bare-metal guest as its architecture's boot protocol wants it. On the workstation it does nothing.

use std::env;

fn main() {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    println!("cargo:rerun-if-changed=../rt/link-{arch}.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bins=-T{here}/../rt/link-{arch}.ld");
    println!("cargo:rustc-link-arg-bins=-znorelro");
    if arch == "aarch64" {
        // The toolchain's `core` isn't position-independent: its tables of pointers are in read-only sections.
        for argument in ["-pie", "--no-dynamic-linker", "-znotext"] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
    }
}
