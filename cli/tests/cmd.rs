//! What the command prints, to the letter. `TRYCMD=overwrite cargo test -p terrane --test cmd`
//! writes it anew.

#[test]
fn output_is_as_written_down() {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    trycmd::TestCases::new()
        .env(
            "TERRANE_HYPERVISOR",
            format!("{tests}/files/hypervisor.bin"),
        )
        .env("COLUMNS", "100")
        .case("tests/cmd/*.trycmd");
}
