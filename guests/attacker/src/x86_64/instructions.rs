//! Instructions that are a hypervisor's own, or that say more than a guest may know.

use rt::exception::{Fault, vector};
use rt::random::Random;
use rt::say;

use super::guest::Target;
use super::watchdog;
use crate::common::violation;

/// SVM's, VMX's and others' instructions, with addresses of everybody in RAX. EFER.SVME is off for the guest, so SVM's
/// are undefined.
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
        // SAFETY: each is undefined for this guest, or it changes nothing that Rust sees: that is what is tested.
        let svm = unsafe {
            [
                ("vmrun", rt::attempt!("vmrun", in("rax") address)),
                ("vmload", rt::attempt!("vmload", in("rax") address)),
                ("vmsave", rt::attempt!("vmsave", in("rax") address)),
                ("stgi", rt::attempt!("stgi")),
                ("clgi", rt::attempt!("clgi")),
                ("skinit", rt::attempt!("skinit", in("eax") 0)),
                (
                    "invlpga",
                    rt::attempt!("invlpga", in("rax") address, in("ecx") 1),
                ),
                // VMXON, VMREAD, RSM, MWAIT, MONITOR, GETSEC's like: not on this CPU, or hidden.
                (
                    "vmxon",
                    rt::attempt!(".byte 0xf3, 0x0f, 0xc7, 0x30", in("rax") address),
                ),
                ("rsm", rt::attempt!(".byte 0x0f, 0xaa")),
                (
                    "monitor",
                    rt::attempt!("monitor", in("rax") address, in("ecx") 0, in("edx") 0),
                ),
                ("mwait", rt::attempt!("mwait", in("eax") 0, in("ecx") 0)),
                ("encls", rt::attempt!(".byte 0x0f, 0x01, 0xcf", in("eax") 0)),
            ]
        };
        for (name, fault) in svm {
            undefined(name, fault);
        }
    }
    others(random);
    watchdog::rearm();
    say!("attacker: instructions={}", addresses.len());
}

fn undefined(name: &str, fault: Option<Fault>) {
    match fault {
        Some(Fault {
            vector: vector::UNDEFINED,
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
        // SAFETY: they read registers, or write caches back; INVD is among them, which must not drop others' data.
        unsafe {
            rt::attempt!("rdpmc", in("ecx") leaf, out("eax") _, out("edx") _);
            rt::attempt!(".byte 0x0f, 0x01, 0xf9", out("ecx") _, out("eax") _, out("edx") _); // rdtscp
            rt::attempt!(".byte 0x0f, 0x01, 0xfd", in("ecx") leaf, out("eax") _, out("edx") _); // rdpru
            rt::attempt!(".byte 0x0f, 0x01, 0xfc", in("rax") 0_u64); // clzero, of the page that is firmware's
        }
    }
    // SAFETY: as before; the emulated machine and coherent caches lose nothing by them.
    unsafe {
        rt::attempt!("wbinvd");
        rt::attempt!("invd");
        rt::attempt!("int 0x80");
        rt::attempt!(".byte 0xf1"); // icebp
        rt::attempt!("ud2");
        rt::attempt!("hlt");
    }
}
