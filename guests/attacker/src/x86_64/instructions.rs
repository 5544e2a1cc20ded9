//! Instructions that are a hypervisor's own, or that say more than a guest may know.

use rt::exception::{Fault, vector};
use rt::random::Random;
use rt::say;

use super::guest::Target;
use super::watchdog;
use crate::common::violation;

instruction!(vmrun, "vmrun");
instruction!(vmload, "vmload");
instruction!(vmsave, "vmsave");
instruction!(stgi, "stgi");
instruction!(clgi, "clgi");
instruction!(skinit, "skinit");
instruction!(invlpga, "invlpga");
instruction!(rsm, ".byte 0x0f, 0xaa");
instruction!(monitor, "monitor");
instruction!(mwait, "mwait");
instruction!(encls, ".byte 0x0f, 0x01, 0xcf");
instruction!(rdpmc, "rdpmc");
instruction!(rdtscp, ".byte 0x0f, 0x01, 0xf9");
instruction!(rdpru, ".byte 0x0f, 0x01, 0xfd");
instruction!(clzero, ".byte 0x0f, 0x01, 0xfc");
instruction!(wbinvd, "wbinvd");
instruction!(invd, "invd");
instruction!(int_0x80, "int 0x80");
instruction!(icebp, ".byte 0xf1");
instruction!(ud2, "ud2");
instruction!(hlt, "hlt");

/// One instruction, with RAX, RCX and RDX.
type Instruction = fn(u64, u64, u64) -> Option<Fault>;

/// Not on this CPU, or hidden from the guest. EFER.SVME is off for it, so SVM's are undefined.
const UNDEFINED: [(&str, Instruction); 11] = [
    ("vmrun", vmrun),
    ("vmload", vmload),
    ("vmsave", vmsave),
    ("stgi", stgi),
    ("clgi", clgi),
    ("skinit", skinit),
    ("invlpga", invlpga),
    ("rsm", rsm),
    ("monitor", monitor),
    ("mwait", mwait),
    ("encls", encls),
];

/// SVM's and others' instructions, with addresses of everybody in RAX.
pub fn of_hypervisors(target: &Target, random: &mut Random) {
    let addresses = [
        0,
        0x20_0000,
        target.reach.start,
        target.reach.end.wrapping_sub(4096),
        target.reach.top,
        random.word(),
        random.word() & !0xfff,
        u64::MAX,
    ];
    for address in addresses {
        watchdog::progress(13 << 40 | address >> 24);
        for (name, instruction) in UNDEFINED {
            undefined(name, instruction(address, 0, 0));
        }
    }
    others(random);
    watchdog::rearm();
    say!("attacker: instructions={}", addresses.len());
}

fn undefined(name: &str, fault: Option<Fault>) {
    match fault {
        // A CPU may look at the address first.
        Some(Fault {
            vector: vector::UNDEFINED | vector::GENERAL_PROTECTION,
            ..
        }) => {}
        Some(fault) => violation(format_args!("{name} gave {fault}")),
        None => violation(format_args!("{name} was done")),
    }
}

/// Those that a guest may make: it must come back from them, whatever they give.
fn others(random: &mut Random) {
    for _ in 0..256 {
        let [leaf, subleaf] = rt::exception::halves(random.edge());
        watchdog::progress(14 << 40 | u64::from(leaf));
        rt::cpu::cpuid(leaf, subleaf);
        rt::cpu::cpuid(0x4000_0000 | leaf & 0xfff, subleaf);
        for instruction in [rdpmc, rdtscp, rdpru] {
            instruction(0, leaf.into(), 0);
        }
        // Of the page that is firmware's.
        clzero(0, 0, 0);
    }
    // INVD must not drop what others have in the caches; HLT ends by the watchdog.
    for instruction in [wbinvd, invd, int_0x80, icebp, ud2, hlt] {
        instruction(0, 0, 0);
    }
}
