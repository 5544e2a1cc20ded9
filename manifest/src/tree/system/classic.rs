//! The hardware domain of Xen before 4.21, whose modules stand right under `/chosen`, and what Xen's command line says of it.

use alloc::borrow::ToOwned;
use alloc::format;

use layout::{Capabilities, Code, DomainRequest, Located, MemoryRequest};

use super::read::Reader;
use crate::tree::blob::Node;

impl Reader<'_, '_> {
    /// That domain, if there is one.
    pub(super) fn classic(&mut self, chosen: Node<'_, '_>) -> Option<DomainRequest> {
        let found = self.modules_of(chosen);
        let kernel = found.kernel?;
        let xen = xen_command_line(chosen, found.command_line.as_deref());
        let origin = self.origin(chosen);
        let host_cpus = self.host.cpus();
        // `bootargs` is the hypervisor's if it has no words of its own and dom0 has.
        let own = chosen.string("xen,dom0-bootargs");
        let classic = own.or_else(|| chosen.string("bootargs"));
        let command_line = found
            .command_line
            .or_else(|| classic.map(ToOwned::to_owned))
            .unwrap_or_default();
        let options = match chosen.has("xen,xen-bootargs") {
            true => "xen,xen-bootargs",
            false => "bootargs",
        };
        let cpus = self.xen_option(chosen, options, xen, "dom0_max_vcpus", |text| {
            text.parse::<u32>().ok()
        });
        let memory = self.xen_option(chosen, options, xen, "dom0_mem", |text| {
            text.split(',').next().and_then(xen_size)
        });
        let memory = memory.map_or(MemoryRequest::Rest, MemoryRequest::Size);
        let options = self.at_value(origin, chosen, options);
        let mut domain = DomainRequest {
            name: Located::new("dom0".to_owned(), origin),
            capabilities: Located::from(Capabilities::all()),
            cpus: Located::new(
                cpus.unwrap_or(u32::try_from(host_cpus).unwrap_or(u32::MAX)),
                options,
            ),
            memory: Located::new(memory, options),
            kernel: Some(kernel),
            ramdisk: found.ramdisk,
            command_line,
            ..DomainRequest::default()
        };
        domain.tree_bytes = self.host.budget(&domain);
        Some(domain)
    }

    /// What an option of Xen's command line, in the property `options`, says: of several the last counts.
    fn xen_option<T>(
        &mut self,
        chosen: Node<'_, '_>,
        options: &str,
        line: &str,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let mut words = line.split(' ').rev();
        let text = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        let found = read(text);
        if found.is_none() {
            let what = format!("{name}={text}");
            let why = "it isn't a number as Xen reads it";
            let help = format!("write a number, such as {name}=2, a size with K, M or G behind it");
            self.wrong(chosen, options, Code::ValueInvalid, &what, why, &help);
        }
        found
    }
}

/// The hypervisor's command line, where Xen looks for it. `kernel` is that of dom0's kernel, if its node has one.
fn xen_command_line<'a>(chosen: Node<'_, 'a>, kernel: Option<&str>) -> &'a str {
    let is_xens = chosen.has("xen,dom0-bootargs") || kernel.is_some_and(|line| !line.is_empty());
    chosen
        .string("xen,xen-bootargs")
        .or_else(|| chosen.string("bootargs").filter(|_| is_xens))
        .unwrap_or_default()
}

/// A size as Xen's command line writes it: a number, decimal or with `0x`, and B, K, M, G or T; KiB without a unit (Xen,
/// docs/misc/xen-command-line.pandoc, "Size"). An octal number isn't guessed at.
pub(crate) fn xen_size(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((text, 10), |digits| (digits, 16));
    let end = digits.find(|letter: char| !letter.is_digit(radix));
    let (number, unit) = digits.split_at(end.unwrap_or(digits.len()));
    if radix == 10 && number.len() > 1 && number.starts_with('0') {
        return None;
    }
    let shift = match unit {
        "B" | "b" => 0,
        "" | "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    u64::from_str_radix(number, radix)
        .ok()?
        .checked_mul(1 << shift)
}
