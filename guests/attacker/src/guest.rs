//! Room under construction.

use rt::{Boot, say};

rt::entry!(run);

fn run(boot: Boot) {
    say!("attacker: {:?}", boot.tree.ram);
}
