//! Which PCI functions can't be told apart by an IOMMU: those that reach each other on the way to it.
//!
//! Functions of one device reach each other unless they have access control of their own, and so does all that is
//! behind a bridge without it. The same rule as Linux's, without its list of chips that isolate and don't say so.
//!
//! PCI Express 5.0, 6.12.

use alloc::vec::Vec;

use super::{Bridge, Description, Function, PciAddress};

/// These bridges have no DMA of their own, so they are in nobody's group: host bridges and PCI bridges. An ISA bridge
/// has: that of the devices on its bus, by the PC's DMA controller or as masters of the LPC bus.
const BRIDGES: [u32; 2] = [0x0600, 0x0604];

/// For each function, in order, its group; `None` for one that is alone in it.
pub(super) fn of(pc: &Description) -> Vec<Option<u32>> {
    let heads: Vec<Option<PciAddress>> = pc
        .functions
        .iter()
        .map(|function| (!BRIDGES.contains(&(function.class >> 8))).then(|| head(pc, function)))
        .collect();
    let mut sorted: Vec<PciAddress> = heads.iter().copied().flatten().collect();
    sorted.sort_unstable();
    let mut shared: Vec<PciAddress> = sorted
        .windows(2)
        .filter(|two| two[0] == two[1])
        .map(|two| two[0])
        .collect();
    shared.dedup();
    let number = |head: PciAddress| {
        let place = shared.binary_search(&head).ok()?;
        u32::try_from(place).ok()
    };
    heads.into_iter().map(|head| number(head?)).collect()
}

/// What stands for a function's group: of the bridges above that don't keep apart what is behind them the outermost, or
/// itself; of a device whose functions reach each other its first.
fn head(pc: &Description, function: &Function) -> PciAddress {
    let address = function.address;
    let above = pc.bridges.iter().filter(|bridge| is_above(bridge, address));
    let open = above.filter(|bridge| !bridge.isolates);
    // A bridge further out has more buses behind it.
    let outermost = open.max_by_key(|bridge| bridge.subordinate.saturating_sub(bridge.secondary));
    let (address, isolated) = match outermost {
        Some(bridge) => (bridge.address, false),
        None => (address, function.isolated),
    };
    PciAddress {
        function: if isolated { address.function } else { 0 },
        ..address
    }
}

fn is_above(bridge: &Bridge, address: PciAddress) -> bool {
    bridge.address.segment == address.segment
        && (bridge.secondary..=bridge.subordinate).contains(&address.bus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn at(bus: u8, device: u8, function: u8) -> PciAddress {
        PciAddress {
            segment: 0,
            bus,
            device,
            function,
        }
    }

    fn function(address: PciAddress, class: u32, isolated: bool) -> Function {
        Function {
            address,
            vendor: 0x8086,
            device: 1,
            class,
            bars: vec![],
            behind_iommu: true,
            isolated,
        }
    }

    fn bridge(address: PciAddress, secondary: u8, subordinate: u8, isolates: bool) -> Bridge {
        Bridge {
            address,
            secondary,
            subordinate,
            isolates,
        }
    }

    #[test]
    fn functions_of_a_device_and_what_is_behind_an_open_bridge() {
        let pc = Description {
            functions: vec![
                function(at(0, 0, 0), 0x06_0000, false),
                function(at(0, 2, 0), 0x03_0000, false),
                function(at(0, 0x1f, 0), 0x06_0100, false),
                function(at(0, 0x1f, 2), 0x01_0601, false),
                function(at(0, 0x1f, 3), 0x0c_0500, false),
                // Behind a port that isolates: two functions that say they do too, and two that don't.
                function(at(1, 0, 0), 0x02_0000, true),
                function(at(1, 0, 1), 0x02_0000, true),
                function(at(2, 0, 0), 0x02_0000, false),
                function(at(2, 0, 1), 0x02_0000, false),
                // Behind a switch whose ports isolate, behind a port that doesn't.
                function(at(6, 0, 0), 0x01_0802, false),
                function(at(7, 0, 0), 0x01_0802, false),
            ],
            bridges: vec![
                bridge(at(0, 0x1c, 0), 1, 1, true),
                bridge(at(0, 0x1c, 1), 2, 2, true),
                bridge(at(0, 0x1c, 2), 4, 7, false),
                bridge(at(5, 0, 0), 6, 6, true),
                bridge(at(5, 1, 0), 7, 7, true),
                bridge(at(4, 0, 0), 5, 7, true),
            ],
            ..Description::default()
        };
        let groups = of(&pc);
        let alone = [0, 1, 5, 6].map(|place: usize| groups[place]);
        assert_eq!(alone, [None; 4]);
        assert_eq!([groups[2], groups[3]], [groups[4]; 2]);
        assert_eq!(groups[7], groups[8]);
        assert_eq!(groups[9], groups[10]);
        let mut numbers = [groups[3], groups[7], groups[9]].map(|group| group.unwrap());
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2]);
    }
}
