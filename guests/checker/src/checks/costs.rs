//! What single operations cost a program of Linux, in ticks of the counter: with counted instructions, in instructions.
//!
//! A batch that an interrupt or another task falls into is dearer; the median of many batches isn't.

use std::ffi::c_void;
use std::fs::File;

use anyhow::{Context as _, Result, ensure};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::counter;

const BATCHES: usize = 101;
/// Operations in a batch.
const TURNS: usize = 32;

/// Prints a line `bench NAME TICKS` for each operation that there is.
///
/// # Errors
/// No memory, or a port that the kernel doesn't let a program have.
pub fn print() -> Result<String> {
    let empty = median(|| ());
    row("page-fault", page_fault()? - empty);
    #[cfg(target_arch = "x86_64")]
    {
        row("cpuid", median(x86::cpuid) - empty);
        x86::allow_ports()?;
        row("port-io", median(x86::port) - empty);
    }
    if let Some(ticks) = hypercall()? {
        row("hypercall", ticks);
    }
    Ok(format!("loop={empty:.2}"))
}

fn row(name: &str, ticks: f64) {
    println!("bench {name} {ticks:.2}");
}

/// Ticks of one turn: the median over batches.
fn median(mut turn: impl FnMut()) -> f64 {
    let mut batches = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let begin = counter::now();
        for _ in 0..TURNS {
            turn();
        }
        batches.push(counter::now() - begin);
    }
    batches.sort_unstable();
    let middle = batches.get(BATCHES / 2).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let ticks = middle as f64 / TURNS as f64;
    ticks
}

/// The first write to an anonymous page of 4 KiB.
fn page_fault() -> Result<f64> {
    const PAGE: usize = 4096;
    const BYTES: usize = PAGE * TURNS * BATCHES;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let address = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            BYTES,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .context("no memory")?;
    // SAFETY: the mapping made above, which nothing refers to yet.
    unsafe { madvise(address, BYTES, Advice::LinuxNoHugepage) }.context("only huge pages")?;
    let mut pages = (0..TURNS * BATCHES).map(|page| page * PAGE);
    let ticks = median(|| {
        if let Some(offset) = pages.next() {
            // SAFETY: the offset lies inside the mapping.
            let byte = unsafe { address.cast::<u8>().add(offset) };
            // SAFETY: the byte is mapped for writing and this program's alone.
            unsafe { byte.write_volatile(1) }
        }
    });
    // SAFETY: the mapping made above, which nothing refers to any more.
    unsafe { munmap(address, BYTES) }.context("cannot unmap")?;
    Ok(ticks)
}

/// An ioctl of /dev/xen/privcmd (Linux, include/uapi/xen/privcmd.h).
struct Call {
    opcode: Opcode,
    /// The hypercall's number and arguments.
    words: [u64; 6],
}

// SAFETY: the words are as long as the opcode says, and the kernel only reads them.
unsafe impl Ioctl for Call {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.words.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(
        output: IoctlOutput,
        _: *mut c_void,
    ) -> rustix::io::Result<Self::Output> {
        Ok(output)
    }
}

impl Call {
    /// XENVER_version.
    fn version(number: u8) -> Self {
        const XEN_VERSION: u64 = 17;
        Self {
            opcode: opcode::none(b'P', number) | 48 << 16,
            words: [XEN_VERSION, 0, 0, 0, 0, 0],
        }
    }
}

/// XENVER_version by way of the kernel, less an ioctl of the same device that fails. `None` without the device.
fn hypercall() -> Result<Option<f64>> {
    let Ok(device) = File::options()
        .read(true)
        .write(true)
        .open("/dev/xen/privcmd")
    else {
        return Ok(None);
    };
    // SAFETY: `Call` is what the driver expects, and asking for the version changes nothing.
    let ask = |number| unsafe { ioctl(&device, Call::version(number)) };
    const HYPERCALL: u8 = 0;
    const UNUSED: u8 = 0xff;
    let version = ask(HYPERCALL).context("no hypercall")?;
    ensure!(version > 0, "the hypercall returned {version}");
    let done = median(|| {
        let _ = ask(HYPERCALL);
    });
    let refused = median(|| {
        let _ = ask(UNUSED);
    });
    Ok(Some(done - refused))
}

/// Instructions of x86-64 that a hypervisor may want to see.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    use anyhow::{Result, ensure};

    /// The mask of the first 8259A, which no domain of ours has.
    const PORT: u16 = 0x21;

    /// Leaf 0.
    pub fn cpuid() {
        std::hint::black_box(std::arch::x86_64::__cpuid(0));
    }

    /// Lets this program use every port (iopl(2), level 3).
    pub fn allow_ports() -> Result<()> {
        const IOPL: i64 = 172;
        let outcome: i64;
        // SAFETY: the system call changes this thread's right to use ports, nothing else.
        unsafe {
            asm!("syscall", inlateout("rax") IOPL => outcome, in("rdi") 3, out("rcx") _, out("r11") _, options(nostack));
        }
        ensure!(outcome == 0, "iopl: error {}", -outcome);
        Ok(())
    }

    /// A read of one byte.
    pub fn port() {
        // SAFETY: reading the mask changes nothing.
        unsafe {
            asm!("in al, dx", in("dx") PORT, out("al") _, options(nostack, nomem));
        }
    }
}
