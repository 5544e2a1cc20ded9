//! Memory by machine address, which a guest may change at the same time: accesses are volatile, and no reference to it is
//! ever made.

/// Copies bytes out of memory.
///
/// # Safety
/// The range is mapped memory.
pub unsafe fn read(address: u64, bytes: &mut [u8]) {
    for (at, byte) in (address..).zip(bytes) {
        // SAFETY: by the caller.
        *byte = unsafe { (at as *const u8).read_volatile() };
    }
}

/// Copies bytes into memory.
///
/// # Safety
/// The range is mapped memory in which the hypervisor keeps nothing of its own.
pub unsafe fn write(address: u64, bytes: &[u8]) {
    for (at, &byte) in (address..).zip(bytes) {
        // SAFETY: by the caller.
        unsafe { (at as *mut u8).write_volatile(byte) };
    }
}

/// Zeroes `bytes` bytes; both numbers are multiples of 8.
///
/// # Safety
/// As for [`write`].
pub unsafe fn clear(address: u64, bytes: u64) {
    for at in (address..address + bytes).step_by(8) {
        // SAFETY: by the caller.
        unsafe { (at as *mut u64).write_volatile(0) };
    }
}

/// Copies `bytes` bytes from one range to another, which may overlap.
///
/// # Safety
/// As for [`read`] and [`write`].
pub unsafe fn copy(source: u64, target: u64, bytes: u64) {
    let backwards = target > source && target - source < bytes;
    // Boot modules are large and lie at multiples of a page; what grants copy may lie anywhere.
    let wide = if (source | target).is_multiple_of(16) {
        bytes / 16
    } else {
        0
    };
    let rest = wide * 16;
    let narrow = || {
        // SAFETY: by the caller.
        unsafe { shift::<u8>(source + rest, target + rest, bytes - rest, backwards) };
    };
    if backwards {
        narrow();
    }
    // SAFETY: by the caller, and both are multiples of 16 if there is anything to do.
    unsafe { shift::<u128>(source, target, wide, backwards) };
    if !backwards {
        narrow();
    }
}

/// Copies `count` elements in the order that overlapping ranges need.
///
/// # Safety
/// Both ranges are mapped memory, and aligned for `T`.
unsafe fn shift<T: Copy>(source: u64, target: u64, count: u64, backwards: bool) {
    let width = size_of::<T>() as u64;
    for index in 0..count {
        let at = width * if backwards { count - 1 - index } else { index };
        // SAFETY: `at` is within both ranges, for which the caller vouches.
        let element = unsafe { ((source + at) as *const T).read_volatile() };
        // SAFETY: as above.
        unsafe { ((target + at) as *mut T).write_volatile(element) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(16))]
    struct Memory([u8; 256]);

    fn ascending() -> [u8; 256] {
        let mut next = 0..=u8::MAX;
        core::array::from_fn(|_| next.next().unwrap())
    }

    /// Runs `change` on memory of ascending bytes, given its address.
    fn changed(change: impl FnOnce(u64)) -> [u8; 256] {
        let mut memory = Memory(ascending());
        change((&raw mut memory.0).expose_provenance() as u64);
        memory.0
    }

    #[test]
    fn ranges_that_overlap_are_copied_whole() {
        for (source, target, bytes) in [
            (0_usize, 64_usize, 64_usize),
            (0, 16, 200),
            (16, 0, 200),
            (1, 8, 99),
            (8, 1, 99),
            (0, 48, 47),
            (32, 0, 33),
            (5, 5, 40),
            (0, 1, 0),
        ] {
            let copied = changed(|base| {
                // SAFETY: the ranges lie in `Memory`.
                unsafe { copy(base + source as u64, base + target as u64, bytes as u64) };
            });
            let mut expected = ascending();
            expected.copy_within(source..source + bytes, target);
            assert_eq!(copied, expected, "{source} to {target}, {bytes}");
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_changes() {
        let mut read_back = [0; 3];
        let memory = changed(|base| {
            // SAFETY: the range lies in `Memory`, as the next two do.
            unsafe { write(base + 7, &[1, 1, 1]) };
            // SAFETY: as above.
            unsafe { clear(base + 16, 24) };
            // SAFETY: as above.
            unsafe { read(base + 6, &mut read_back) };
        });
        assert_eq!(read_back, [6, 1, 1]);
        assert_eq!(memory[9..12], [1, 10, 11]);
        assert_eq!(
            [memory[15], memory[16], memory[39], memory[40]],
            [15, 0, 0, 40]
        );
    }
}
