//! The hypercalls that the guests use, with arguments that the hypervisor can read in place (memory is mapped 1:1).

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::call::hypercall;

/// Hypercall numbers (xen/include/public/xen.h).
mod number {
    pub const MEMORY_OP: u64 = 12;
    pub const XEN_VERSION: u64 = 17;
    pub const CONSOLE_IO: u64 = 18;
    pub const GRANT_TABLE_OP: u64 = 20;
    pub const SCHED_OP: u64 = 29;
    pub const EVENT_CHANNEL_OP: u64 = 32;
}

/// The domain that calls (DOMID_SELF).
const SELF: u16 = 0x7ff0;

/// Why a domain shuts down (xen/include/public/sched.h).
#[derive(Clone, Copy, Debug)]
pub enum Shutdown {
    /// SHUTDOWN_poweroff.
    PowerOff = 0,
    /// SHUTDOWN_reboot.
    Reboot = 1,
    /// SHUTDOWN_crash.
    Crash = 3,
}

/// An error of Xen's ABI: a negative errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(pub i64);

fn checked(result: i64) -> Result<u64, Error> {
    u64::try_from(result).map_err(|_| Error(result))
}

/// Calls `number` with a command and a structure that the hypervisor may read and write.
fn with<T>(number: u64, command: u64, argument: &mut T) -> Result<u64, Error> {
    // SAFETY: the one pointer is to `argument`, lent for the call; `T` is made of integers, so any bytes are valid.
    checked(unsafe { hypercall(number, [command, &raw mut *argument as u64, 0, 0, 0]) })
}

/// CONSOLEIO_write. Gives the raw result: negative when the hypervisor has no console for this domain.
pub fn console_write(bytes: &[u8]) -> i64 {
    // SAFETY: the hypervisor only reads through the pointer.
    unsafe {
        hypercall(
            number::CONSOLE_IO,
            [0, bytes.len() as u64, bytes.as_ptr() as u64, 0, 0],
        )
    }
}

/// XENVER_version: major in the upper half, minor in the lower.
pub fn version() -> i64 {
    // SAFETY: no pointer.
    unsafe { hypercall(number::XEN_VERSION, [0; 5]) }
}

/// XENVER_get_features, one word of 32 flags.
///
/// # Errors
/// The hypervisor's.
pub fn features(word: u32) -> Result<u32, Error> {
    let mut argument = [word, 0];
    with(number::XEN_VERSION, 6, &mut argument)?;
    Ok(argument[1])
}

/// SCHEDOP_shutdown. Comes back only when it is refused.
pub fn shutdown(reason: Shutdown) -> Error {
    match with(number::SCHED_OP, 2, &mut (reason as u32)) {
        Ok(value) => Error(value.cast_signed()),
        Err(error) => error,
    }
}

/// GNTTABOP_query_size for this domain: frames now, and at most.
///
/// # Errors
/// The hypervisor's, from the call or in the structure's status.
pub fn grant_frames() -> Result<(u32, u32), Error> {
    #[repr(C)]
    struct QuerySize {
        domain: u16,
        frames: u32,
        most: u32,
        status: i16,
    }
    let mut query = QuerySize {
        domain: SELF,
        frames: 0,
        most: 0,
        status: 0,
    };
    // SAFETY: as in `with`; this call has a count as its third argument.
    checked(unsafe { hypercall(number::GRANT_TABLE_OP, [6, &raw mut query as u64, 1, 0, 0]) })?;
    match query.status {
        0 => Ok((query.frames, query.most)),
        status => Err(Error(i64::from(status))),
    }
}

/// The head of `struct shared_info` on Arm: one legacy `vcpu_info` (48 bytes), then pending and mask bits of 4,096
/// event channels (xen/include/public/xen.h, arch-arm.h).
#[repr(C)]
pub struct SharedInfo {
    upcall_pending: AtomicU8,
    _pad: [u8; 7],
    pending_selector: AtomicU64,
    _time: [u64; 4],
    pending: [AtomicU64; 64],
    mask: [AtomicU64; 64],
}

/// A page-aligned page of the image, to have the shared info page put in its place.
#[repr(C, align(4096))]
struct Page([AtomicU64; 512]);
static SHARED: Page = Page([const { AtomicU64::new(0) }; 512]);

impl SharedInfo {
    /// XENMEM_add_to_physmap of the shared info page over a page of this image, as Linux does it.
    ///
    /// # Errors
    /// The hypervisor's.
    pub fn map() -> Result<&'static Self, Error> {
        #[repr(C)]
        struct AddToPhysmap {
            domain: u16,
            size: u16,
            space: u32,
            index: u64,
            frame: u64,
        }
        let page = &raw const SHARED;
        let mut request = AddToPhysmap {
            domain: SELF,
            size: 0,
            space: 0,
            index: 0,
            frame: page as u64 >> 12,
        };
        with(number::MEMORY_OP, 7, &mut request)?;
        // SAFETY: the page is static, aligned, larger than `SharedInfo`, and both are atomics, so that the hypervisor
        // may change it at any time.
        Ok(unsafe { &*page.cast() })
    }

    /// Clears "an upcall is due". Says whether it was set.
    pub fn take_upcall(&self) -> bool {
        self.upcall_pending.swap(0, Ordering::SeqCst) != 0
    }

    /// Clears a channel's pending bit and its word's in the selector. Says whether it was set.
    pub fn take_pending(&self, port: u32) -> bool {
        let Some(word) = self.pending.get(port as usize / 64) else {
            return false;
        };
        self.pending_selector
            .fetch_and(!(1 << (port / 64)), Ordering::SeqCst);
        let bit = 1 << (port % 64);
        word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Clears a channel's mask bit, before anything is sent to it.
    pub fn unmask(&self, port: u32) {
        if let Some(word) = self.mask.get(port as usize / 64) {
            word.fetch_and(!(1 << (port % 64)), Ordering::SeqCst);
        }
    }
}

/// EVTCHNOP_bind_ipi on a vCPU: a channel that the domain sends to itself. Gives its port.
///
/// # Errors
/// The hypervisor's.
pub fn bind_ipi(vcpu: u32) -> Result<u32, Error> {
    let mut argument = [vcpu, 0];
    with(number::EVENT_CHANNEL_OP, 7, &mut argument)?;
    Ok(argument[1])
}

/// EVTCHNOP_send.
///
/// # Errors
/// The hypervisor's.
pub fn send(port: u32) -> Result<(), Error> {
    with(number::EVENT_CHANNEL_OP, 4, &mut { port }).map(|_| ())
}

/// EVTCHNOP_close.
///
/// # Errors
/// The hypervisor's.
pub fn close(port: u32) -> Result<(), Error> {
    with(number::EVENT_CHANNEL_OP, 3, &mut { port }).map(|_| ())
}
