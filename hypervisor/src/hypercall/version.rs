//! `xen_version`: what this hypervisor is, and the feature word.

use abi::version::{
    BUILD_ID, CAPABILITIES, CAPABILITIES_LENGTH, CAPABILITIES2, CHANGESET, CHANGESET_LENGTH,
    CHANGESET2, COMMANDLINE, COMMANDLINE_LENGTH, COMMANDLINE2, COMPILE_INFO, CompileInfo,
    EXTRAVERSION, EXTRAVERSION_LENGTH, EXTRAVERSION2, FeatureInfo, GET_FEATURES, GUEST_HANDLE,
    PAGESIZE, PLATFORM_PARAMETERS, PlatformParameters, VERSION, VariableBuffer,
};
use abi::{Errno, Handle};

use super::Answer;
use crate::caller::Caller;
use crate::machine::Machine;

/// The version of Xen whose interface this is: 4.20.
const INTERFACE: u64 = 4 << 16 | 20;
/// What follows the version; it tells the two apart.
const EXTRA: &str = concat!(".", env!("CARGO_PKG_VERSION"), "-terrane");
const _: () = assert!(EXTRA.len() < EXTRAVERSION_LENGTH);

/// The answer to `XENVER_version`.
#[inline]
pub(super) const fn quick(operation: u64) -> Option<u64> {
    if operation == VERSION {
        Some(INTERFACE)
    } else {
        None
    }
}

impl<M: Machine> Caller<'_, M> {
    pub(super) fn xen_version(&self, operation: u64, buffer: Handle) -> Answer {
        match operation {
            VERSION => Ok(INTERFACE),
            PAGESIZE if buffer == 0 => Ok(abi::PAGE_SIZE),
            PAGESIZE => Err(Errno::Einval),
            GET_FEATURES => self.features(buffer),
            EXTRAVERSION => self.fixed_text(buffer, EXTRA, EXTRAVERSION_LENGTH),
            CAPABILITIES => self.fixed_text(buffer, M::FACTS.capabilities, CAPABILITIES_LENGTH),
            CHANGESET => self.fixed_text(buffer, "", CHANGESET_LENGTH),
            COMMANDLINE => self.fixed_text(buffer, "", COMMANDLINE_LENGTH),
            COMPILE_INFO => {
                let mut compiler = [0; 64];
                copy_text(&mut compiler, "rustc");
                self.write(
                    buffer,
                    &CompileInfo {
                        compiler,
                        by: [0; 16],
                        domain: [0; 32],
                        date: [0; 32],
                    },
                )?;
                Ok(0)
            }
            PLATFORM_PARAMETERS => {
                self.write(
                    buffer,
                    &PlatformParameters {
                        virtual_start: M::FACTS.virtual_start,
                    },
                )?;
                Ok(0)
            }
            GUEST_HANDLE => {
                self.write_bytes(buffer, &[0; 16])?;
                Ok(0)
            }
            EXTRAVERSION2 => self.variable_text(buffer, EXTRA),
            CAPABILITIES2 => self.variable_text(buffer, M::FACTS.capabilities),
            CHANGESET2 | COMMANDLINE2 => self.variable_text(buffer, ""),
            // The image carries no build identifier.
            BUILD_ID => Err(Errno::Enodev),
            _ => Err(Errno::Enosys),
        }
    }

    fn features(&self, buffer: Handle) -> Answer {
        let info: FeatureInfo = self.read(buffer)?;
        if info.index != 0 {
            return Err(Errno::Einval);
        }
        self.write(
            buffer,
            &FeatureInfo {
                word: self.domain.features,
                ..info
            },
        )?;
        Ok(0)
    }

    /// Text in a field of a fixed length, the rest of which is zero.
    fn fixed_text(&self, buffer: Handle, text: &str, length: usize) -> Answer {
        const ZEROES: [u8; CAPABILITIES_LENGTH] = [0; CAPABILITIES_LENGTH];
        let text = text.get(..length - 1).unwrap_or(text);
        let rest = ZEROES.get(text.len()..length).unwrap_or(&ZEROES);
        self.write_bytes(buffer, text.as_bytes())?;
        self.write_bytes(buffer.wrapping_add(text.len() as u64), rest)?;
        Ok(0)
    }

    /// Text behind a length; without a buffer only its length.
    fn variable_text(&self, buffer: Handle, text: &str) -> Answer {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        if buffer == 0 {
            return Ok(u64::from(length));
        }
        let room: VariableBuffer = self.read(buffer)?;
        if room.length == 0 {
            return Err(Errno::Einval);
        }
        if room.length < length {
            return Err(Errno::Enobufs);
        }
        self.write(buffer, &VariableBuffer { length })?;
        self.write_bytes(buffer.wrapping_add(4), text.as_bytes())?;
        Ok(u64::from(length))
    }
}

/// Copies as much of the text as fits before a terminating zero.
fn copy_text(field: &mut [u8], text: &str) {
    let room = field.len().saturating_sub(1);
    for (place, byte) in field.iter_mut().take(room).zip(text.bytes()) {
        *place = byte;
    }
}
