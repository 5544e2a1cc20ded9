//! DMA by hand: QEMU's `edu` device is given the raw physical address of a page of this program, both ways.
//!
//! No driver and no DMA API stand between, so what arrives shows that a physical address as this Linux knows it is the
//! address that devices use. Registers: QEMU's docs/specs/edu.rst.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::mm::{MapFlags, ProtFlags, mlock, mmap, mmap_anonymous};

use super::pci::Function;

const IDENTIFICATION: usize = 0x00;
const LIVENESS: usize = 0x04;
const SOURCE: usize = 0x80;
const DESTINATION: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
const START: u64 = 1;
const TO_MEMORY: u64 = 2;
/// The device's own buffer, as an address that it understands, and its size.
const BUFFER: u64 = 0x4_0000;
const PAGE: usize = 4096;
const BAR_SIZE: usize = 1 << 20;

/// The registers, mapped.
struct Registers(NonNull<u8>);

impl Registers {
    fn map(file: &File) -> Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing else refers to it.
        let address = unsafe {
            mmap(
                std::ptr::null_mut(),
                BAR_SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        }
        .context("cannot map the registers")?;
        Ok(Self(NonNull::new(address.cast()).context("mapped at 0")?))
    }

    /// Where a register is. The constants above are aligned and inside the BAR.
    fn at<T>(&self, offset: usize) -> NonNull<T> {
        // SAFETY: the BAR is mapped whole, and longer than every offset.
        unsafe { self.0.add(offset) }.cast()
    }

    fn read32(&self, offset: usize) -> u32 {
        // SAFETY: `at` gives an aligned register, mapped for the program's life.
        unsafe { self.at::<u32>(offset).read_volatile() }
    }

    fn write32(&self, offset: usize, value: u32) {
        // SAFETY: as in `read32`.
        unsafe { self.at(offset).write_volatile(value) }
    }

    fn read64(&self, offset: usize) -> u64 {
        // SAFETY: as in `read32`.
        unsafe { self.at::<u64>(offset).read_volatile() }
    }

    fn write64(&self, offset: usize, value: u64) {
        // SAFETY: as in `read32`.
        unsafe { self.at(offset).write_volatile(value) }
    }

