//! An imported manifest is one that `terrane check` takes, wherever it is written to.

use std::path::Path;

use common::TESTS;

mod common;

fn terrane(arguments: &[&str], folder: &Path) -> (Option<i32>, String) {
    let output = common::terrane(arguments, folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn an_imported_manifest_is_checked_and_good() {
    let elsewhere = tempfile::tempdir().unwrap();
    let written = elsewhere.path().join("board.toml");
    let path = written.to_str().unwrap();
    let import = ["import", "imagebuilder", "config", "-o", path];
    let (status, said) = terrane(&import, &Path::new(TESTS).join("import"));
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = terrane(&["check", path], Path::new("/"));
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn paths_count_from_the_folder_that_is_named() {
    let elsewhere = tempfile::tempdir().unwrap();
    let config = elsewhere.path().join("config");
    std::fs::copy(Path::new(TESTS).join("import/config"), &config).unwrap();
    let (config, folder) = (config.to_str().unwrap(), Path::new(TESTS).join("import"));
    let written = elsewhere.path().join("board.toml");
    let path = written.to_str().unwrap();
    let folder = ["--directory", folder.to_str().unwrap()];
    let import = [&["import", "imagebuilder", config, "-o", path][..], &folder].concat();
    let (status, said) = terrane(&import, elsewhere.path());
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = terrane(&["check", "board.toml"], elsewhere.path());
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_configuration_that_is_not_there_is_no_conflict() {
    let (status, said) = terrane(&["import", "imagebuilder", "nowhere"], Path::new(TESTS));
    assert_eq!(status, Some(2), "{said}");
}
