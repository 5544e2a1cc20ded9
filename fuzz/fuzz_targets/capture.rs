//! Any text as what `terrane host capture` wrote.
#![no_main]

use libfuzzer_sys::fuzz_target;
use manifest::capture::{self, Captured};
use manifest::pc;

fuzz_target!(|text: &str| {
    let Ok(captured) = capture::read(text) else {
        return;
    };
    // What was read says the same when it is written.
    let again = match &captured {
        Captured::Pc(machine) => pc::write(machine),
        Captured::Tree {
            architecture,
            tree,
            memory,
        } => capture::write_tree(*architecture, tree, memory),
    };
    assert_eq!(capture::read(&again).ok(), Some(captured));
});
