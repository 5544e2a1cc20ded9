//! What a kernel's module says of its place: by properties of its node, else by its header.
//!
//! An Image tells in its first bytes. What an ELF file told is lost in the flat image that the container holds:
//! there the workstation writes it down as properties.

use alloc::borrow::ToOwned;
use alloc::format;

use layout::{Code, GuestAddress, GuestRange, KernelRequest, MachineRange, Origin};

use super::property;
use super::read::Reader;
use crate::image::Image;
use crate::tree::blob::{Cells, Node};
use crate::tree::writer::Writer;

/// Writes what a header doesn't tell. Nothing for a kernel that has one.
pub(super) fn write(node: &mut Writer, kernel: &KernelRequest) {
    if kernel.entry.is_none() && kernel.bounds.is_none() {
        return;
    }
    node.numbers(property::MEMORY_SIZE, &[kernel.memory_size]);
    node.numbers(property::ALIGNMENT, &[kernel.alignment]);
    node.numbers(property::TEXT_OFFSET, &[kernel.text_offset]);
    if let Some(entry) = kernel.entry {
        node.numbers(property::ENTRY, &[entry]);
    }
    if let Some(bounds) = kernel.bounds {
        node.numbers(
            property::BOUNDS,
            &[bounds.start().raw(), bounds.end().raw()],
        );
    }
}

impl Reader<'_, '_> {
    /// The kernel whose module has this node.
    pub(super) fn kernel(
        &mut self,
        node: Node<'_, '_>,
        module: MachineRange,
        origin: Origin,
    ) -> Option<KernelRequest> {
        if node.has(property::MEMORY_SIZE) {
            return self.described_kernel(node, module, origin);
        }
        let header = self
            .contents
            .header(module)
            .ok_or("nothing can be read there".to_owned());
        let image = header.and_then(|header| {
            let image = Image::read(&header, module.size(), self.host.architecture());
            image.map_err(|error| format!("{error}"))
        });
        match image {
            Ok(image) => Some(image.request(module, origin)),
            Err(why) => {
                let what = format!("the kernel module at {module}");
                self.problem(node, Code::KernelFile, &what, &why);
                None
            }
        }
    }

    fn described_kernel(
        &mut self,
        node: Node<'_, '_>,
        module: MachineRange,
        origin: Origin,
    ) -> Option<KernelRequest> {
        let memory_size = self.number(node, property::MEMORY_SIZE)?;
        let alignment = self.number(node, property::ALIGNMENT).unwrap_or(4096);
        let text_offset = self.number(node, property::TEXT_OFFSET).unwrap_or(0);
        let entry = self.number(node, property::ENTRY);
        if let Some(entry) = entry.filter(|entry| *entry >= memory_size) {
            let what = format!("{} = {entry:#x}", property::ENTRY);
            let why = "the entry lies outside the kernel";
            self.wrong(node, property::ENTRY, Code::KernelFile, &what, why, "");
            return None;
        }
        let bounds = match node.value(property::BOUNDS) {
            None => None,
            Some(value) => match bounds(value) {
                Some(bounds) => Some(bounds),
                None => {
                    let why = "it is not two addresses, the lower first";
                    self.problem(node, Code::WrongType, property::BOUNDS, why);
                    return None;
                }
            },
        };
        Some(KernelRequest {
            module,
            memory_size,
            alignment,
            text_offset,
            bounds,
            entry,
            origin,
        })
    }
}

fn bounds(value: &[u8]) -> Option<GuestRange> {
    let mut cells = Cells::new(value);
    let (start, end) = cells.next_number(2).zip(cells.next_number(2))?;
    let good = cells.is_empty() && start <= end;
    good.then(|| GuestRange::between(GuestAddress::new(start), GuestAddress::new(end)))
}
