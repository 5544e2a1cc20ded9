//! The hypercalls that the guests use, with arguments that the hypervisor can read in place (memory is mapped 1:1).

use core::sync::atomic::{AtomicU64, Ordering};

use abi::grant_table::{self, QuerySize};
use abi::memory::{self, AddToPhysmap};
use abi::shared_info::{UPCALL_PENDING, VCPU_PENDING_SELECTOR, VCPU_UPCALL_WORD};
use abi::version::{self, FeatureInfo};
use abi::{DomainId, PAGE_SIZE, console, event_channel, number, sched};

use crate::SHARED_INFO;
use crate::call::hypercall;

/// Why a domain shuts down.
#[derive(Clone, Copy, Debug)]
pub enum Shutdown {
    /// SHUTDOWN_poweroff.
    PowerOff,
    /// SHUTDOWN_reboot.
    Reboot,
    /// SHUTDOWN_crash.
    Crash,
}

/// An error of Xen's ABI: a negative errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(pub i64);

pub(crate) fn checked(result: i64) -> Result<u64, Error> {
    u64::try_from(result).map_err(|_| Error(result))
}

/// Calls `number` with a command and a structure that the hypervisor may read and write.
pub(crate) fn with<T>(number: u64, command: u64, argument: &mut T) -> Result<u64, Error> {
    let address = &raw mut *argument as u64;
    // SAFETY: the one pointer is to `argument`, lent for the call; `T` is made of integers, so any bytes are valid. The
    // third argument is the count of structures that GNTTABOP wants; the other calls ignore it.
    checked(unsafe { hypercall(number, [command, address, 1, 0, 0]) })
}

/// CONSOLEIO_write. Gives the raw result: negative when the hypervisor has no console for this domain.
pub fn console_write(bytes: &[u8]) -> i64 {
    let arguments = [
        console::WRITE,
        bytes.len() as u64,
        bytes.as_ptr() as u64,
        0,
        0,
    ];
    // SAFETY: the hypervisor only reads through the pointer.
    unsafe { hypercall(number::CONSOLE_IO, arguments) }
}

/// XENVER_version: major in the upper half, minor in the lower.
pub fn version() -> i64 {
    // SAFETY: no pointer.
    unsafe { hypercall(number::XEN_VERSION, [version::VERSION, 0, 0, 0, 0]) }
}

/// XENVER_get_features, one word of 32 flags.
///
/// # Errors
/// The hypervisor's.
pub fn features(index: u32) -> Result<u32, Error> {
    let mut info = FeatureInfo { index, word: 0 };
    with(number::XEN_VERSION, version::GET_FEATURES, &mut info)?;
    Ok(info.word)
}

/// SCHEDOP_shutdown. Comes back only when it is refused.
pub fn shutdown(reason: Shutdown) -> Error {
    let reason = match reason {
        Shutdown::PowerOff => sched::REASON_POWEROFF,
        Shutdown::Reboot => sched::REASON_REBOOT,
        Shutdown::Crash => sched::REASON_CRASH,
    };
    match with(
        number::SCHED_OP,
        sched::SHUTDOWN,
        &mut sched::Shutdown { reason },
    ) {
        Ok(value) => Error(value.cast_signed()),
        Err(error) => error,
    }
}

/// GNTTABOP_query_size for this domain: frames now, and at most.
///
/// # Errors
/// The hypervisor's, from the call or in the structure's status.
pub fn grant_frames() -> Result<(u32, u32), Error> {
    let mut query = QuerySize {
        domain: DomainId::SELF,
        reserved: 0,
        frames: 0,
        max_frames: 0,
        status: 0,
        reserved2: 0,
    };
    with(number::GRANT_TABLE_OP, grant_table::QUERY_SIZE, &mut query)?;
    match query.status {
        0 => Ok((query.frames, query.max_frames)),
        status => Err(Error(i64::from(status))),
    }
}

/// 64-bit words in a page.
const WORDS: usize = 512;
const _: () = assert!(WORDS as u64 * 8 == PAGE_SIZE);

/// A page of words that the hypervisor may change at any time.
#[repr(C, align(4096))]
struct Page([AtomicU64; WORDS]);

/// A page of the image, to have the shared info page put in its place.
static SHARED: Page = Page([const { AtomicU64::new(0) }; WORDS]);

/// The shared info page, where the first vCPU has its record.
pub struct SharedInfo(&'static Page);

impl SharedInfo {
    /// XENMEM_add_to_physmap of the shared info page over a page of this image, as Linux does it.
    ///
    /// # Errors
    /// The hypervisor's.
    pub fn map() -> Result<Self, Error> {
        let mut request = AddToPhysmap {
            domain: DomainId::SELF,
            size: 0,
            space: memory::SPACE_SHARED_INFO,
            index: 0,
            gpfn: &raw const SHARED as u64 / PAGE_SIZE,
        };
        with(number::MEMORY_OP, memory::ADD_TO_PHYSMAP, &mut request)?;
        Ok(Self(&SHARED))
    }

    /// The word at a byte offset; offsets are the layout's own, or checked against the number of ports.
    pub(crate) fn word(&self, offset: u64) -> &AtomicU64 {
        let [first, ..] = &self.0.0;
        let index = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        self.0.0.get(index).unwrap_or(first)
    }

    /// Clears "an upcall is due". Says whether it was set.
    pub fn take_upcall(&self) -> bool {
        let old = self
            .word(VCPU_UPCALL_WORD)
            .fetch_and(!UPCALL_PENDING, Ordering::SeqCst);
        old & UPCALL_PENDING != 0
    }

    /// Clears a channel's pending bit and its word's in the selector. Says whether it was set.
    pub fn take_pending(&self, port: u32) -> bool {
        let port = u64::from(port % event_channel::PORTS);
        self.word(VCPU_PENDING_SELECTOR)
            .fetch_and(!(1 << (port / 64)), Ordering::SeqCst);
        let bit = 1 << (port % 64);
        let word = self.word(SHARED_INFO.pending + port / 64 * 8);
        word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Clears a channel's mask bit, before anything is sent to it.
    pub fn unmask(&self, port: u32) {
        let port = u64::from(port % event_channel::PORTS);
        let word = self.word(SHARED_INFO.mask + port / 64 * 8);
        word.fetch_and(!(1 << (port % 64)), Ordering::SeqCst);
    }
}

/// EVTCHNOP_bind_ipi on a vCPU: a channel that the domain sends to itself. Gives its port.
///
/// # Errors
/// The hypervisor's.
pub fn bind_ipi(vcpu: u32) -> Result<u32, Error> {
    let mut argument = event_channel::BindIpi { vcpu, port: 0 };
    with(
        number::EVENT_CHANNEL_OP,
        event_channel::BIND_IPI,
        &mut argument,
    )?;
    Ok(argument.port)
}

/// EVTCHNOP_send.
///
/// # Errors
/// The hypervisor's.
pub fn send(port: u32) -> Result<(), Error> {
    let mut argument = event_channel::Port { port };
    with(number::EVENT_CHANNEL_OP, event_channel::SEND, &mut argument).map(drop)
}

/// EVTCHNOP_close.
///
/// # Errors
/// The hypervisor's.
pub fn close(port: u32) -> Result<(), Error> {
    let mut argument = event_channel::Port { port };
    with(
        number::EVENT_CHANNEL_OP,
        event_channel::CLOSE,
        &mut argument,
    )
    .map(drop)
}
