//! Kernel files in every wrapper, damaged ones, and bombs.
#![cfg(feature = "std")]

use std::io::Write;

use layout::Architecture;
use proptest::prelude::*;
use terrane_manifest::image::ImageError;
use terrane_manifest::kernel::{KernelError, Wrapper, unwrap_bounded, unwrap_image};

const HOST: Architecture = Architecture::Aarch64;

/// A plain kernel of 64 KiB that compresses neither very well nor very badly.
fn image() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0u32..0x4000)
        .flat_map(|i| (i * i / 7).to_le_bytes())
        .collect();
    bytes[..64].fill(0);
    bytes[16..24].copy_from_slice(&0x2_0000u64.to_le_bytes());
    bytes[24..32].copy_from_slice(&0xau64.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    bytes
}

fn wrap(wrapper: Wrapper, bytes: &[u8]) -> Vec<u8> {
    match wrapper {
        Wrapper::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Wrapper::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Wrapper::Zstd => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress_to_vec(bytes, level)
        }
        Wrapper::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Wrapper::Lz4Legacy => {
            let block = lz4_flex::block::compress(bytes);
            let mut file = vec![0x02, 0x21, 0x4c, 0x18];
            file.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            file.extend(block);
            // Linux's build appends the size of what comes out.
            file.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
            file
        }
        Wrapper::EfiZboot => {
            let mut file = vec![0; 64];
            file[..2].copy_from_slice(b"MZ");
            file[4..8].copy_from_slice(b"zimg");
            file[8..12].copy_from_slice(&64u32.to_le_bytes());
            file[12..16].copy_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
            file.extend(bytes);
            file.extend([0; 16]);
            file
        }
        Wrapper::BzImage => unreachable!("tests/pvh.rs makes these"),
    }
}

const STREAMS: [Wrapper; 5] = [
    Wrapper::Gzip,
    Wrapper::Xz,
    Wrapper::Zstd,
    Wrapper::Lz4,
    Wrapper::Lz4Legacy,
];

#[test]
fn a_plain_kernel_stays_as_it_is() {
    let kernel = unwrap_image(image(), HOST).unwrap();
    assert_eq!((kernel.bytes, kernel.wrappers), (image(), vec![]));
    assert_eq!(kernel.image.memory_size, 0x2_0000);
}

#[test]
fn every_wrapper_comes_off() {
    for wrapper in STREAMS {
        let kernel = unwrap_image(wrap(wrapper, &image()), HOST).unwrap();
        assert!(kernel.bytes == image(), "{wrapper}");
        assert_eq!(kernel.wrappers, [wrapper]);
    }
}

/// The formats of which several streams in a row are one file.
const IN_ROWS: [Wrapper; 4] = [Wrapper::Gzip, Wrapper::Xz, Wrapper::Zstd, Wrapper::Lz4];

/// What may stand between two streams.
fn between(wrapper: Wrapper) -> &'static [u8] {
    match wrapper {
        Wrapper::Xz => &[0; 8],
        // A skippable frame of three bytes, as parallel compressors write them.
        Wrapper::Zstd => &[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3],
        _ => &[],
    }
}

#[test]
fn streams_in_a_row_are_one_kernel() {
    for wrapper in IN_ROWS {
        let image = image();
        let (first, rest) = image.split_at(1000);
        let (second, third) = rest.split_at(5000);
        let file = [
            wrap(wrapper, first),
            wrap(wrapper, second),
            between(wrapper).to_vec(),
            wrap(wrapper, third),
        ];
        let kernel = unwrap_image(file.concat(), HOST).unwrap();
        assert!(kernel.bytes == image, "{wrapper}");
        assert_eq!(kernel.wrappers, [wrapper]);
    }
}

#[test]
fn later_streams_are_bounded_and_checked_too() {
    for wrapper in IN_ROWS {
        let one = wrap(wrapper, &vec![0; 600 << 10]);
        let two = [one.clone(), one].concat();
        let error = unwrap_bounded(two.clone(), 1 << 20).unwrap_err();
        assert_eq!(error, KernelError::TooLarge { limit: 1 << 20 }, "{wrapper}");
        assert!(unwrap_bounded(two, 1200 << 10).is_ok(), "{wrapper}");

        let mut cut = [wrap(wrapper, &image()), wrap(wrapper, &image())].concat();
        cut.truncate(cut.len() * 3 / 4);
        let error = unwrap_image(cut, HOST).unwrap_err();
        assert!(matches!(error, KernelError::Damaged { .. }), "{wrapper}");
    }
}

#[test]
fn what_lies_behind_a_stream_and_is_none_is_left_alone() {
    for wrapper in IN_ROWS {
        for behind in [&[0; 512][..], &[0xd0, 0x0d, 0xfe, 0xed], &[1, 2, 3]] {
            let file = [&wrap(wrapper, &image()), behind].concat();
            let kernel = unwrap_image(file, HOST).unwrap();
            assert!(kernel.bytes == image(), "{wrapper}");
        }
    }
}

#[test]
fn efi_zboot_has_one_stream() {
    for wrapper in IN_ROWS {
        let payload = [wrap(wrapper, &image()), wrap(wrapper, &image())].concat();
        let kernel = unwrap_image(wrap(Wrapper::EfiZboot, &payload), HOST).unwrap();
        assert!(kernel.bytes == image(), "{wrapper}");
    }
}

#[test]
fn efi_zboot_comes_off_around_each() {
    for wrapper in STREAMS {
        let kernel = unwrap_image(wrap(Wrapper::EfiZboot, &wrap(wrapper, &image())), HOST).unwrap();
        assert!(kernel.bytes == image(), "{wrapper}");
        assert_eq!(kernel.wrappers, [Wrapper::EfiZboot, wrapper]);
    }
}

#[test]
fn what_is_no_kernel_is_refused() {
    assert_eq!(
        unwrap_image(vec![0; 4096], HOST),
        Err(KernelError::Image(ImageError::NotAnImage(HOST)))
    );
    assert_eq!(
        unwrap_image(Vec::new(), HOST),
        Err(KernelError::Image(ImageError::NotAnImage(HOST)))
    );
    let stored = wrap(Wrapper::EfiZboot, &image());
    assert!(matches!(
        unwrap_image(stored, HOST),
        Err(KernelError::Damaged {
            wrapper: Wrapper::EfiZboot,
            ..
        })
    ));
    for wrapper in STREAMS {
        let mut cut = wrap(wrapper, &image());
        cut.truncate(cut.len() / 2);
        assert!(
            matches!(unwrap_image(cut, HOST), Err(KernelError::Damaged { .. })),
            "{wrapper}"
        );
    }
}

#[test]
fn bombs_are_bounded() {
    let zeros = vec![0; 4 << 20];
    for wrapper in STREAMS {
        let bomb = wrap(wrapper, &zeros);
        let error = unwrap_bounded(bomb, 1 << 20).unwrap_err();
        assert_eq!(error, KernelError::TooLarge { limit: 1 << 20 }, "{wrapper}");
    }
    let nested = (0..6).fold(image(), |bytes, _| wrap(Wrapper::Gzip, &bytes));
    assert_eq!(
        unwrap_bounded(nested, 1 << 20),
        Err(KernelError::TooManyLayers)
    );
}

proptest! {
    #[test]
    fn damaged_kernels_do_not_panic(
        which in 0..STREAMS.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = wrap(STREAMS[which], &image()[..4096]);
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = unwrap_bounded(bytes, 1 << 20);
    }
}
