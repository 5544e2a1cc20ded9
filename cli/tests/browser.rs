//! The page of `terrane plan --format html` in a real browser, Chromium without a window: the page
//! looks at itself (`#selftest`), and what it holds is read back.
//!
//! Without a browser there is nothing to test with, and the tests say so and pass; with
//! `TERRANE_BROWSER` set they need it. `TERRANE_SCREENSHOTS` names a folder for pictures to look at.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{TESTS, terrane};

mod common;

/// Nothing but the page: no window, no network of the browser's own, and no sandbox, which root can't
/// have.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// Kernels that the manifests name.
const KERNELS: [&str; 2] = ["kernel", "kernel.elf"];

fn browser() -> Option<String> {
    let named = std::env::var("TERRANE_BROWSER").ok();
    let known = ["chromium", "chromium-browser", "google-chrome"];
    let works = |name: &&str| {
        let mut command = Command::new(name);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let found = known.into_iter().find(works).map(str::to_owned);
    let browser = named.or(found);
    if browser.is_none() {
        eprintln!("no browser is installed: the page isn't looked at");
    }
    browser
}

/// A folder with a manifest, its host and kernels.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(manifest: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::write(folder.path("system.toml"), manifest).unwrap();
        for kernel in KERNELS {
            std::fs::copy(format!("{TESTS}/files/{kernel}"), folder.path(kernel)).unwrap();
        }
        for host in ["virt-2g.dtb", "q35-2g.json"] {
            std::fs::copy(format!("{TESTS}/hosts/{host}"), folder.path(host)).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the page of the manifest, and its picture alone.
    fn page(&self, hypervisor: &str) {
        self.plan(hypervisor, "html");
        self.plan(hypervisor, "svg");
    }

    fn plan(&self, hypervisor: &str, format: &str) {
        let file = format!("page.{format}");
        let plan = ["plan", "system.toml", "--format", format, "-o", &file];
        let output = terrane(&plan, self.0.path())
            .env("TERRANE_HYPERVISOR", format!("{TESTS}/files/{hypervisor}"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// The page as the browser has it once its script has run, in a window of this size.
    fn dom(&self, browser: &str, page: &str, window: &str) -> String {
        let address = format!("file://{}", self.path(page).display());
        let output = Command::new(browser)
            .args(FLAGS)
            .arg(format!(
                "--user-data-dir={}",
                self.path("profile").display()
            ))
            .arg(format!("--window-size={window}"))
            .arg("--enable-logging=stderr")
            .args(["--dump-dom", &address])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let console: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("CONSOLE"))
            .collect();
        assert_eq!(console, [""; 0], "the page complains");
        String::from_utf8(output.stdout).unwrap()
    }

    fn screenshot(&self, browser: &str, name: &str, window: &str) {
        let Some(folder) = std::env::var_os("TERRANE_SCREENSHOTS") else {
            return;
        };
        let address = format!("file://{}", self.path("page.html").display());
        let file = Path::new(&folder).join(format!("{name}-{}.png", window.replace(',', "x")));
        let status = Command::new(browser)
            .args(FLAGS)
            .arg(format!(
                "--user-data-dir={}",
                self.path("profile").display()
            ))
            .arg(format!("--window-size={window}"))
            .arg(format!("--screenshot={}", file.display()))
            .arg(address)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Lets the page look at itself, in a window of a laptop's size and in a narrow one.
    fn selftest(&self, browser: &str, name: &str) {
        for window in ["1280,800", "500,900"] {
            let dom = self.dom(browser, "page.html#selftest", window);
            let (_, result) = dom
                .split_once("<pre id=\"selftest-result\">")
                .expect("the script has not come to its end");
            let (result, _) = result.split_once("</pre>").unwrap();
            let bad: Vec<&str> = result
                .lines()
                .filter(|line| !line.starts_with("ok: "))
                .collect();
            assert_eq!(bad, [""; 0], "in a window of {window}");
            assert!(result.lines().count() >= 12, "{result}");
            assert!(dom.contains("data-selftest=\"passed\""));
            self.screenshot(browser, name, window);
        }
    }
}

/// Many pieces of 64 KiB, and a name that would be a script if it were let.
#[test]
fn small_regions_and_hostile_names() {
    let Some(browser) = browser() else { return };
    let mut reserved = String::new();
    for piece in 0..24_u64 {
        let start = 0x4800_0000 + piece * 0x2_0000;
        let name = match piece {
            3 => "</title></svg><script>document.title = 'owned'</script>".to_owned(),
            4 => "\\\" onload=\\\"document.title = 'owned'".to_owned(),
            _ => format!("log-{piece}"),
        };
        reserved += &format!("{{ start = {start:#x}, size = \"64KiB\", name = \"{name}\" }}, ");
    }
    let folder = Folder::new(&format!(
        r#"
manifest-version = 1

[host]
description = "virt-2g.dtb"
reserved = [{reserved}]

[[domain]]
name = "control"
capabilities = ["control", "hardware"]
memory = "512MiB"
kernel = "kernel"

[[domain]]
name = "a-name-that-is-longer-than-its-column-is-wide"
direct-map = true
memory = "4MiB"
kernel = "kernel"

[[domain]]
name = "net"
memory = "2MiB"
kernel = "kernel"
"#
    ));
    folder.page("hypervisor.bin");
    folder.selftest(&browser, "small");
    let dom = folder.dom(&browser, "page.html#0x48060000", "1280,800");
    assert!(
        dom.contains("<title>Terrane plan: aarch64"),
        "a name was run as a script"
    );
    assert!(
        dom.contains("&lt;script&gt;document.title"),
        "the name is gone"
    );
    // As a file of its own the picture is XML, which a browser takes only without a mistake.
    let picture = folder.dom(&browser, "page.svg", "1280,800");
    assert!(
        picture.contains("log-23") && !picture.contains("parsererror"),
        "{picture}"
    );
    // The address asked for is found, and its details are shown.
    assert!(dom.contains("1 of 1"), "{dom}");
    // However the command would take it, and nothing else.
    let found = |asked: &str| {
        let dom = folder.dom(&browser, &format!("page.html#{asked}"), "1280,800");
        let (_, count) = dom
            .split_once("<output id=\"count\" for=\"query\">")
            .unwrap();
        count.split_once("</output>").unwrap().0.to_owned()
    };
    for asked in ["0x4806_0000", "0x120180KiB", "1_181_056%20KiB"] {
        assert_eq!(found(asked), "1 of 1", "{asked}");
    }
    for asked in [
        "0x48060000_",
        "_0x48060000",
        "1181056kib",
        "100%",
        "%e0%a4%a",
    ] {
        assert_eq!(found(asked), "nothing found", "{asked}");
    }
    let (_, detail) = dom.split_once("<pre id=\"detail\">").unwrap();
    assert!(detail.starts_with("machine: "), "{}", &detail[..80]);
    assert!(
        detail.contains("0x48060000-0x4806ffff, 64 KiB"),
        "{}",
        &detail[..200]
    );
}

#[test]
fn a_board_with_devices() {
    let Some(browser) = browser() else { return };
    let manifest = std::fs::read_to_string(format!("{TESTS}/good/two.toml")).unwrap();
    let manifest = manifest
        .replace("../hosts/", "")
        .replace("../files/ramdisk", "kernel");
    let folder = Folder::new(&manifest.replace("../files/", ""));
    folder.page("hypervisor.bin");
    folder.selftest(&browser, "virt");
    let dom = folder.dom(&browser, "page.html#virtio_mmio@a000200", "1280,800");
    assert!(dom.contains("registers of 32 devices"), "{dom}");
    // The machine's column and the hardware domain's.
    assert!(dom.contains("1 of 2"));
}

/// 1 TiB and 40 domains.
#[test]
fn a_large_machine() {
    let Some(browser) = browser() else { return };
    let mut manifest = r#"
manifest-version = 1

[host]
description = "large.json"

[[domain]]
name = "control"
capabilities = ["control", "hardware"]
memory = "rest"
kernel = "kernel.elf"
"#
    .to_owned();
    for guest in 0..39 {
        let size = [64, 256, 1024, 16384, 32768][guest % 5];
        let direct = guest % 3 == 0;
        manifest += &format!(
            "\n[[domain]]\nname = \"guest-{guest}\"\nmemory = \"{size}MiB\"\ndirect-map = {direct}\nkernel = \"kernel.elf\"\n"
        );
    }
    let folder = Folder::new(&manifest);
    let described = std::fs::read_to_string(folder.path("q35-2g.json")).unwrap();
    let mut described: serde_json::Value = serde_json::from_str(&described).unwrap();
    described["cpus"] = (0..40).collect();
    let memory = described["memory"].as_array_mut().unwrap();
    // Where the firmware of a small machine keeps a hole, this one has RAM.
    memory.retain(|entry| entry["start"] != "0xfd00000000");
    memory.push(serde_json::json!({ "start": "0x100000000", "size": (1_u64 << 40) - (2 << 30), "kind": "ram" }));
    std::fs::write(folder.path("large.json"), described.to_string()).unwrap();
    folder.page("hypervisor.elf");
    folder.selftest(&browser, "large");
    let dom = folder.dom(&browser, "page.html#guest-38", "1280,800");
    assert!(dom.contains("40 CPUs"), "{dom}");
    assert!(dom.contains("<pre id=\"detail\">machine: RAM of `guest-38`\n"));
}