    /// One transfer of a page; the device takes about 100 ms for it.
    fn transfer(&self, source: u64, destination: u64, direction: u64) -> Result<()> {
        self.write64(SOURCE, source);
        self.write64(DESTINATION, destination);
        self.write64(COUNT, PAGE as u64);
        self.write64(COMMAND, START | direction);
        let begin = Instant::now();
        while self.read64(COMMAND) & START != 0 {
            ensure!(
                begin.elapsed() < Duration::from_secs(20),
                "a transfer that doesn't end"
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// A locked page of this program and its physical address.
struct Page {
    bytes: NonNull<[u8; PAGE]>,
    physical: u64,
}

impl Page {
    fn new(bytes: [u8; PAGE]) -> Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let address = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .context("no memory")?;
        // SAFETY: the page is mapped above and never unmapped.
        unsafe { mlock(address, PAGE) }.context("cannot lock a page")?;
        let page = Self {
            bytes: NonNull::new(address.cast()).context("mapped at 0")?,
            physical: physical(address as u64)?,
        };
        // SAFETY: the page is mapped, and nothing refers to it; volatile, since the device reads it too.
        unsafe { page.bytes.write_volatile(bytes) }
        Ok(page)
    }

    /// What it holds now.
    fn read(&self) -> [u8; PAGE] {
        // SAFETY: the page is mapped and initialized by `new`; volatile, since the device writes it too.
        unsafe { self.bytes.read_volatile() }
    }
}

/// The first byte that isn't what it should be: index, what it is, what it should be.
fn difference(seen: &[u8; PAGE], wanted: &[u8; PAGE]) -> Option<(usize, u8, u8)> {
    let pairs = seen.iter().zip(wanted).enumerate();
    pairs
        .map(|(index, (seen, wanted))| (index, *seen, *wanted))
        .find(|(_, seen, wanted)| seen != wanted)
}

/// A program's address as the machine sees it, by /proc/self/pagemap (Linux: Documentation/admin-guide/mm/pagemap.rst).
fn physical(address: u64) -> Result<u64> {
    let map = File::open("/proc/self/pagemap").context("no page map")?;
    let mut entry = [0; 8];
    map.read_exact_at(&mut entry, address / PAGE as u64 * 8)?;
    let entry = u64::from_le_bytes(entry);
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    ensure!(
        entry & PRESENT != 0 && entry & FRAME != 0,
        "the page map hides the frame ({entry:#x})"
    );
    Ok((entry & FRAME) * PAGE as u64)
}

/// The device's registers, found to be alive.
fn registers() -> Result<Registers> {
    let function = Function::find(0x1234, 0x11e8)?;
    function.enable()?;
    let registers = Registers::map(&function.resource(0)?)?;
    let identification = registers.read32(IDENTIFICATION);
    ensure!(
        identification & 0xff == 0xed,
        "identification {identification:#x}"
    );
    registers.write32(LIVENESS, 0x1234_5678);
    ensure!(
        registers.read32(LIVENESS) == !0x1234_5678,
        "it doesn't invert"
    );
    Ok(registers)
}

/// `LOW:HIGH`, hexadecimal: the same transfers between pages in that range, where a physical address of this Linux is not
/// the machine's: neither page is touched. Whoever owns the machine's frames of these numbers finds the one copied to the
/// other.
///
/// # Errors
/// A page that was touched, or no memory in that range.
pub fn astray(arguments: &[&str]) -> Result<String> {
    const TRIES: usize = 1 << 15;
    let [low, high] = arguments else {
        bail!("LOW:HIGH, not {arguments:?}");
    };
    let range = u64::from_str_radix(low, 16)?..u64::from_str_radix(high, 16)?;
    let page_in_range = |content: u8| -> Result<Page> {
        // A page elsewhere is kept, or it would be the next one too.
        for _ in 0..TRIES {
            let page = Page::new([content; PAGE])?;
            if range.contains(&page.physical) {
                return Ok(page);
            }
        }
        bail!("no page in {range:#x?}")
    };
    let registers = registers()?;
    let (from, to) = (page_in_range(0x5a)?, page_in_range(0xee)?);
    registers.transfer(from.physical, BUFFER, 0)?;
    registers.transfer(BUFFER, to.physical, TO_MEMORY)?;
    if let Some((index, seen, _)) = difference(&to.read(), &[0xee; PAGE]) {
        bail!("byte {index} at {:#x} became {seen:#x}", to.physical);
    }
    Ok(format!("from={:#x} to={:#x}", from.physical, to.physical))
}

/// Memory to device, device to another page, and both pages compared with what they should hold.
///
/// # Errors
/// Where the data didn't arrive.
pub fn check() -> Result<String> {
    let registers = registers()?;
    // A prime period, so that a shift by a power of two shows.
    let pattern = std::array::from_fn(|index| u8::try_from(index % 251).unwrap_or(0) ^ 0x5a);
    let from = Page::new(pattern)?;
    let to = Page::new([0xee; PAGE])?;
    registers.transfer(from.physical, BUFFER, 0)?;
    registers.transfer(BUFFER, to.physical, TO_MEMORY)?;
    if let Some((index, seen, wanted)) = difference(&to.read(), &pattern) {
        bail!(
            "byte {index} at {:#x} is {seen:#x}, not {wanted:#x}",
            to.physical
        );
    }
    if let Some((index, ..)) = difference(&from.read(), &pattern) {
        bail!("the source changed at byte {index}");
    }
    Ok(format!(
        "from={:#x} to={:#x} bytes={PAGE}",
        from.physical, to.physical
    ))
}
