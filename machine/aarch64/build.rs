//! Links the bare-metal program: a position-independent image with our own section order.
//! On a workstation the program is an empty `main` and needs nothing.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let room = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    for argument in [
        "-pie",
        "--no-dynamic-linker",
        // `core` is compiled without -fPIC, so some of its read-only data needs relocations,
        // which we apply before the MMU makes it read-only.
        "-znotext",
        // An address of 8 bytes has 24 of relocation otherwise.
        "--pack-dyn-relocs=relr",
        "-znorelro",
        "-zmax-page-size=4096",
        "--build-id=none",
        "--gc-sections",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-T{room}/link.ld");
}
