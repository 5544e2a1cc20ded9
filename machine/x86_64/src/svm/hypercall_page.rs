//! Xen's hypercall page for a guest under SVM: for each number 32 bytes that put it into EAX and execute VMMCALL.

/// How many hypercalls have a place.
const PLACES: usize = 4096 / BYTES;
const BYTES: usize = 32;
/// `__HYPERVISOR_iret`, which a guest that isn't PV can't make.
const IRET: usize = 23;

/// The page.
#[must_use]
pub fn bytes() -> [u8; 4096] {
    // INT3 everywhere else.
    let mut page = [0xcc; 4096];
    for (number, place) in (0..PLACES).zip(page.chunks_exact_mut(BYTES)) {
        let number_byte = number.to_le_bytes()[0];
        // MOV EAX, number; VMMCALL; RET.
        let call = [0xb8, number_byte, 0, 0, 0, 0x0f, 0x01, 0xd9, 0xc3];
        // UD2.
        let code: &[u8] = if number == IRET { &[0x0f, 0x0b] } else { &call };
        place[..code.len()].copy_from_slice(code);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_a_byte_and_places_a_page() {
        const { assert!(PLACES == 128) };
        let page = bytes();
        assert_eq!(
            page[17 * 32..17 * 32 + 10],
            [0xb8, 17, 0, 0, 0, 0x0f, 1, 0xd9, 0xc3, 0xcc]
        );
        assert_eq!(page[23 * 32..23 * 32 + 3], [0x0f, 0x0b, 0xcc]);
    }
}
