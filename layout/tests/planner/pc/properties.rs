//! Whatever is asked of a PC, with kernels that must lie between bounds.

use proptest::prelude::*;
use terrane_layout::*;

use super::{guest, movable, pc_domain, pc_system, planned, q35};
use crate::common::*;

fn any_kernel() -> impl Strategy<Value = KernelRequest> {
    let size = 1_u64..60;
    let bounds = (0_u64..1200, 0_u64..1200);
    (4_u64..600, size, bounds, any::<bool>()).prop_map(|(start, size, (low, room), exact)| {
        let memory_size = size * MIB;
        let room = if exact { memory_size } else { room * MIB };
        KernelRequest {
            memory_size,
            bounds: Some(guest(low * MIB, low * MIB + room)),
            ..movable_of(start * MIB, size * MIB / 2)
        }
    })
}

fn movable_of(start: u64, size: u64) -> KernelRequest {
    KernelRequest {
        module: bytes(start, size),
        ..movable(start)
    }
}

fn any_domain() -> impl Strategy<Value = DomainRequest> {
    let memory = prop_oneof![
        3 => (64_u64..800).prop_map(|mib| MemoryRequest::Size(mib * MIB)),
        1 => Just(MemoryRequest::Rest),
    ];
    let below = prop::option::weighted(0.2, (100_u64..8000).prop_map(|mib| mib * MIB));
    (
        memory,
        any_kernel(),
        any::<bool>(),
        any::<Option<bool>>(),
        below,
    )
        .prop_map(|(memory, kernel, hardware, direct, below)| {
            let mut domain = pc_domain("x", memory, kernel, hardware);
            domain.direct_map = direct.map(Located::from);
            domain.allow_dma_without_iommu = true;
            domain.memory_below = below.map(Located::from);
            domain
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }))]

    #[test]
    fn whatever_is_asked_of_a_pc_has_an_answer(
        memory in 1_u64..5,
        image in 1_u64..3000,
        domains in prop::collection::vec(any_domain(), 1..6),
    ) {
        let mut host = q35(memory * GIB, 6);
        host.boot[0].range = bytes(image * MIB, MIB + 0x2_3000);
        let mut domains = domains;
        for (index, domain) in domains.iter_mut().enumerate() {
            domain.name.value = format!("domain{index}");
        }
        let request = pc_system(domains);
        let outcome = planned(&host, &request);
        prop_assert_eq!(&outcome, &plan(&host, &request));
    }

    /// One direct-mapped domain finds the place of its kernel, wherever that is.
    #[test]
    fn a_kernels_place_is_found(low in 4_u64..1000, size in 1_u64..60, memory in 128_u64..900) {
        let mut host = q35(2 * GIB, 1);
        host.boot.truncate(1);
        let kernel = KernelRequest {
            memory_size: size * 2 * MIB,
            bounds: Some(guest(low * 2 * MIB, (low + size) * 2 * MIB)),
            ..movable_of(1500 * MIB, size * MIB)
        };
        let mut control = pc_domain("control", MemoryRequest::Size(memory * MIB), kernel, true);
        control.ramdisk = None;
        prop_assume!(size * 2 < memory && (low + size) * 2 <= 2040);
        let outcome = planned(&host, &pc_system(vec![control]));
        prop_assert_eq!(codes(&outcome), [""; 0]);
    }
}
