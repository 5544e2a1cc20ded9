//! Links the bare-metal program: a file that multiboot1 loaders take flat and others take as ELF.
//! On a workstation the program is an empty `main` and needs nothing.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let room = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    for argument in [
        "-znorelro",
        "-zmax-page-size=4096",
        "--build-id=none",
        "--gc-sections",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-T{room}/link.ld");
}
